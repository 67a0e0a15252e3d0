"""What each command takes: one dataclass each. Imports nothing heavy, so that `whorl --help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, Suppress, UseAppendAction, arg

from whorl.apps.gym_server.settings import Settings as ServerSettings
from whorl.options import Amount, Count, Positive
from whorl.training.settings import Settings, Update

Agent = Annotated[Positional[str], arg(metavar="AGENT")]
Environment = Annotated[Positional[str], arg(metavar="ENV")]
RunFolder = Annotated[Positional[Path], arg(metavar="RUN")]


class Repeated(Settings):
    """The settings that all runs of a sweep share: each has a seed of its own."""


class Changed(Settings):
    """The settings that a resume may change."""


@dataclass(kw_only=True)
class Named:
    """A command that takes names."""

    # modules that bring agents (whorl.register_agent), transforms (whorl.register_transform) and Gymnasium ids, once for each
    imports: Annotated[UseAppendAction[tuple[str, ...]], arg(name="import", metavar="MODULE")] = ()


@dataclass(kw_only=True)
class Networked(Named):
    """A command for which networks are built."""

    # a network of your own that looks at observations: a class or function of the module, which is imported
    encoder: Annotated[str | None, arg(metavar="MODULE:NAME")] = None


@dataclass(kw_only=True)
class Begun(Named):
    """A command that makes environments anew."""

    # what lies between ENV and AGENT instead of what the preset says, a list in JSON, the innermost first: '["scale_action"]'
    # (whorl list transforms)
    transforms: str | None = None
    # options of the environment, --env.KEY VALUE
    env_kwargs: Suppress[Any] = None


@dataclass(kw_only=True)
class Finished(Networked):
    """A command for a run that there is."""

    # options of its environment instead of the run's, --env.KEY VALUE
    env_kwargs: Suppress[Any] = None


@dataclass
class Train(Begun, Networked):
    """Train AGENT in ENV. Options that are not given come from the preset of the pair; --env.KEY VALUE is an option of ENV itself."""

    # whorl list agents
    algorithm: Agent
    # a native world, any installed Gymnasium id (or MODULE:ID, which is imported), library/ID such as dm_control/cartpole-balance, or
    # http://host:port/ID
    environment: Environment
    # a run folder, its config.json, or a part of one: what AGENT, ENV and all options are where they are not given
    recipe: Path | None = None
    settings: OmitArgPrefixes[Settings] = Settings()
    # its config, once AGENT is known
    agent: Suppress[Any] = None
    # folder of all runs
    runs: Path = Path("runs")
    # of the run's folder, instead of <time>_s<seed>
    name: str | None = None
    # print nothing but errors
    quiet: bool = False
    # end with one line of JSON
    json: bool = False


@dataclass
class Eval(Finished):
    """Evaluate the trained policy of RUN on fresh whole episodes."""

    # a run folder, or runs/last
    run: RunFolder
    # the URL of its environment, where it was trained on a server: nothing else is connected to
    env: str | None = None
    episodes: int = 100
    # of the evaluation's own streams
    seed: int = 1_000_000
    # best, last, or the step of a checkpoint
    which: str = "best"
    # end with one line of JSON
    json: bool = False


@dataclass
class Play(Finished):
    """Record one episode of RUN's best policy as GIF or MP4 (GIF into the run's video folder by default)."""

    run: RunFolder
    # the URL of its environment, where it was trained on a server: nothing else is connected to
    env: str | None = None
    gif: Path | None = None
    # needs whorl[video]
    mp4: Path | None = None
    seed: int = 0
    which: str = "best"


@dataclass
class Export(Finished):
    """Write RUN's greedy policy as a file that is used without whorl: observations in, actions out, the normalizer inside."""

    run: RunFolder
    # onnx needs whorl[onnx]; torch is torch.export's archive; safetensors holds the tensors alone
    to: Literal["onnx", "torch", "safetensors"]
    # policy.onnx, policy.pt2 or policy.safetensors in the run's folder if not given
    out: Path | None = None
    # best, last, or the step of a checkpoint
    which: str = "best"


@dataclass
class Resume(Finished):
    """Go on with a run that was stopped or killed, or give a finished one more steps. Options of `whorl train` change what may change on
    the way, --learning-rate 1e-4: whorl resume RUN --help shows them as they are."""

    run: RunFolder
    # the URL of its environment, where it was trained on a server: nothing else is connected to
    env: str | None = None
    # new total, in environment steps
    total_steps: int | None = None
    # where metrics go beside metrics.jsonl, if not where they went: wandb and mlflow are used only where they are named again
    logger: str | None = None
    # what may change on the way, as it is; once RUN is known
    settings: Suppress[Any] = None
    # the agent's config, as it is; --agent. need not be written
    agent: Suppress[Any] = None
    # which of these fields do
    changes: Suppress[Any] = None
    quiet: bool = False
    # end with one line of JSON
    json: bool = False


