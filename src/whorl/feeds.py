"""How an agent wants its data: one small dataclass per way.

A feed answers by properties, so that nobody asks of which class it is, and names its buffer, its collector and its loop: words that
`training/build.py` resolves, or classes and functions of the user's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Protocol

from whorl import options
from whorl.errors import BadInput
from whorl.options import Amount, Bounds, Count, Share

ENVIRONMENT_STEPS, UPDATES = "environment steps", "updates"
Part = str | Callable[..., Any]  # the name of a part of whorl's, or what makes one of the user's


class Feed:
    """What every feed answers; these are the answers where it says nothing else."""

    unit: str = "step"  # "episode": every rollout begins and ends with whole episodes
    steps: int = 1  # rows of time of a rollout
    progress: str = ENVIRONMENT_STEPS  # what a run counts; UPDATES where there is no environment to learn from
    replays: bool = False  # rows are kept from one rollout to the next
    prioritized: bool = False  # rows are drawn by priorities, which the agent gives back
    warmup: int = 0  # environment steps before the first update
    normalize_observation: bool = False  # by running mean and std, inside the policy
    own_envs: bool = False  # whoever learns makes environments of its own, by their id
    max_lag: int = 0  # syncs that rows may be older than the weights; 0: any number
    one_by_one: bool = False  # every step is learned from at once, on the CPU
    buffer: Part = "rollout"  # what holds the rows
    adjustable: frozenset[str] = frozenset(
        {"steps", "epochs", "minibatches", "max_lag"}
    )  # of its fields, what may change in a run that is resumed

    # of rows that are kept
    storage: str = "memory"
    batch_size: int = 0
    capacity: int = 0
    replay_ratio: float = 0.0
    prefetch: int = 0
    n_step: int = 1
    alpha: float = 0.6
    beta: float = 0.4
    beta_steps: int = 0
    replacement: bool = True  # a row may be drawn again before all others were
    length: int = 0  # rows of a sequence; 0: single rows
    burn_in: int = 0
    overlap: int = 0
    eta: float = 0.9
    across_ends: bool = True
    relabel: str = "none"
    relabel_fraction: float = 0.0

    def collector(self, on_cpu: bool) -> Part | None:
        """What collects, where environment and agent live on the CPU or not; None: nothing does."""
        return "serial"

    def loop(self, compiled: bool) -> Part:
        """What runs the loop."""
        return "plain"

    def check(self, num_envs: int) -> None:
        """Raises BadInput for sizes that cannot work with `num_envs` environments."""
        options.check(self, "feed.")


class Fed(Protocol):
    """The settings of an agent: a frozen dataclass that says, beside everything else, how it wants its data."""

    @property
    def feed(self) -> Feed:
        """Its feed."""


def check_fed(settings: Any) -> None:
    """Raises BadInput for an agent's settings without a feed."""
    feed = {field.name: getattr(settings, field.name) for field in fields(settings)}.get("feed")
    if not isinstance(feed, Feed):
        came = "no feed" if feed is None else f"feed = {feed!r}"
        raise BadInput(
            f"{type(settings).__name__} has {came}: an agent's config says how it wants its data, `feed: Rollouts = Rollouts()` or another "
            f"of whorl.feeds ({', '.join(FEEDS)})"
        )


@dataclass(frozen=True)
class Rollouts(Feed):
    """On-policy: every rollout is used for some epochs of shuffled minibatches, then dropped."""

    # rows of time a rollout has [env steps per environment]; unit "episode": at least this many
    steps: Annotated[int, Count] = 128
    # passes over each rollout
    epochs: Annotated[int, Count] = 1
    # pieces an epoch is cut into
    minibatches: Annotated[int, Count] = 1
    # rollouts that rows may be older than the weights, where samplers go ahead; older ones have `mask` False. 0 = any number
    max_lag: Annotated[int, Amount] = 1
    # rows of time that stay together, for agents with a memory; must divide `steps`; 0 = single rows, with a memory all `steps`
    sequence: Annotated[int, Amount] = 0
    # "episode": a rollout begins and ends with whole episodes in every environment
    unit: Literal["step", "episode"] = "step"

    def check(self, num_envs: int) -> None:
        super().check(num_envs)
        rows = self.steps * num_envs
        if self.sequence and (self.steps % self.sequence or self.unit == "episode"):
            raise BadInput(
                f"feed.sequence = {self.sequence} must divide feed.steps = {self.steps}, so that all sequences are of one length, "
                "and whole episodes (feed.unit) have none: use a divisor of steps"
            )
        if self.minibatches > rows:
            raise BadInput(
                f"feed.minibatches = {self.minibatches} is more than the rollout's {rows} rows "
                f"({self.steps} steps x {num_envs} environments): a minibatch would be empty. Use fewer minibatches or more steps"
            )


