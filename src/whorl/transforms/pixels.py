"""Transforms of pictures: uint8 [..., height, width], channels in front of them, as `ToImage` puts them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box
from torch import Tensor

from whorl.batch import Batch
from whorl.errors import BadInput, Incompatible
from whorl.functional.streams import stream
from whorl.transforms.entry import OfPart, boxed, cast_to, part, permuted, replaced, space_part
from whorl.transforms.transform import (
    Array,
    Observation,
    Result,
    Spaces,
    Transform,
    observed,
    space_with_entry,
    with_entry,
)

try:
    import cv2
except ImportError:  # slower without, and the same numbers
    cv2 = None

CHANNELS = (1, 3, 4)


class FromRender(Transform):
    """Pictures of the environments as they draw themselves, uint8 [height, width, 3], in the observation's place, or beside it as the entry
    `entry`: {observation, pixels}. Larger pictures are made smaller as by `Resize`.

    Native worlds with a picture, and Gymnasium's that are made one by one; it stands before transforms that play several steps. The picture
    of a true successor is drawn before its environment is reset. Gymnasium: AddRenderObservation; TorchRL: from_pixels of its wrappers.
    """

    draws = True

    def __init__(self, height: int = 64, width: int = 64, entry: str | None = None) -> None:
        super().__init__()
        if min(height, width) < 1:
            raise BadInput(f"FromRender needs a height and a width of at least 1, got {height} and {width}")
        self.height, self.width, self.entry = height, width, entry

    def spaces(self, observation: Space, action: Space) -> Spaces:
        space = Box(0, 255, (self.height, self.width, 3), np.uint8)
        return space if self.entry is None else space_with_entry(observation, self.entry, space), action

    def begin(self, n: int, device: str) -> None:
        if device != "cpu":
            raise Incompatible(f"pictures are drawn on the CPU, and the environments are on {device}")

    def drawn(self, pictures: np.ndarray) -> None:
        if pictures.shape[1] < self.height or pictures.shape[2] < self.width:
            raise Incompatible(
                f"FromRender makes pictures smaller, {self.height} x {self.width}, and those here have "
                f"{pictures.shape[1]} x {pictures.shape[2]}"
            )
        small = resized(pictures.transpose(0, 3, 1, 2), self.height, self.width)
        self._pictures = np.ascontiguousarray(small.transpose(0, 2, 3, 1))

    def _seen(self, observation: Observation) -> Observation:
        return self._pictures if self.entry is None else with_entry(observation, self.entry, self._pictures)

    def step(self, result: Result) -> Result:
        return result._replace(observation=self._seen(result.observation))

    def reset(self, observation: Observation, rows: Array) -> Observation:
        return self._seen(observation)


class ToImage(OfPart):
    """A picture [height, width, channels] as [channels, height, width], still uint8: what the other transforms of pictures and CNNs take.

    TorchRL: ToTensorImage; Gymnasium: TransformObservation.
    """

    def __init__(self, key: str | None = None) -> None:
        super().__init__()
        self.key = key

    def outside(self, space: Space) -> Space:
        box = boxed(space, np.uint8)
        if len(box.shape) != 3 or box.shape[-1] not in CHANNELS:
            raise Incompatible(
                f"a picture is uint8 [height, width, 1, 3 or 4], and the observation has the shape {box.shape}"
            )
        return box_of(self.change(box.low), self.change(box.high))

    def change(self, x: Any) -> Any:
        return permuted(x, [2, 0, 1])


class OfPicture(OfPart):
    """A function of pictures uint8 [..., height, width]. Subclasses say which `shape` it makes of one."""

    def shape(self, old: tuple[int, ...]) -> tuple[int, ...]:
        """Outside from inside. Raises Incompatible for one that it does not take."""
        raise NotImplementedError

    def outside(self, space: Space) -> Space:
        return box_of(*(np.full(self.shape(picture(space).shape), end, np.uint8) for end in (0, 255)))


class Gray(OfPicture):
    """One channel from three, [3, height, width] as [height, width], or [1, height, width] where it is to `keep` its axis.

    0.2125 red + 0.7154 green + 0.0721 blue, rounded down. Gymnasium: GrayscaleObservation(keep_dim); TorchRL: GrayScale.
    """

    def __init__(self, keep: bool = False, key: str | None = None) -> None:
        super().__init__()
        self.keep, self.key = keep, key

    def shape(self, old: tuple[int, ...]) -> tuple[int, ...]:
        if len(old) < 3 or old[-3] != 3:
            raise Incompatible(
                f"it makes one channel of three, [3, height, width], and the observation has the shape {old}"
            )
        return (*old[:-3], *[1] * self.keep, *old[-2:])

    def change(self, x: Any) -> Any:
        red, green, blue = (cast_to(x[..., i, :, :], "float64") for i in range(3))
        gray = cast_to(red * 0.2125 + green * 0.7154 + blue * 0.0721, "uint8")
        return gray[..., None, :, :] if self.keep else gray


class Resize(OfPicture):
    """Smaller pictures, each pixel the mean of the area that it covers: [..., height, width].

    The numbers are those of OpenCV's INTER_AREA, with or without it (the extra `atari` brings it, 12 times as fast on the CPU).
    Gymnasium: ResizeObservation((height, width)); TorchRL: Resize(interpolation="area").
    """

    def __init__(self, height: int, width: int, key: str | None = None) -> None:
        super().__init__()
        if min(height, width) < 1:
            raise BadInput(f"Resize needs a height and a width of at least 1, got {height} and {width}")
        self.height, self.width, self.key = height, width, key

    def shape(self, old: tuple[int, ...]) -> tuple[int, ...]:
        if old[-2] < self.height or old[-1] < self.width:
            raise Incompatible(
                f"it makes pictures smaller, {self.height} x {self.width}, and those here have {old[-2]} x {old[-1]}"
            )
        return (*old[:-2], self.height, self.width)

    def change(self, x: Any) -> Any:
        return resized(x, self.height, self.width)


class Crop(OfPicture):
    """The part of a picture from row `top` and column `left`, [..., height, width]. TorchRL: Crop."""

    def __init__(self, top: int, left: int, height: int, width: int, key: str | None = None) -> None:
        super().__init__()
        if min(top, left) < 0 or min(height, width) < 1:
            raise BadInput(
                f"Crop needs a part of a picture, got top {top}, left {left}, height {height}, width {width}"
            )
        self.top, self.left, self.height, self.width, self.key = top, left, height, width, key

    def shape(self, old: tuple[int, ...]) -> tuple[int, ...]:
        if self.top + self.height > old[-2] or self.left + self.width > old[-1]:
            raise Incompatible(f"its part ends beyond a picture of {old[-2]} x {old[-1]}")
        return (*old[:-2], self.height, self.width)

    def change(self, x: Any) -> Any:
        return x[..., self.top : self.top + self.height, self.left : self.left + self.width]


class CenterCrop(OfPicture):
    """The middle of a picture, [..., height, width]; of two middles the upper left one. TorchRL: CenterCrop."""

    def __init__(self, height: int, width: int, key: str | None = None) -> None:
        super().__init__()
        if min(height, width) < 1:
            raise BadInput(f"CenterCrop needs a height and a width of at least 1, got {height} and {width}")
        self.height, self.width, self.key = height, width, key

    def shape(self, old: tuple[int, ...]) -> tuple[int, ...]:
        if old[-2] < self.height or old[-1] < self.width:
            raise Incompatible(f"there is no {self.height} x {self.width} in pictures of {old[-2]} x {old[-1]}")
        return (*old[:-2], self.height, self.width)

    def change(self, x: Any) -> Any:
        top, left = (x.shape[-2] - self.height) // 2, (x.shape[-1] - self.width) // 2
        return x[..., top : top + self.height, left : left + self.width]


class RandomShift(Transform):
    """Of batches only: each picture moved by up to `pad` pixels in each direction, what comes in at the edge being the edge's own pixels.

    Each row, and its successor, by a draw of its own: stream (seed, "shift", number of the batch). Environments stay as they are.
    DrQ, Kostrikov et al. 2020; DrQ-v2, Yarats et al. 2021: pad 4.
    """

    batches: Tensor

    def __init__(self, pad: int = 4, key: str | None = None) -> None:
        super().__init__()
        if pad < 1:
            raise BadInput(f"RandomShift needs a pad of at least 1 pixel, got {pad}")
        self.pad, self.key = pad, key
        self._seed = 0
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def seed(self, seed: int) -> None:
        self._seed = seed
        self.batches.zero_()

    def spaces(self, observation: Space, action: Space) -> Spaces:
        picture(space_part(observation, self.key))
        return observation, action

    def forward(self, batch: Batch) -> Batch:
        """`observation` and `next.observation`."""
        generator = torch.Generator().manual_seed(stream(self._seed, "shift", int(self.batches)))
        self.batches += 1
        return observed(batch, lambda observation: self._moved(observation, batch.ndim, generator))

    def _moved(self, observation: Observation, rows: int, generator: torch.Generator) -> Observation:
        x = part(observation, self.key)
        flat = x.flatten(0, rows - 1)
        by = torch.randint(-self.pad, self.pad + 1, (2, len(flat), 1), generator=generator).to(x.device)
        down, right = (
            (torch.arange(size, device=x.device) + moved).clamp(0, size - 1)
            for size, moved in zip(x.shape[-2:], by, strict=True)
        )
        planes = flat.reshape(len(flat), -1, *x.shape[-2:])
        each = torch.arange(len(flat), device=x.device)[:, None, None]
        new = planes[each, :, down[:, :, None], right[:, None, :]].movedim(-1, 1)
        return replaced(observation, self.key, new.reshape(x.shape))


def picture(space: Space) -> Box:
    """The space, if it is one of pictures [..., height, width]. Raises Incompatible for another, and where channels stand last."""
    box = boxed(space, np.uint8)
    if len(box.shape) < 2:
        raise Incompatible(f"a picture has a height and a width, and the observation has the shape {box.shape}")
    if len(box.shape) > 2 and box.shape[-1] in CHANNELS:
        raise Incompatible(f"channels stand last in {box.shape}: put ToImage within")
    return box


def box_of(low: np.ndarray, high: np.ndarray) -> Box:
    return Box(low, high, dtype=low.dtype.type)


def resized(x: Any, height: int, width: int) -> Any:
    """uint8 [..., H, W] as [..., height, width], by the arithmetic of OpenCV's INTER_AREA: see `Resize`."""
    if cv2 is not None and isinstance(x, np.ndarray):
        planes = x.reshape(-1, *x.shape[-2:])
        small = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA) for plane in planes]
        return np.stack(small).reshape(*x.shape[:-2], height, width)
    whole = (
        x.shape[-2] % height == x.shape[-1] % width == 0
    )  # each pixel the mean of whole ones: their sum is scaled at the end
    y: Any = 0
    for index, weight in areas(x.shape[-1], width, whole):  # first along rows, then down: as there, in float32
        y = y + cast_to(x[..., _like(index, x)], "float32") * _like(weight, x)
    z: Any = 0
    for index, weight in areas(x.shape[-2], height, whole):
        z = z + y[..., _like(index, x), :] * _like(weight, x)[:, None]
    if whole:
        size = x.shape[-2] // height * (x.shape[-1] // width)
        z = z * float(np.float32(1) / np.float32(size))
        if x.shape[-2] == 2 * height and x.shape[-1] == 2 * width:  # of four pixels it rounds halves up
            return cast_to((z + 0.5), "uint8")
    return cast_to(z.round(), "uint8")


