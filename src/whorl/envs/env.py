"""The environment contract: always a batch of N.

Arrays are numpy on the CPU and torch on another device. They belong to the environment and live until its next step:
who wants to keep them copies them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import gymnasium
import numpy as np

from whorl.errors import BadInput, EnvError, Incompatible

if TYPE_CHECKING:
    import torch

Array: TypeAlias = "np.ndarray | torch.Tensor"
Observation: TypeAlias = "Array | Mapping[str, Observation]"  # an array [N, *obs], or nested dicts of such arrays

Info: TypeAlias = "Mapping[str, Any]"  # what environments say beside all that, by name


class Step(NamedTuple):
    """All that one step of N environments gives back.

    An environment whose episode ended has already been reset: `observation` is where it stands now,
    `next_observation` is where the action led.
    """

    observation: Observation  # [N, *obs] where each environment stands, after auto-reset
    reward: Array  # [N] float32
    terminated: Array  # [N] bool: no future
    truncated: Array  # [N] bool: future unseen (time limit)
    next_observation: (
        Observation  # [N, *obs] true successor in ALL rows; the same object as `observation` when none ended
    )
    # [N] bool, False where the engine invented the step or stood still; None = every row counts. Where an episode was lost with it
    # (a worker died), `truncated` is True, the reward 0 and the successor the last true observation: see docs/design/025
    valid: Array | None = None
    discount: Array | None = (
        None  # [N] float32 of the reward after this one, gamma**k after k steps; None = the agent's
    )
    # named arrays [N]. "game_over": which episodes of statistics end, where `terminated` tells a learner of more than those
    info: Info = {}

    @property
    def begins(self) -> Array:
        """bool [N]: the rows in which the next step is the first of an episode."""
        over = self.terminated | self.truncated
        return over if self.valid is None else over | ~self.valid


def check_has_spaces(env: object, name: str) -> None:
    """Raises EnvError for an environment that does not say what it observes and how it acts."""
    for space in ("observation_space", "action_space"):
        if not isinstance(found := getattr(env, space, None), gymnasium.Space):
            came = "none" if found is None else type(found).__name__
            raise EnvError(
                f"{name}: its {space} should be one of gymnasium.spaces, there is {came}: set it in __init__"
            )


def check_scalar_reward(env: Env) -> None:
    """Raises Incompatible for an environment whose rewards nobody has made one number of."""
    if not env.scalar_reward:
        count = "several" if env.reward_vector is None else env.reward_vector.shape[1]
        raise Incompatible(
            f"{env!r} pays {count} rewards at once, and an agent learns from one number: put the transform linearize around it, with a "
            "weight for each"
        )


class Goal(NamedTuple):
    """How an environment of goals judges a step, so that hindsight can judge it again under another goal. Both functions
    take achieved_goal (of next_observation) and desired_goal, [..., *goal] numpy or torch."""

    reward: Callable[[Array, Array], Array]  # -> [...] float32
    terminated: Callable[[Array, Array], Array] | None = None  # -> [...] bool; None: goals do not end episodes


class Processes(NamedTuple):
    """How environments are spread over processes."""

    workers: int  # each steps the same number of environments, or one more
    timeout: float = (
        60.0  # seconds that a step may take, all else ten times as many, before a worker counts as dead; 0 = any
    )
    max_restarts: int = 10  # of one worker within ten minutes
    on_error: str = "raise"  # what an exception inside an environment does: "raise", or "restart" its worker


class Kind(Protocol):
    """What any number of environments are made from (`EnvKind` in envs/make.py)."""

    @property
    def id(self) -> str:
        """What `make_env` takes; "" for a class or function of the user's."""

    @property
    def name(self) -> str:
        """The id, or the name of the class or function."""

    def make(
        self,
        num_envs: int = 1,
        seed: int = 0,
        device: str = "cpu",
        max_episode_steps: int | None = None,
        pictures: bool = False,
        training: bool = False,
        processes: Processes | None = None,
    ) -> Env:
        """So many of them, with episodes of at most so many steps. pictures: `render` shall give some. training: with what only a
        learner shall see. processes: that step them; None: this one does."""


class Around(Protocol):
    """What lies between environments of a kind and the agent (`Chain` in transforms/chain.py)."""

    @property
    def draws(self) -> bool:
        """Whether it needs environments that give pictures."""

    def around(self, env: Env, training: bool) -> Env:
        """`env` as the agent sees it. Raises Incompatible for one that it does not go around."""