@dataclass(frozen=True)
class Shared(Rollouts):
    """Rollouts that processes collect and learn from at the same time, without locks, on shared weights (Mnih et al. 2016)."""

    # processes that act and learn; `num_envs` is of each of them
    workers: Annotated[int, Count] = 2

    own_envs = True

    def loop(self, compiled: bool) -> Part:
        return "hogwild"


@dataclass(frozen=True)
class Stream(Feed):
    """Online: every step is learned from once, in order, as soon as it is taken (rollouts of T = 1)."""

    one_by_one = True
    buffer = "stream"

    def collector(self, on_cpu: bool) -> Part | None:
        return "stream"

    def loop(self, compiled: bool) -> Part:
        return "compiled_td" if compiled else "plain"


@dataclass(frozen=True)
class Kept(Feed):
    """What feeds share whose rows are kept in a ring and drawn many times."""

    adjustable = frozenset({"batch_size", "replay_ratio"})

    # rows (or sequences) of one gradient update
    batch_size: Annotated[int, Count] = 256
    # rows that are kept; the oldest goes first
    capacity: Annotated[int, Count] = 1_000_000
    # gradient updates per environment step (Fedus et al. 2020); rlpyt's ratio / batch_size
    replay_ratio: Annotated[float, Bounds(1e-6, 1e6)] = 1.0
    # environment steps before the first update
    warmup: Annotated[int, Amount] = 1_000
    # rows of time collected between two rounds of updates [env steps per environment]
    steps: Annotated[int, Count] = 1
    # rewards summed before bootstrapping
    n_step: Annotated[int, Count] = 1
    # draw in proportion to priority**alpha (Schaul et al. 2016)
    prioritized: bool = False
    # 0 = uniform
    alpha: Annotated[float, Share] = 0.6
    # exponent of the importance weights at the start, 1 = full correction
    beta: Annotated[float, Share] = 0.4
    # environment steps over which beta rises linearly to 1; 0 = it stays
    beta_steps: Annotated[int, Amount] = 0
    # memmap: on disk; frames: each image once
    storage: Literal["memory", "memmap", "frames"] = "memory"
    # batches drawn ahead by a thread, of those that are due
    prefetch: Annotated[int, Amount] = 0
    # by running mean and std, inside the policy; rows are kept as they came
    normalize_observation: bool = False

    replays = True
    buffer = "replay"

    def collector(self, on_cpu: bool) -> Part | None:
        return "stream" if self.steps == 1 and on_cpu else "serial"

    def unused(self) -> list[tuple[str, str]]:
        """(field, what it needs) of fields that do nothing as things stand."""
        return [] if self.prioritized else [(name, "prioritized") for name in ("alpha", "beta", "beta_steps")]

    def check(self, num_envs: int) -> None:
        """As `Feed.check`, and for fields that would do nothing."""
        super().check(num_envs)
        rows = self.capacity // num_envs  # of each environment
        for name in ("n_step", "steps"):
            if getattr(self, name) > rows:
                raise BadInput(
                    f"feed.{name} = {getattr(self, name)} is longer than the {rows} rows that each of {num_envs} environments has in the "
                    f"buffer (feed.capacity = {self.capacity}): use a larger capacity"
                )
        for name, needs in self.unused():
            if getattr(self, name) != getattr(type(self), name):
                raise BadInput(
                    f"feed.{name} = {getattr(self, name)} does nothing without feed.{needs}: set that, or leave it out"
                )
        if self.prefetch and self.replay_ratio * self.steps * num_envs <= 1:
            raise BadInput(
                f"feed.prefetch = {self.prefetch} draws ahead of the batches that are due at once, and there is never more than one "
                "(replay_ratio x steps x environments): leave it out"
            )
        if self.warmup > self.capacity:
            raise BadInput(
                f"feed.warmup = {self.warmup} is more than feed.capacity = {self.capacity}: rows would be dropped before they are used"
            )