def areas(size: int, small: int, whole: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """What each of `small` pixels takes of `size`: for the first, second, ... that it covers, its index [small] and weight [small] float32,
    0 where it covers fewer. OpenCV's computeResizeAreaTab. whole: weights are 1."""
    scale = size / small
    found: list[list[tuple[int, float]]] = []
    for i in range(small):
        begin, end = i * scale, min((i + 1) * scale, size)
        cell = min(scale, size - i * scale)
        first, last = math.ceil(begin), min(math.floor(end), size - 1)
        first = min(first, last)
        taken = [(first - 1, (first - begin) / cell)] if first - begin > 1e-3 else []
        taken += [(k, 1 / cell) for k in range(first, last)]
        if end - last > 1e-3:
            taken.append((last, min(end - last, 1, cell) / cell))
        found.append(taken)
    most = max(map(len, found))
    table = np.array([taken + [(0, 0.0)] * (most - len(taken)) for taken in found])  # [small, most, 2]
    index, weight = table[..., 0].astype(np.int64), table[..., 1].astype(np.float32)
    return [(index[:, k], (weight[:, k] > 0).astype(np.float32) if whole else weight[:, k]) for k in range(most)]


def _like(array: np.ndarray, x: Any) -> Any:
    return array if isinstance(x, np.ndarray) else torch.as_tensor(array, device=x.device)
