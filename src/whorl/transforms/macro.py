"""Transforms whose one step is several of the environment within: options, in the words of Sutton, Precup and Singh 1999."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from whorl.errors import BadInput, Incompatible
from whorl.spaces import like
from whorl.transforms.transform import Array, Spaces, Transform, copied, float32, merged

MOST = 2**20  # numbers of an action


class Macro(Transform):
    """Several steps as one, with the sum of their rewards and the last successor. A row whose episode ends stands still for the rest.

    discount: of each step within. Rewards are then a discounted sum, and `Step.discount` is discount**k after k steps. None: rewards are
    added up as they are, and the agent's own discount counts once for all of them. Discounts of the environment within go first.
    """

    needs = frozenset({"rows"})
    several = True
    maximum = False  # whether the last two successors are shown as one, the larger of each number

    def __init__(self, count: int, discount: float | None = None) -> None:
        super().__init__()
        if count < 1:
            raise BadInput(f"{type(self).__name__} needs a count of at least 1, got {count}")
        if discount is not None and not 0 <= discount <= 1:
            raise BadInput(f"{type(self).__name__} needs a discount from 0 to 1, got {discount}")
        self.count, self.discount = count, discount
        self.rewards = self.discounts = discount is not None

    def inside(self, action: Array) -> Iterator[Array]:
        """The actions within, [N, ...] each."""
        raise NotImplementedError

    def play(self, world: Any, action: Array, rows: np.ndarray | None) -> Any:
        cpu = isinstance(action, np.ndarray)  # there it costs nothing to know whether all play
        everyone = rows is None
        playing: Any = like(np.full(len(action), True) if rows is None else rows, action)
        step: Any = None
        before: Any = None
        successor: Any = None
        reward: Any = 0.0
        weight: Any = None  # [N] of the next reward; None: 1
        terminated = truncated = ~(playing | True)
        self.paid = {}
        for inner in self.inside(action):
            if step is not None and cpu and not playing.any():
                break
            first = step is None
            if not first:  # the next step writes there
                before = copied(step.next_observation) if self.maximum else None
                successor = successor if everyone else copied(successor)
            step = world.step(inner) if everyone else world.step(inner, playing)
            shown = step.next_observation if first or not self.maximum else larger(before, step.next_observation)
            successor = shown if everyone or first else merged(successor, playing, shown)
            self._pay(world, step, playing)
            reward = reward + (step.reward if weight is None else weight * step.reward)
            terminated, truncated = terminated | step.terminated, truncated | step.truncated
            if (discount := self.discount if step.discount is None else step.discount) is not None:
                weight = float32(playing | True) if weight is None else weight
                weight = merged(weight, playing, weight * discount)
            if first:
                valid = None if step.valid is None else copied(step.valid)
            elif cpu and step.valid is not None and (lost := step.truncated & ~step.valid).any():
                valid = ~lost if valid is None else valid & ~lost
            playing = playing & ~(terminated | truncated) & (True if step.valid is None else step.valid)
            everyone = cpu and bool(playing.all())
        ended = terminated | truncated
        if cpu and valid is None and not ended.any():
            here = successor
        else:  # who stood is shown as before by the layer
            here = merged(successor, ended if valid is None else ended | ~valid, step.observation)
        if valid is not None:
            reward = reward * valid  # what a lost episode paid on the way is lost with it
        return step._replace(
            observation=here, reward=reward, terminated=terminated, truncated=truncated,
            next_observation=successor, valid=valid, discount=weight,
        )  # fmt: skip

    def _pay(self, world: Any, step: Any, playing: Array) -> None:
        """Add up what lies beside the reward."""
        raw = step.reward if world.raw_reward is None and self.rewards else world.raw_reward
        for name, x in (("raw_reward", raw), ("reward_vector", world.reward_vector), ("cost", world.cost)):
            if x is not None:
                self.paid[name] = self.paid.get(name, 0.0) + merged(x * 0, playing, x)

    def episode_steps(self, most: int | None) -> int | None:
        return None if most is None else -(-most // self.count)


class Repeat(Macro):
    """Each action `count` times: frame skip. See `Macro` for discount.

    maximum: the successor is the largest, number by number, of the last two frames, as Atari's sprites flicker. Where an episode ends
    before `count` steps, Gymnasium's wrapper shows frames of a step before that one.
    TorchRL: FrameSkipTransform. Gymnasium: RepeatAction, MaxAndSkipObservation.
    """

    def __init__(self, count: int, discount: float | None = None, maximum: bool = False) -> None:
        super().__init__(count, discount)
        self.maximum = maximum

    def spaces(self, observation: Space, action: Space) -> Spaces:
        if self.maximum and not isinstance(observation, Box):
            raise Incompatible(f"the maximum of two frames is one of arrays, and the observation is {observation}")
        return observation, action

    def inside(self, action: Array) -> Iterator[Array]:
        return (action for _ in range(self.count))


class MultiAction(Macro):
    """`count` actions, decided at once and done one after the other: an action chunk. What the last ones would have done after an
    episode's end is not done. See `Macro` for discount.

    They lie one behind the other in one axis: [count * D] of a Box or a MultiDiscrete, [count] choices of a Discrete. Zhao et al. 2023,
    "Learning fine-grained bimanual manipulation with low-cost hardware". TorchRL: MultiAction.
    """

    def spaces(self, observation: Space, action: Space) -> Spaces:
        self._inner = (self.count, *(action.shape or ()))
        if math.prod(self._inner) > MOST:
            raise Incompatible(f"it puts {self.count:,} actions into one, and {MOST:,} numbers are the most")
        match action:
            case Box():
                low, high = (np.tile(x.ravel(), self.count) for x in (action.low, action.high))
                return observation, Box(low, high, dtype=np.float32)
            case Discrete() | MultiDiscrete():
                sizes = [action.n] if isinstance(action, Discrete) else action.nvec.ravel()
                return observation, MultiDiscrete(np.tile(sizes, self.count))
            case MultiBinary():
                return observation, MultiBinary(int(np.prod(self._inner)))
        raise Incompatible(f"it puts actions of one kind behind one another, and the action is {action}")

    def allowed(self, mask: Array | None) -> Array | None:
        if mask is not None:
            raise Incompatible(
                "MultiAction decides actions whose masks are not known yet, and this environment has masks"
            )
        return None

    def inside(self, action: Array) -> Iterator[Array]:
        several = action.reshape(len(action), *self._inner)
        return (several[:, k] for k in range(self.count))


def larger(one: Array, other: Array) -> Array:
    """Number by number."""
    return np.maximum(one, other) if isinstance(other, np.ndarray) else torch.maximum(one, other)  # type: ignore[arg-type]