@dataclass(frozen=True)
class Replay(Kept):
    """Off-policy: rows are kept in a ring and drawn one by one."""

    # hindsight goals (Andrychowicz et al. 2017)
    relabel: Literal["none", "future", "final", "episode", "random"] = "none"
    # of the rows that get another goal
    relabel_fraction: Annotated[float, Share] = 0.8

    def unused(self) -> list[tuple[str, str]]:
        return super().unused() + ([("relabel_fraction", "relabel")] if self.relabel == "none" else [])

    def check(self, num_envs: int) -> None:
        super().check(num_envs)
        if self.relabel != "none" and self.n_step > 1:
            raise BadInput(
                f"feed.relabel changes the goal of one row, but feed.n_step = {self.n_step} sums rewards of several: use n_step = 1"
            )


@dataclass(frozen=True)
class Sequences(Kept):
    """Off-policy, for agents that learn from stretches of time: batches [burn_in + length, B] (Kapturowski et al. 2019)."""

    # sequences of one gradient update
    batch_size: Annotated[int, Count] = 32
    # rows of a sequence that are learned from
    length: Annotated[int, Count] = 40
    # rows before them, which only warm a memory up; in `mask` they count, the agent leaves them out
    burn_in: Annotated[int, Amount] = 0
    # rows that a sequence shares with the next one
    overlap: Annotated[int, Amount] = 0
    # share of the largest TD error in a sequence's priority, beside the mean
    eta: Annotated[float, Share] = 0.9
    # episodes may end inside a sequence; False: the rows after an end are padding, `mask` False
    across_ends: bool = True

    def unused(self) -> list[tuple[str, str]]:
        return super().unused() + ([] if self.prioritized else [("eta", "prioritized")])

    def check(self, num_envs: int) -> None:
        super().check(num_envs)
        if self.overlap >= self.length:
            raise BadInput(f"feed.overlap = {self.overlap} must be less than feed.length = {self.length}")
        if self.n_step > self.length:
            raise BadInput(f"feed.n_step = {self.n_step} is longer than a sequence: feed.length = {self.length}")
        rows, needed = self.capacity // num_envs, self.burn_in + 2 * self.length - self.overlap - 1
        if rows < needed:
            raise BadInput(
                f"feed.capacity = {self.capacity} gives each of {num_envs} environments {rows} rows; sequences of "
                f"{self.burn_in} + {self.length} rows need {needed}: use a larger capacity or shorter sequences"
            )


@dataclass(frozen=True)
class Offline(Feed):
    """Learning from data that somebody recorded: no environment is stepped, and a run counts its updates."""

    # rows (or sequences) of one gradient update
    batch_size: Annotated[int, Count] = 256
    # how they are drawn
    sampler: Literal["uniform", "without_replacement", "prioritized"] = "uniform"
    # rows of a sequence, batches [length, B]; 0 = single rows
    length: Annotated[int, Amount] = 0
    # rewards summed before bootstrapping
    n_step: Annotated[int, Count] = 1
    # rewards become scale * reward + shift, once, when the data is read
    reward_scale: float = 1.0
    reward_shift: float = 0.0
    # by mean and std of the whole data, inside the policy
    normalize_observation: bool = False

    progress = UPDATES
    replays = True
    buffer = "data"

    @property
    def prioritized(self) -> bool:  # type: ignore[override]
        return self.sampler == "prioritized"

    @property
    def overlap(self) -> int:  # type: ignore[override]
        """Sequences begin at every row, so that each can be learned from."""
        return max(0, self.length - 1)

    @property
    def replacement(self) -> bool:  # type: ignore[override]
        return self.sampler != "without_replacement"

    def collector(self, on_cpu: bool) -> Part | None:
        return None

    def loop(self, compiled: bool) -> Part:
        return "offline"

    def check(self, num_envs: int) -> None:
        """num_envs: lanes of the data."""
        super().check(num_envs)
        if self.length and self.sampler == "without_replacement":
            raise BadInput("feed.sampler = 'without_replacement' draws single rows: use 'uniform' with feed.length")
        if self.length and self.n_step > self.length:
            raise BadInput(f"feed.n_step = {self.n_step} is longer than a sequence: feed.length = {self.length}")


FEEDS: dict[str, type[Feed]] = {kind.__name__: kind for kind in (Rollouts, Shared, Stream, Replay, Sequences, Offline)}
