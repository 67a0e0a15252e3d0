"""The command line. Torch is imported only by the commands that need it, so that `whorl --help` answers at once."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from whorl.errors import WhorlError


@dataclass
class Train:
    """Train AGENT in ENV. Options that are not given come from the preset of the pair."""

    algorithm: Annotated[Positional[str], arg(metavar="AGENT")]  # whorl list agents
    environment: Annotated[
        Positional[str], arg(metavar="ENV")
    ]  # a native world, any installed Gymnasium id, or http://host:port/ID
    seed: int = 0  # of every random stream
    num_envs: int | None = None  # environments stepped together
    total_steps: int | None = None  # environment steps
    runs: Path = Path("runs")  # folder of all runs
    name: str | None = None  # of the run's folder, instead of <time>_s<seed>
    device: str = "cpu"  # where the agent learns
    total_episodes: int | None = None  # stop after so many episodes, if that comes first
    max_episode_steps: int | None = None  # a time limit, where the environment has none or a longer one
    window: int = 100  # episodes that the sliding statistics are over
    video_every: int = 0  # episodes between two videos of the policy; 0 = none
    compile: bool = False  # every optimizer step as one compiled graph; td: the whole loop
    threads: int = 1  # of torch; one is fastest for small networks, more help convolutions
    eval_every: int | None = None  # environment steps between evaluations; 0 = never
    eval_episodes: int = 100  # whole episodes of each evaluation
    checkpoint_every: int | None = None  # environment steps between checkpoints; 0 = never
    quiet: bool = False  # print nothing but errors
    json: bool = False  # end with one line of JSON


@dataclass
class Eval:
    """Evaluate the trained policy of RUN on fresh whole episodes."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]  # a run folder, or runs/last
    episodes: int = 100
    seed: int = 1_000_000  # of the evaluation's own streams
    which: str = "best"  # best, last, or the step of a checkpoint
    json: bool = False  # end with one line of JSON


@dataclass
class Play:
    """Record one episode of RUN's best policy as GIF or MP4 (GIF into the run's video folder by default)."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    gif: Path | None = None
    mp4: Path | None = None  # needs whorl[video]
    seed: int = 0
    which: str = "best"


@dataclass
class Resume:
    """Go on with a run that was stopped or killed, or give a finished one more steps."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    total_steps: int | None = None  # new total, in environment steps
    quiet: bool = False
    json: bool = False  # end with one line of JSON


@dataclass
class Sweep:
    """Train AGENT in ENV with every setting of a grid and several seeds. The same command goes on after a kill."""

    algorithm: Annotated[Positional[str], arg(metavar="AGENT")]
    environment: Annotated[Positional[str], arg(metavar="ENV")]
    grid: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FIELD=a,b,c")] = ()  # once for each field
    seeds: int = 5  # of each setting: 0, 1, ...
    jobs: int | None = None  # runs at a time; as many as there are cores if not given
    total_steps: int | None = None  # environment steps of each run
    num_envs: int | None = None  # environments stepped together in each run
    eval_episodes: int = 100  # whole episodes of each evaluation
    runs: Path = Path("runs")  # the sweep is the folder sweeps/NAME in it
    name: str | None = None  # of the sweep's folder, instead of one made from the settings
    json: bool = False  # end with one line of JSON


@dataclass
class List:
    """What there is: agents, environments, presets or runs."""

    what: Positional[Literal["agents", "envs", "presets", "runs"]]
    runs: Path = Path("runs")
    compat: bool = False  # envs: their spaces and limits, and which agent can run in which
    markdown: bool = False  # the table of --compat as the page docs/environments.md


@dataclass
class Check:
    """What training AGENT in ENV would use, or why it cannot work (exit code 1)."""

    algorithm: Annotated[Positional[str], arg(metavar="AGENT")]
    environment: Annotated[Positional[str], arg(metavar="ENV")]


@dataclass
class Doctor:
    """Versions, devices, extras and rendering of this machine."""


@dataclass
class ServeGym:
    """Serve environments over HTTP: the gym-http-api protocol of 2016, and a fast one beside it. Stop with Ctrl-C."""

    port: int = 5000
    host: str = "127.0.0.1"  # another address than this machine's own needs a token
    token: str | None = (
        None  # clients send it as the password of HTTP Basic; better in WHORL_GYM_TOKEN, where `ps` cannot see it
    )
    allow_hosts: tuple[str, ...] = ()  # further host:port names of this server, such as those of a tunnel or a proxy
    allow: tuple[str, ...] = ()  # patterns of environment ids, such as 'CartPole-*'; all installed ones if not given
    allow_shutdown: bool = False  # whether POST /v1/shutdown/ works
    root: Path | None = None  # the only folder that monitors write to
    max_envs: int = 64  # environments at a time
    idle: float = 600.0  # seconds after which an environment that nobody asks is closed
    patience: float = 60.0  # seconds that a call may take
    empty_as_json: bool = False  # answer {} where the protocol has an empty body, for the C++ client
    lenient: bool = False  # allow a step after the end of an episode, as the original did