@dataclass
class Sweep(Begun, Networked):
    """Train AGENT in ENV with every setting of a grid and several seeds. The same command goes on after a kill; --env.KEY VALUE is an
    option of ENV itself, in all runs."""

    # one, or several to compare: ppo,a2c
    algorithm: Agent
    environment: Environment
    # once for each field
    grid: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FIELD=a,b,c")] = ()
    # once for each field: log:LOW:HIGH, uniform:LOW:HIGH, int:LOW:HIGH or choice:a,b,c
    sample: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FIELD=HOW")] = ()
    # how often the sampled fields are drawn
    trials: Annotated[int, Count] = 20
    # of each setting: 0, 1, ...
    seeds: Annotated[int, Count] = 5
    # runs at a time: 2; 2x1, each with one core of its own; "gpu:0,1 x2", one on each GPU with two cores. As many as there are cores if
    # not given
    slots: Annotated[str | None, arg(metavar="N|NxCORES|gpu:0,1")] = None
    # of a run that failed or was killed, from its last checkpoint
    retries: Annotated[int, Amount] = 2
    settings: OmitArgPrefixes[Repeated] = Repeated()
    # the sweep is the folder sweeps/NAME in it
    runs: Path = Path("runs")
    # of the sweep's folder, instead of one made from the settings
    name: str | None = None
    # end with one line of JSON
    json: bool = False


@dataclass
class List(Named):
    """What there is: agents, environments, transforms, presets or runs."""

    what: Positional[Literal["agents", "envs", "transforms", "presets", "runs"]]
    runs: Path = Path("runs")
    # envs: their spaces and limits, and which agent can run in which
    compat: bool = False
    # the table of --compat as the page docs/environments.md
    markdown: bool = False


@dataclass
class Check(Begun):
    """What training AGENT in ENV would use, or why it cannot work (exit code 1)."""

    algorithm: Agent
    environment: Environment


@dataclass
class Doctor:
    """Versions, devices, extras and rendering of this machine."""


class ServeGym(ServerSettings):
    """Serve environments over HTTP: the gym-http-api protocol of 2016, and a fast one beside it. Stop with Ctrl-C."""


@dataclass
class Submit(Named):
    """Score RUNs under the leaderboard's protocol, and write one entry each into a board."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    # a folder; a git repository can hold it
    board: Path = Path("board")
    author: str = ""
    note: str = ""
    # end with one line of JSON
    json: bool = False


@dataclass
class Board:
    """Write BOARD as static pages, or serve it live. `whorl board merge` joins boards."""

    board: Annotated[Positional[Path], arg(metavar="BOARD")] = Path("board")
    # the folder of the pages
    export: Path | None = None
    serve: bool = False
    # of --serve; 5001 if not given
    port: int | None = None
    # 127.0.0.1 if not given; another address than this machine's own needs a token
    host: str | None = None
    # better in WHORL_BOARD_TOKEN, where `ps` cannot see it
    token: str | None = None


@dataclass
class BoardMerge:
    """Copy the entries of BOARDs into one. Each is checked first."""

    boards: Annotated[Positional[tuple[Path, ...]], arg(metavar="BOARD")]
    into: Path = Path("board")


@dataclass
class Verify(Named):
    """Play the evaluation of ENTRY again: exit code 0 if all episodes are equal, 1 if the claim is refuted, 3 if it cannot be told here."""

    # its folder, or its id
    entry: Annotated[Positional[str], arg(metavar="ENTRY")]
    # where an id is looked for
    board: Path = Path("board")
    # end with one line of JSON
    json: bool = False


@dataclass
class Plot:
    """Draw the evaluation curves of RUNs: mean and interquartile mean over seeds, one line for each setting."""

    # run folders, folders of sweeps, or patterns such as 'runs/CartPole-v1/*/*'
    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    out: Path = Path("plot.png")
    x: Literal["steps", "seconds"] = "steps"


@dataclass
class Bench:
    """How fast whorl learns on this machine, with each body of updates in turn: a few seconds each, nothing is kept."""

    # what to learn, such as ppo, dqn_32, sac (another word shows all); everything if not given
    only: Annotated[Positional[tuple[str, ...]], arg(metavar="[WORK ...]")] = ()
    # the bodies, as in --update of train; compiled takes long to begin
    updates: tuple[Update, ...] = ("eager", "packed")
    # of measuring, for each
    seconds: Annotated[float, Positive] = 1.5
    # of everything, with other seeds: medians are shown
    repeats: Annotated[int, Count] = 1
    # end with one line of JSON
    json: bool = False


@dataclass
class Run:
    """torch-twrl's command line, word for word: whorl run -env 'CartPole-v0' -policy categorical ... (whorl run -help)."""


COMMANDS = {
    "train": Train,
    "run": Run,
    "eval": Eval,
    "play": Play,
    "export": Export,
    "resume": Resume,
    "sweep": Sweep,
    "plot": Plot,
    "submit": Submit,
    "board": Board,
    "board-merge": BoardMerge,
    "verify": Verify,
    "serve-gym": ServeGym,
    "list": List,
    "check": Check,
    "doctor": Doctor,
    "bench": Bench,
}
