"""Transforms of the numbers of an observation: of all of it, or of the entry `key` of a Dict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from whorl.errors import BadInput, Incompatible, in_words
from whorl.functional.statistics import batch_moments, merge_moments
from whorl.options import did_you_mean
from whorl.transforms.entry import OfPart, boxed, cast_to, part, replaced, replaced_space, space_part
from whorl.transforms.transform import (
    Array,
    Observation,
    OfMoments,
    Result,
    Spaces,
    Transform,
    copied,
    float32,
    merged,
    observed,
    space_with_entry,
    with_entry,
    zeros,
)

MOST = 2**28  # bytes of the frames of one environment


class Normalize(OfPart):
    """(x - mean) / std with fixed numbers, one for all entries or one each.

    TorchRL: ObservationNorm; Gymnasium: RescaleObservation. Statistics that run belong to the policy (`feed.normalize_observation`) or to
    RunningNormalize.
    """

    center: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0, key: str | None = None
    ) -> None:
        super().__init__()
        self.mean, self.std, self.key = mean, std, key
        center, spread = (torch.as_tensor(x, dtype=torch.float32) for x in (mean, std))
        if not (center.isfinite().all() and spread.isfinite().all() and (spread > 0).all()):
            raise BadInput(f"Normalize needs a finite mean and a std above 0, got mean {mean} and std {std}")
        self.register_buffer("center", center, persistent=False)
        self.register_buffer("scale", 1 / spread, persistent=False)

    def outside(self, space: Space) -> Space:
        try:
            return super().outside(space)
        except ValueError as error:
            if isinstance(error, Incompatible):
                raise
            raise Incompatible(f"mean and std do not go with observations of shape {space.shape}") from None

    def change(self, x: Any) -> Any:
        center, scale = self.constants(x)
        return (x - center) * scale


class RunningNormalize(OfMoments):
    """(x - mean) / sqrt(variance + epsilon), of all observations so far: learned, kept in checkpoints, moved in training only.

    Each observation counts once, before it is normalized itself: true successors in phase 1, of the rows that really stepped, and first
    observations in phase 2, of the rows that begin; so one environment has the numbers of Gymnasium, where the statistics begin with
    weight 1e-4 at mean 0 and variance 1, too. Gymnasium: NormalizeObservation; TorchRL: VecNormV2. Several steps of a rollout see different
    statistics: what an agent learns from is steadier where its policy has them (`feed.normalize_observation`).
    Chan, Golub and LeVeque 1979.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    count: torch.Tensor

    def __init__(self, epsilon: float = 1e-8, key: str | None = None) -> None:
        super().__init__()
        if not epsilon > 0:
            raise BadInput(f"RunningNormalize needs an epsilon above 0, got {epsilon}")
        self.epsilon, self.key = epsilon, key

    def spaces(self, observation: Space, action: Space) -> Spaces:
        box = boxed(space_part(observation, self.key))
        if (
            not self._buffers or self.mean.shape != box.shape
        ):  # what was learned stays where a chain is put together anew
            self.register_buffer("mean", torch.zeros(box.shape).double())
            self.register_buffer("variance", torch.ones(box.shape).double())
            self.register_buffer("count", torch.tensor(1e-4).double())
        return replaced_space(observation, self.key, Box(-np.inf, np.inf, box.shape, np.float32)), action

    def step(self, result: Result) -> Result:
        self._move(result.observation, result.valid)
        return result._replace(observation=self._normalized(result.observation))

    def reset(self, observation: Observation, rows: Array) -> Observation:
        self._move(observation, rows)
        return self._normalized(observation)

    def forward(self, batch: Any) -> Any:
        """With the statistics as they are, which a batch does not move."""
        return observed(batch, self._normalized)

    def _move(self, observation: Observation, rows: Array | None) -> None:
        if self.training:
            x = torch.as_tensor(part(observation, self.key)).double()
            seen = batch_moments(x, None if rows is None else torch.as_tensor(rows))
            moved = merge_moments(self.mean, self.variance, self.count, *seen)
            for old, new in zip(self.buffers(), moved, strict=True):
                old.copy_(new)

    def _normalized(self, observation: Observation) -> Observation:
        x = part(observation, self.key)
        mean, variance, _ = self.constants(x)
        return replaced(observation, self.key, float32((x - mean) / (variance + self.epsilon) ** 0.5))


