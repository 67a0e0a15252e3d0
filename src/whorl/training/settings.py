"""What makes a run, beside the agent's own config. The command line, `whorl.train`, `sweep` and `whorl run` take their options from
here: none is written twice. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from whorl.errors import BadInput
from whorl.options import Amount, Count

Update = Literal["auto", "eager", "packed", "compiled"]
Precision = Literal["float32", "bfloat16"]
PARTS = 20  # of a run: it is evaluated and saved after each, where nothing else is said
NAMED = (
    "agent",
    "env",
    "own_env",
    "env_kwargs",
    "wrappers",
    "transforms",
    "encoder",
    "scheduled",
    "spaces",
)  # what is trained: no options
# what no resume changes
FIXED = ("seed", "num_envs", "collector", "decorrelate", "max_episode_steps", "total_episodes", "init_from")


@dataclass(frozen=True)
class Settings:
    """Steps are the run's progress: environment steps of all environments together, or updates where it learns from data."""

    agent: str = ""
    # its id; "" where the run learns from data and is never evaluated
    env: str = ""
    # an environment of the user's was passed, object, class or function: only he can make it again
    own_env: bool = False
    # options of the environment, as plain values
    env_kwargs: dict[str, object] = field(default_factory=dict)
    # names of what was put around each environment, for people: only the user can do it again
    wrappers: tuple[str, ...] = ()
    # what lies between environments and agent, the innermost first: names, and tables of a name and its arguments
    transforms: tuple[object, ...] = ()
    # what makes the network that looks at observations, for people to read: resume and load ask for it again
    encoder: str = ""
    # the fields that functions of progress move, and what these are called, for people: resume asks for the functions again
    scheduled: str = ""
    # what its agent sees and does, to compare with other environments; "" in folders of before there was such a note
    spaces: str = ""
    # of every random stream
    seed: Annotated[int, Amount] = 0
    # environments stepped together
    num_envs: Annotated[int, Count] = 8
    # alternating: one half of them steps while the policy decides what the other does; async: processes of their own step them, and go
    # ahead while this one learns
    collector: Literal["serial", "alternating", "async"] = "serial"
    # most random actions that each environment takes before the first rollout, so that not all are at the same place in their episodes
    decorrelate: Annotated[int, Amount] = 0
    # processes of collector=async, which share the environments
    samplers: Annotated[int, Count] = 1
    # each of their rollouts begins when the one before was learned from
    synchronous: bool = False
    # processes that step them; 0 = the one that learns does
    workers: Annotated[int, Amount] = 0
    # what an exception inside an environment does, where workers step it: end the run, or lose the worker's episodes and start it anew
    on_env_error: Literal["raise", "restart"] = "raise"
    # how far the run goes
    total_steps: Annotated[int, Count] = 100_000
    # stop after so many, if that comes first
    total_episodes: Annotated[int | None, Count] = None
    # end the run at this mean return: of an evaluation, or of a full window of training episodes where nothing is evaluated
    stop_at: float | None = None
    # a time limit, where the environment has none or a longer one
    max_episode_steps: Annotated[int | None, Count] = None
    # seconds that a step of one environment may take, and ten times as long a reset, before it counts as hung and the process ends; 0 = any
    env_timeout: Annotated[float, Amount] = 60.0
    # a run whose weights and observation statistics this one begins with
    init_from: str | None = None
    # longest episode that a resumed run plays again to stand where it stood, of an environment that cannot save its state; 0 = none
    replay_steps: Annotated[int, Amount] = 10_000
    # where the agent learns
    device: str = "cpu"
    # how the optimizer steps are computed, equal but for rounding: packed, without autograd, where networks are small; eager, by autograd;
    # compiled, each as one graph of torch.compile. auto is packed where that can be, else eager, and says why
    update: Update = "auto"
    # of matrix products in hidden layers and CNNs while it learns; bfloat16 is for wide networks on a CPU that multiplies it fast
    precision: Precision = "float32"
    # another word for update=compiled; td: the whole loop
    compile: bool = False
    # of torch: part of the run, because sums in another order give other bits. One is fastest for small networks, more help convolutions
    threads: Annotated[int, Count] = 1
    # steps between evaluations; a twentieth of the run if not given, 0 = never
    eval_every: Annotated[int | None, Amount] = None
    # who evaluates: inline, the process that learns, which waits for it; concurrent, a process of its own, from checkpoints
    evaluate: Literal["inline", "concurrent"] = "inline"
    # whole episodes of each evaluation
    eval_episodes: Annotated[int, Count] = 100
    # steps between checkpoints; as evaluations if not given (less where rows are kept), 0 = never
    checkpoint_every: Annotated[int | None, Amount] = None
    # newest checkpoints that stay, beside the best
    keep_checkpoints: Annotated[int, Count] | Literal["all"] = 5
    # steps between rows of the log
    log_every: Annotated[int, Count] = 2000
    # entries of info that go into the batch, the metrics and episodes.csv: KEY, KEY:sum, KEY:mean or KEY:last over an episode, with commas;
    # discounted_return and nonzero_rewards are made of the rewards
    info_keys: str = ""
    # where metrics go beside metrics.jsonl: tensorboard, csv (progress.csv), wandb, mlflow, with commas between several, or none
    logger: str = "tensorboard"
    # episodes that the sliding statistics are over
    window: Annotated[int, Count] = 100
    # episodes between two videos of the policy; 0 = none
    video_every: Annotated[int, Amount] = 0

    def settled(self, most_between_checkpoints: int) -> Settings:
        """With the intervals that were left open."""
        often = max(1, self.total_steps // PARTS)
        saved = min(often, most_between_checkpoints)
        return replace(
            self,
            eval_every=often if self.eval_every is None else self.eval_every,
            checkpoint_every=saved if self.checkpoint_every is None else self.checkpoint_every,
        )


def one_word(fields: Mapping[str, object], was: Update = "auto") -> dict[str, object]:
    """Some fields of Settings with `compile` said as `update`, whose other word it is. was: the body before them.

    Raises BadInput where the two contradict.
    """
    said = {**fields}
    if fields.get("compile") is True:
        if (update := said.get("update")) not in (None, "auto", "compiled"):
            raise BadInput(
                f"compile=True is another word for update='compiled', and update={update!r}: give one of them"
            )
        said |= {"update": "compiled", "compile": False}
    elif fields.get("compile") is False and was == "compiled":
        said.setdefault("update", "auto")
    return said


def check_one_device(device: object) -> None:
    """Raises BadInput for several devices."""
    if isinstance(device, list | tuple) or (isinstance(device, str) and "," in device):
        raise BadInput(
            f"device = {device!r}: several devices are not here yet, a run takes one, such as device='cuda:0'"
        )
