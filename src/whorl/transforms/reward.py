"""Transforms of rewards. What is counted as an episode's return stays what it was before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box

from whorl.batch import Batch, get
from whorl.errors import BadInput, Incompatible
from whorl.functional import reward_to_go
from whorl.transforms.transform import (
    Array,
    Observation,
    OfMoments,
    OfReward,
    Result,
    Spaces,
    Transform,
    float32,
    merged,
    space_with_entry,
    with_entry,
    zeros,
)


class ScaleReward(OfReward):
    """reward * scale + shift. TorchRL: RewardScaling; Gymnasium: TransformReward."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        if not np.isfinite([scale, shift]).all():
            raise BadInput(f"ScaleReward needs finite numbers, got scale {scale} and shift {shift}")
        self.scale, self.shift = scale, shift

    def judge(self, reward: Array) -> Array:
        return reward * self.scale + self.shift


class ClipReward(OfReward):
    """Rewards within [low, high]; None: no bound there. Mnih et al. 2015. Gymnasium: ClipReward; TorchRL: RewardClipping."""

    training_only = True

    def __init__(self, low: float | None = -1.0, high: float | None = 1.0) -> None:
        super().__init__()
        if low is None and high is None or None not in (low, high) and not low <= high:  # type: ignore[operator]
            raise BadInput(f"ClipReward needs a bound, and low no more than high, got {low} and {high}")
        self.low, self.high = low, high

    def judge(self, reward: Array) -> Array:
        return reward.clip(self.low, self.high)  # type: ignore[arg-type]  # numpy takes None


class SignReward(OfReward):
    """-1, 0 or 1. Mnih et al. 2013. TorchRL: SignTransform."""

    training_only = True

    def judge(self, reward: Array) -> Array:
        return float32(reward > 0) - float32(reward < 0)


class BinarizeReward(OfReward):
    """1 where there is a reward above 0, else 0. TorchRL: BinarizeReward."""

    training_only = True

    def judge(self, reward: Array) -> Array:
        return float32(reward > 0)


class SumReward(Transform):
    """The observation with an entry more, the sum of the episode's rewards so far [1], as they are here in the chain.

    TorchRL: RewardSum.
    """

    def __init__(self, entry: str = "episode_reward") -> None:
        super().__init__()
        self.entry = entry

    def spaces(self, observation: Space, action: Space) -> Spaces:
        return space_with_entry(observation, self.entry, Box(-np.inf, np.inf, (1,), np.float32)), action

    def begin(self, n: int, device: str) -> None:
        self._nothing = zeros((n, 1), np.float32, device)
        self.memory = {"sum": self._nothing + 0}

    def step(self, result: Result) -> Result:
        self.memory["sum"] = total = self.memory["sum"] + result.reward[:, None]
        return result._replace(observation=with_entry(result.observation, self.entry, total))

    def reset(self, observation: Observation, rows: Array) -> Observation:
        self.memory["sum"] = total = merged(self.memory["sum"], rows, self._nothing)
        return with_entry(observation, self.entry, total)


class RewardToGo(Transform):
    """Of a batch [T, N] whose rows follow one another: the entry "reward_to_go", the discounted sum of rewards to the end of the episode
    or of the batch. Rows with a `next.discount` are discounted by that. TorchRL: Reward2GoTransform."""

    def __init__(self, discount: float = 1.0) -> None:
        super().__init__()
        if not 0 <= discount <= 1:
            raise BadInput(f"RewardToGo needs a discount in [0, 1], got {discount}")
        self.discount = discount

    def spaces(self, observation: Space, action: Space) -> Spaces:
        raise Incompatible("it looks ahead, so it works on batches [T, N] and not on environments")

    def forward(self, batch: Batch) -> Batch:
        """Adds "reward_to_go" [T, N]. Raises BadInput for single rows, which do not follow one another."""
        if len(batch.batch_size) != 2:
            raise BadInput(
                f"RewardToGo takes rows that follow one another, [T, N], as Sequences draws them; got {list(batch.batch_size)}"
            )
        result, over, first = batch["next"], batch["next"]["truncated"].clone(), get(batch, "is_first")
        if first is not None:  # an episode may be given up without an end
            over[:-1] |= first[1:]
        discount = get(batch, "next.discount", self.discount)
        batch["reward_to_go"] = reward_to_go(result["reward"], result["terminated"], over, discount)
        return batch


class Linearize(Transform):
    """One reward from several: the sum of `weights` [K] times the environment's `reward_vector` [N, K]; returns are counted from that.

    MO-Gymnasium: LinearReward; TorchRL: LineariseRewards.
    """

    linearizes = True
    _weights: torch.Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.weights = weights
        self.register_buffer("_weights", torch.as_tensor(weights, dtype=torch.float32), persistent=False)
        if self._weights.ndim != 1 or not self._weights.isfinite().all():
            raise BadInput(f"Linearize needs a finite number for each reward, got {weights!r:.80}")

    def play(self, world: Any, action: Array, rows: np.ndarray | None) -> Any:
        step, paid = super().play(world, action, rows), world.reward_vector
        if paid is None or paid.shape[1] != len(self.weights):
            came = "one number" if paid is None else f"{paid.shape[1]} numbers"
            raise BadInput(f"Linearize has {len(self.weights)} weights, and the reward of {world!r} is {came}")
        reward = self.judge(paid)
        return step._replace(reward=reward if step.valid is None else reward * step.valid)

    def judge(self, paid: Array) -> Array:
        """float32 [...] from [..., K]."""
        return (paid * self.constants(paid)[0]).sum(-1)

    def forward(self, batch: Batch) -> Batch:
        """`next.reward` from `next.reward_vector`."""
        batch["next"]["reward"] = self.judge(batch["next"]["reward_vector"])
        return batch


class NormalizeReward(OfMoments):
    """Rewards over the running standard deviation of the discounted return: reward / sqrt(var + epsilon).

    Gymnasium: vector.NormalizeReward; TorchRL: VecNorm. Moved in train mode only, by the rows that count. As there, the return
    of a step that terminates is its reward alone.
    """

    training_only = True
    rewards = True
    spread: torch.Tensor

    def __init__(self, discount: float = 0.99, epsilon: float = 1e-8) -> None:
        super().__init__()
        if not 0 <= discount <= 1 or not epsilon > 0:
            raise BadInput(
                f"NormalizeReward needs a discount from 0 to 1 and epsilon above 0, got {discount} and {epsilon}"
            )
        self.discount, self.epsilon = discount, epsilon
        for name, x in (("mean", 0.0), ("variance", 1.0), ("count", 1e-4)):
            self.register_buffer(name, torch.tensor(x, dtype=torch.float64))

    def begin(self, n: int, device: str) -> None:
        self.memory = {"returns": zeros((n,), np.float64, device)}

    def step(self, result: Result) -> Result:
        mean, variance, count = self.constants(result.reward)
        returns = self.memory["returns"]
        returns[...] = returns * self.discount * ~result.terminated + result.reward
        if self.training:
            counts = ~result.terminated | True if result.valid is None else result.valid
            n = counts.sum()
            new = (returns * counts).sum() / n.clip(1)
            off, total = new - mean, count + n
            around = ((returns - new) ** 2 * counts).sum()
            variance[...] = (variance * count + around + off**2 * count * n / total) / total
            mean[...] = mean + off * n / total
            count[...] = total
        return result._replace(reward=float32(result.reward / (variance + self.epsilon) ** 0.5))

    def reset(self, observation: Observation, rows: Array) -> Observation:
        self.memory["returns"][rows] = 0.0
        return observation