class ClipObservation(OfPart):
    """Numbers within [low, high]. TorchRL: ClipTransform; Gymnasium: TransformObservation(np.clip)."""

    def __init__(self, low: float = -10.0, high: float = 10.0, key: str | None = None) -> None:
        super().__init__()
        if not low < high:
            raise BadInput(f"ClipObservation needs low < high, got {low} and {high}")
        self.low, self.high, self.key = low, high, key

    def change(self, x: Any) -> Any:
        return x.clip(self.low, self.high)


class Cast(OfPart):
    """The same numbers in the dtype "float32" (of doubles, whole numbers, images) or "uint8" (of numbers from 0 to 255).

    TorchRL: DoubleToFloat; Gymnasium: DtypeObservation.
    """

    def __init__(self, dtype: str = "float32", key: str | None = None) -> None:
        super().__init__()
        if dtype not in ("float32", "uint8"):
            raise BadInput(f"Cast makes 'float32' or 'uint8', which is what batches hold of a Box, got {dtype!r}")
        self.dtype, self.key = dtype, key

    def outside(self, space: Space) -> Space:
        low, high = bounds(space)
        if self.dtype == "uint8" and not (low.min() >= 0 and high.max() <= 255):
            raise Incompatible(f"numbers from 0 to 255 fit into uint8, and the observation is {space}")
        return Box(low.astype(self.dtype), high.astype(self.dtype), dtype=np.dtype(self.dtype).type)

    def change(self, x: Any) -> Any:
        return cast_to(x, self.dtype)


def bounds(space: Space) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of each number. Raises Incompatible for a space that is no array."""
    if isinstance(space, Box):
        return space.low, space.high
    if isinstance(space, Discrete | MultiDiscrete):
        most = np.asarray(space.n if isinstance(space, Discrete) else space.nvec) - 1
    elif isinstance(space, MultiBinary):
        most = np.ones(space.shape, np.int64)
    else:
        raise Incompatible(f"it takes one array, and the observation is {space}")
    return np.zeros_like(most), most


class ToDevice(Transform):
    """All arrays outside of it, observations, rewards and flags, are tensors on `device`, such as "cuda", and actions are taken from there;
    "cpu" brings those of a world on a device back. TorchRL: DeviceCastTransform; Gymnasium: NumpyToTorch(device).
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:  # an AssertionError: torch has no CUDA
            raise BadInput(f"ToDevice needs a device that is here, got {device!r}: {in_words(error)}") from error
        self.device = self.moves_to = device


# name -> (of numpy, of torch), all of which grow, so that bounds go to bounds
FUNCTIONS: dict[str, tuple[Callable, Callable]] = {
    "arcsinh": (np.arcsinh, torch.asinh),
    "arctan": (np.arctan, torch.atan),
    "exp": (np.exp, torch.exp),
    "log": (np.log, torch.log),
    "log1p": (np.log1p, torch.log1p),
    "sign": (np.sign, torch.sign),
    "sqrt": (np.sqrt, torch.sqrt),
    "symlog": (
        lambda x: np.sign(x) * np.log1p(abs(x)),
        lambda x: x.sign() * x.abs().log1p(),
    ),  # Hafner et al. 2023, eq. 2
    "tanh": (np.tanh, torch.tanh),
}


class Unary(OfPart):
    """A function of each number, by its name: arcsinh, arctan, exp, log, log1p, sign, sqrt, symlog, tanh.

    TorchRL: UnaryTransform; Gymnasium: TransformObservation.
    """

    def __init__(self, function: str, key: str | None = None) -> None:
        super().__init__()
        if function not in FUNCTIONS:
            near = did_you_mean(function, FUNCTIONS)
            raise BadInput(f"unknown function {function!r:.60}{near}. Functions: {', '.join(FUNCTIONS)}")
        self.function, self.key = function, key

    def outside(self, space: Space) -> Space:
        box = boxed(space)
        with np.errstate(all="ignore"):
            low = self.change(box.low)
            new = Box(low, self.change(box.high), dtype=np.float32) if not np.isnan(low).any() else None
        if new is None or (np.isinf(low) & np.isfinite(box.low)).any():
            raise Incompatible(
                f"there is no {self.function} of numbers as low as {box.low.min():g}: put ClipObservation within"
            )
        return new

    def change(self, x: Any) -> Any:
        in_numpy, in_torch = FUNCTIONS[self.function]
        return in_numpy(x) if isinstance(x, np.ndarray) else in_torch(x)


