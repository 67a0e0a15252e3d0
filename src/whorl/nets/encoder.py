"""From any observation to one vector of features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from whorl.errors import BadInput, Incompatible
from whorl.nets.cnn import NatureCNN
from whorl.nets.mlp import MLP, initialize
from whorl.options import misfit, whole
from whorl.spaces import describe, flat_size, flatten, is_image, looks_like_image, numpy_dtype, tree_map, zeros

# makes a network of the user's for an observation space: observation [rows, *obs] (nested dicts for a Dict) -> float32 [rows, width]
EncoderFactory = Callable[[spaces.Space], nn.Module]


@runtime_checkable
class HasWidth(Protocol):
    """What an encoder says of itself."""

    width: int  # how many features it gives


@runtime_checkable
class HasNotices(Protocol):
    """A part that whoever starts a run should know something of."""

    notices: list[str]  # sentences


def _leaf_spaces(space: spaces.Space, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], spaces.Space]]:
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaf_spaces(inner, (*path, key))
    else:
        yield path, space


def _at(observation: Any, path: tuple[str, ...]) -> Tensor:
    for key in path:
        observation = observation[key]
    return observation


class Encoder(nn.Module):
    """Observation -> features [..., width]: images through a Nature CNN each, all else flattened, side by side, then an MLP.

    A single image goes through its CNN only, as in the Nature paper.
    """

    def __init__(
        self,
        space: spaces.Space,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        initialization: str = "orthogonal",
    ):
        super().__init__()
        parts = list(_leaf_spaces(space))
        images = [(path, NatureCNN(leaf.shape)) for path, leaf in parts if is_image(leaf)]  # type: ignore[arg-type]
        self.images = [path for path, _ in images]
        self.vectors = [(path, leaf) for path, leaf in parts if not is_image(leaf)]
        self.cnns = nn.ModuleList(cnn for _, cnn in images)
        small = [describe(leaf) for _, leaf in self.vectors if isinstance(leaf, spaces.Box) and leaf.dtype == np.uint8]
        self.notices = [f"observations {describe(leaf)} go through a CNN" for _, leaf in parts if is_image(leaf)]
        self.notices += [
            f"observations {words} are no images for the CNN (two axes of 36 and more): they are flattened, and scaled by 1/255 "
            "unless normalize_observation is on"
            for words in small
        ]
        self.notices += [
            f"observations {leaf.dtype} {describe(leaf)} look like images, but the CNN is for uint8: they are taken for plain vectors of "
            f"{flat_size(leaf):,} numbers"
            for _, leaf in self.vectors
            if leaf.dtype != np.uint8 and looks_like_image(leaf)
        ]
        size = sum(flat_size(leaf) for _, leaf in self.vectors) + sum(cnn.width for _, cnn in images)
        self.mlp = MLP(size, () if not self.vectors and len(self.cnns) == 1 else hidden, activation)
        self.width = self.mlp.width
        initialize(self, initialization)
        _, first = self.vectors[0] if self.vectors else (None, None)
        self.straight = self.plain and len(first.shape or ()) == 1  # type: ignore[union-attr]

    @property
    def plain(self) -> bool:
        """One float vector straight into the MLP: what the numpy actor can do."""
        if type(self) is not Encoder or type(self.mlp) is not MLP:  # whose `forward` may be another
            return False
        if self.images or [path for path, _ in self.vectors] != [()]:
            return False
        leaf = self.vectors[0][1]
        return isinstance(leaf, spaces.Box) and numpy_dtype(leaf) == "float32"

    def forward(self, observation: Any) -> Tensor:
        if self.straight:
            return self.mlp.forward(observation)
        parts = [flatten(space, _at(observation, path)) for path, space in self.vectors]
        parts += [cnn(_at(observation, path)) for cnn, path in zip(self.cnns, self.images, strict=True)]
        return self.mlp(parts[0] if len(parts) == 1 else torch.cat(parts, -1))


class Torso(nn.Module):
    """A module of the user's as an encoder: observation [*, *obs] -> features [*, width]. The module itself sees one axis of rows.

    Observations come as they are in a batch (uint8 images, int64 Discrete), after the normalizer where there is one.
    Raises BadInput unless the module says its `width` and gives float32 [rows, width]: it is tried on zeros.
    """

    def __init__(self, space: spaces.Space, module: nn.Module):
        super().__init__()
        name = type(module).__name__
        width = whole(module.width) if isinstance(module, HasWidth) else None
        if not isinstance(module, nn.Module) or not isinstance(width, int):
            came = "is no module" if not isinstance(module, nn.Module) else "does not"
            came += f" (it says {width!r})" if isinstance(module, HasWidth) else ""
            raise BadInput(f"an encoder is an nn.Module that says in `width` how many features it gives; {name} {came}")
        self.module, self.width = module.float(), width
        self.path, leaf = next(_leaf_spaces(space))  # by name: the keys of an observation may come in another order
        self.axes = len(leaf.shape or ())
        self.notices = [
            f"{name} looks at observations, in the place of the policy's hidden layers and their activation"
        ]
        for rows, words in ((2, "2 rows"), (1, "1 row")):  # a `squeeze` too many shows where there is one
            features = self._tried(zeros(space, (rows,)), name, space)
            if not isinstance(features, Tensor):
                raise BadInput(f"the encoder {name} must give one tensor, got a {type(features).__name__}")
            if features.shape != (rows, width) or features.dtype != torch.float32:
                raise BadInput(
                    f"the encoder {name} must give float32 [rows, width] = ({rows}, {width}) for {words} of {describe(space)}, "
                    f"got {str(features.dtype).removeprefix('torch.')} {tuple(features.shape)}"
                )

    def _tried(self, observation: Any, name: str, space: spaces.Space) -> Any:
        try:
            with torch.no_grad():
                return self.module.eval()(observation)
        except Exception as error:
            error.add_note(f"the encoder {name} was tried on zeros, rows of {describe(space)}")
            raise

    def forward(self, observation: Any) -> Tensor:
        first = _at(observation, self.path)
        leading = first.shape[: first.ndim - self.axes]
        if len(leading) == 1:
            return self.module(observation)
        rows = tree_map(lambda x: x.reshape(-1, *x.shape[len(leading) :]), observation)
        return self.module(rows).unflatten(0, leading) if leading else self.module(rows).squeeze(0)


def check_sized(parameters: Iterable[nn.Parameter]) -> None:
    """Raises BadInput for parameters of lazy layers that have seen no observation yet."""
    if any(map(is_lazy, parameters)):
        raise BadInput(
            "a network has lazy layers that have no size yet: whorl.nets.encoder.Torso(observation_space, module) shows them an observation"
        )


def torso(factory: EncoderFactory, space: spaces.Space) -> Torso:
    """A new network of the user's for a space. Raises BadInput for one that is finished: policy and critic need one each."""
    if isinstance(factory, nn.Module) or not callable(factory):
        came = f"a finished {type(factory).__name__}" if isinstance(factory, nn.Module) else repr(factory)
        raise BadInput(
            f"encoder is a class or a function, observation space -> nn.Module, because policy and critic need a network each; got {came}"
        )
    if why := misfit(factory, space):
        name = getattr(factory, "__qualname__", type(factory).__qualname__)
        raise BadInput(f"encoder is called with one argument, the observation space; {name} does not take that: {why}")
    module = factory(space)
    return module if isinstance(module, Torso) else Torso(space, module)


def encoder_for(
    space: spaces.Space,
    factory: EncoderFactory | None,
    hidden: Sequence[int],
    activation: str,
    initialization: str = "orthogonal",
) -> nn.Module:
    """A new encoder for a space: the user's where there is a factory, in place of all hidden layers, else whorl's own."""
    return Encoder(space, hidden, activation, initialization) if factory is None else torso(factory, space)


def notices(module: nn.Module) -> list[str]:
    """What its parts say of themselves: what looks at observations, if it is the user's, what whorl's own chose for those that are no
    float vectors, what acts through a TensorDict; each once."""
    parts = [part for part in module.modules() if isinstance(part, HasNotices)]
    return [*dict.fromkeys(notice for part in parts for notice in part.notices)]


def refuse(factory: EncoderFactory | None, why: str) -> None:
    """Raise Incompatible for an encoder of the user's: `why` has no place for one."""
    if factory is not None:
        raise Incompatible(f"{why}, so it has no place for an encoder: leave `encoder` out")