@dataclass
class Submit:
    """Score RUNs under the leaderboard's protocol, and write one entry each into a board."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    board: Path = Path("board")  # a folder; a git repository can hold it
    author: str = ""
    note: str = ""
    json: bool = False  # end with one line of JSON


@dataclass
class Board:
    """Write BOARD as static pages, or serve it live. `whorl board merge` joins boards."""

    board: Annotated[Positional[Path], arg(metavar="BOARD")] = Path("board")
    export: Path | None = None  # the folder of the pages
    serve: bool = False
    port: int | None = None  # of --serve; 5001 if not given
    host: str | None = None  # 127.0.0.1 if not given; another address than this machine's own needs a token
    token: str | None = None  # better in WHORL_BOARD_TOKEN, where `ps` cannot see it


@dataclass
class BoardMerge:
    """Copy the entries of BOARDs into one. Each is checked first."""

    boards: Annotated[Positional[tuple[Path, ...]], arg(metavar="BOARD")]
    into: Path = Path("board")


@dataclass
class Verify:
    """Play the evaluation of ENTRY again: exit code 0 if all episodes are equal, 1 if the claim is refuted, 3 if it cannot be told here."""

    entry: Annotated[Positional[str], arg(metavar="ENTRY")]  # its folder, or its id
    board: Path = Path("board")  # where an id is looked for
    json: bool = False  # end with one line of JSON


@dataclass
class Plot:
    """Draw the evaluation curves of RUNs: mean and interquartile mean over seeds, one line for each setting."""

    runs: Annotated[
        Positional[tuple[str, ...]], arg(metavar="RUN")
    ]  # run folders, or patterns such as 'runs/CartPole-v1/*/*'
    out: Path = Path("plot.png")
    x: Literal["steps", "seconds"] = "steps"


@dataclass
class Run:
    """torch-twrl's command line, word for word: whorl run -env 'CartPole-v0' -policy categorical ... (whorl run -help)."""


COMMANDS = {
    "train": Train,
    "run": Run,
    "eval": Eval,
    "play": Play,
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
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit code 2 for bad input, 1 for a run that failed; errors are one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments[:1] == ["run"]:
            from whorl.apps import twrl

            return twrl.main(arguments[1:])
        if arguments[:2] == ["board", "merge"]:
            arguments = ["board-merge", *arguments[2:]]
        command = _parse(arguments)
        from whorl.apps import commands

        name = next(name for name, kind in COMMANDS.items() if isinstance(command, kind))
        getattr(commands, name.replace("-", "_"))(command)
    except WhorlError as error:
        print(f"whorl: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"whorl: {error}", file=sys.stderr)
        sys.exit(1)


def _parse(arguments: list[str]) -> Any:
    kinds: dict[str, Any] = dict(COMMANDS)
    if arguments[:1] == ["train"]:
        kinds["train"] = _with_config(arguments[1:])
    return tyro.extras.subcommand_cli_from_dict(
        kinds,
        prog="whorl",
        description="Reinforcement learning in PyTorch: train, resume, evaluate, watch.",
        args=arguments,
    )


def _with_config(arguments: list[str]) -> type:
    """`Train` plus the fields of the agent's config as `--agent.FIELD`, with the preset of the pair as defaults."""
    names = _positionals(arguments)[:2]
    if len(names) < 2:
        return Train  # tyro says what is missing

    from whorl.training.catalog import find

    config = find(*names).config
    extended = make_dataclass("Train", [("agent", type(config), field(default=config))], bases=(Train,))
    extended.__doc__ = Train.__doc__
    return extended


def _positionals(arguments: list[str]) -> list[str]:
    """The words that are neither options nor their values."""
    found, value_follows = [], False
    for word in arguments:
        if word.startswith("-"):
            value_follows = "=" not in word and word.lstrip("-").removeprefix("no-") not in (
                "compile",
                "quiet",
                "json",
                "help",
            )
        elif value_follows:
            value_follows = False
        else:
            found.append(word)
    return found