class StackFrames(Transform):
    """The last `count` observations, [count, *obs], the newest last; at the start of an episode its first one `count` times.

    Gymnasium: FrameStackObservation(padding_type="reset"); TorchRL: CatFrames.
    """

    def __init__(self, count: int, key: str | None = None) -> None:
        super().__init__()
        if count < 1:
            raise BadInput(f"{type(self).__name__} needs a count of at least 1, got {count}")
        self.count, self.key = count, key

    def spaces(self, observation: Space, action: Space) -> Spaces:
        box = space_part(observation, self.key)
        if not isinstance(box, Box):
            raise Incompatible(f"frames are arrays, and the observation is {box}")
        self._shape, self._dtype = box.shape, box.dtype
        if self.count * box.low.nbytes > MOST:
            raise Incompatible(f"{self.count} frames of {box.low.nbytes:,} bytes are too many: at most {MOST:,} bytes")
        return replaced_space(observation, self.key, self.outside(box)), action

    def outside(self, box: Box) -> Box:
        """The space of what it shows of a space of frames."""
        low, high = (np.repeat(x[None], self.count, 0) for x in (box.low, box.high))
        return Box(low, high, dtype=box.dtype.type)

    def begin(self, n: int, device: str) -> None:
        shape = (n, self.count, *self._shape)
        self.memory = {"frames": zeros(shape, self._dtype, device)}
        self._other = zeros(shape, self._dtype, device)  # what was handed out lasts until the next step

    def step(self, result: Result) -> Result:
        old, new = self.memory["frames"], self._other
        new[:, :-1] = old[:, 1:]
        new[:, -1] = part(result.observation, self.key)
        self.memory["frames"], self._other = new, old
        return result._replace(observation=replaced(result.observation, self.key, self.shown(new)))

    def reset(self, observation: Observation, rows: Array) -> Observation:
        frames = copied(self.memory["frames"])  # the successor was handed out
        frames[rows] = part(observation, self.key)[rows][:, None]
        self.memory["frames"] = frames
        return replaced(observation, self.key, self.shown(frames))

    def shown(self, frames: Any) -> Any:
        """What is seen of the frames [N, count, *obs]."""
        return frames


class TimeMax(StackFrames):
    """The greatest of the last `count` observations, number by number, of those that the episode has. TorchRL: TimeMaxPool.

    Against lights that are there in every second frame; Gymnasium has it within MaxAndSkipObservation. Mnih et al. 2015.
    """

    def outside(self, box: Box) -> Box:
        return box

    def shown(self, frames: Any) -> Any:
        return frames.max(1) if isinstance(frames, np.ndarray) else frames.amax(1)


class NextDelta(Transform):
    """The observation beside what it changed by in this step, `delta`, zeros where an episode begins: {observation, delta}.

    TorchRL: NextObservationDelta; there it is stored in the observation's place. What was no Dict becomes its entry "observation".
    """

    def __init__(self, key: str | None = None, entry: str = "delta") -> None:
        super().__init__()
        self.key, self.entry = key, entry

    def spaces(self, observation: Space, action: Space) -> Spaces:
        box = boxed(space_part(observation, self.key))
        self._shape = box.shape
        with np.errstate(over="ignore"):
            width = box.high - box.low
        return space_with_entry(observation, self.entry, Box(-width, width, dtype=np.float32)), action

    def begin(self, n: int, device: str) -> None:
        self.memory = {"before": zeros((n, *self._shape), np.float32, device)}

    def step(self, result: Result) -> Result:
        x = part(result.observation, self.key)
        delta, self.memory["before"] = x - self.memory["before"], copied(x)
        return result._replace(observation=with_entry(result.observation, self.entry, delta))

    def reset(self, observation: Observation, rows: Array) -> Observation:
        x = part(observation, self.key)
        self.memory["before"] = merged(self.memory["before"], rows, x)
        return with_entry(observation, self.entry, x - x)