class Env:
    """N environments of one kind, stepped together.

    Subclasses set the attributes below and write `reset` and `step`; `state` and `load_state` where the state can be saved.
    """

    id: str = ""  # the name that `make_env` takes; "" for an object of the user's
    origin: str = ""  # "native", "gymnasium": who does the stepping
    made_from: Kind | None = None  # what more of the same are made from; None: an object of the user's
    num_envs: int
    first: int = 0  # the index of row 0 in a whole that this is a part of: row i has the random streams of first + i
    observation_space: gymnasium.Space  # of ONE environment
    action_space: (
        gymnasium.Space
    )  # of ONE environment; mixed: Tuple((MultiDiscrete, Box)), float32 [N, W], the choices first
    device: str = "cpu"
    max_episode_steps: int | None = None
    reward_threshold: float | None = None
    replay_steps: int = 0  # longest episodes that `load_state` plays again, where that is how it is saved; 0: none
    action_mask: Array | None = None  # [N, A] bool, actions allowed where each environment stands now; None = all
    trajectory: Array | None = None  # [N] int64, a number that the episode under way has alone; None = nobody counts
    episode: np.ndarray | None = (
        None  # [N] int64, in its stream, where streams are counted; set it, and `reset()` begins the next ones
    )
    told: Mapping[
        str, str
    ] = {}  # arrays [N] that every `Step.info` has, as it crosses from a worker process: name -> dtype
    partial: frozenset[str] = frozenset()  # what single rows can do: "restart", "rows" (be stepped while others stand)
    restarts: int = 0  # of the processes that step it, so far
    compiled: bool = False  # whether a rollout can be one compiled loop over it (collectors/native.py)
    discounts: bool = False  # whether every Step has a discount
    raw_reward: Array | None = None  # [N] float32 of the last step before transforms changed it; None = as in the step
    scalar_reward: bool = True  # False: only `reward_vector` says what was paid, and rewards are 0
    reward_vector: Array | None = None  # [N, K] float32 of the last step, where K rewards are paid at once
    cost: Array | None = None  # [N] float32 of the last step, where harm is counted apart from the reward
    goal: Goal | None = None  # of a Dict observation with achieved_goal and desired_goal

    def reset(self, seed: int | None = None) -> Observation:
        """Begin an episode in every environment. With a seed, every random stream starts anew; without one, they go on."""
        raise NotImplementedError

    def step(self, action: Array, rows: np.ndarray | None = None) -> Step:
        """Step all N. `action` is [N] (Discrete) or [N, ...].

        rows: bool [N], where "rows" is in `partial`: the others stand still, with reward 0, no flag, `valid` False, and
        `observation` and `next_observation` where they stand.
        """
        raise NotImplementedError

    def send(self, action: Array) -> None:
        """The first half of `step`: say what to do, and do not wait for what comes of it."""
        self._sent = action

    def receive(self) -> Step:
        """The second half of `step`: what came of the actions that were sent."""
        return self.step(self._sent)

    def restart(self, rows: np.ndarray) -> Observation:
        """Begin a new episode in these rows (bool [N]), where "restart" is in `partial`; the others stand. Returns where all stand.

        The arrays of the last `Step` survive it: they hold the true successors of the rows that did not restart.
        """
        raise NotImplementedError

    def learned(self) -> dict[str, np.ndarray]:
        """What was learned from the data that passed, such as running statistics, as named arrays: it outlasts every episode."""
        return {}

    def share(self, other: Env) -> None:
        """From now on learn together with `other`, of the same kind. Raises Incompatible where the two cannot."""
        if learned := self.learned():
            raise Incompatible(f"{self!r} cannot share what it learns, {', '.join(learned)}, with other environments")

    def load_learned(self, learned: dict[str, np.ndarray]) -> None:
        """Restore `learned()`. Raises BadInput for what it does not give."""
        if learned:
            raise BadInput(f"{self!r} has learned nothing, and was to load {', '.join(learned)}")

    @property
    def own_observation_space(self) -> gymnasium.Space:
        """The space of ONE environment before an adapter made `observation_space` of it; the same where nothing did."""
        return self.observation_space

    @property
    def own_action_space(self) -> gymnasium.Space:
        """The space of ONE environment before an adapter made `action_space` of it; the same where nothing did."""
        return self.action_space

    def encode(self, observation: Any) -> tuple[Observation, Array | None]:
        """A batch of the environment's own observations as those of `observation_space` [N, *obs], and the action mask [N, A] that
        they hold, if they do. Any N."""
        return observation, None

    def decode(self, action: Any) -> Any:
        """Actions of `action_space` [N, ...] as a batch in the environment's own form: what it is stepped with. Any N."""
        return action

    def state(self) -> dict[str, np.ndarray] | None:
        """Everything `load_state` needs to go on to the same bits, as named arrays; None: this environment cannot be saved."""
        return None

    def load_state(self, state: dict[str, np.ndarray]) -> Observation:
        """Restore `state()`; returns where each environment stands. Arrays are copied in."""
        raise NotImplementedError

    def part_seed(self, seed: int) -> int:
        """The seed of this part of a whole, where all its rows have one stream together."""
        return int(np.random.SeedSequence((seed, self.first)).generate_state(1)[0]) if self.first else seed

    def render(self) -> Any:
        """Picture of environment 0 as uint8 [height, width, 3]; None: it has no picture."""
        return None

    def film(self) -> None:
        """From now on keep what each episode looks like at its end, for `pictures`. Raises BadInput where not all N can be drawn."""
        raise BadInput(f"{self!r} has no pictures of all its environments")

    def pictures(self, ended: bool = False) -> np.ndarray:
        """Pictures of all N after `film`, uint8 [N, height, width, 3]: where they stand; ended: asked right after a step, in the rows whose
        episode it ended, where it led to."""
        raise NotImplementedError

    def close(self) -> None:
        """Free what the environment holds. Calling it twice is harmless."""

    def __repr__(self) -> str:
        name = self.id or (type(self).__name__ if self.made_from is None else self.made_from.name)
        return f"{name} ({self.origin or 'custom'}, {self.num_envs} at once, on {self.device})"


def of_several(env: object) -> str:
    """For a message: that an environment of several agents, as PettingZoo's are, is none here yet; "" for any other object."""
    if not hasattr(env, "possible_agents") and not type(env).__module__.startswith("pettingzoo"):
        return ""
    return ": environments of several agents (PettingZoo's) are not here yet, one agent learns in an environment"
