"""Transforms of single rows, as a buffer runs them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from whorl.batch import Arrays, Batch, Numbers, State
from whorl.buffers.lookup.lookup import Lookup
from whorl.buffers.parts import Storage
from whorl.errors import BadInput
from whorl.transforms.transform import Transform


class Pure(Lookup):
    """A transform whose `forward` is asked for every batch. Raises BadInput for one that looks at more than one row."""

    def __init__(self, transform: Transform) -> None:
        if type(transform).forward is Transform.forward:
            raise BadInput(
                f"{type(transform).__name__} looks at more than one row: put it around the environment. In a buffer, lookups look at "
                "neighbouring rows (docs/replay.md)"
            )
        self.transform = transform

    def __call__(self, storage: Storage, index: Tensor, batch: Batch) -> Batch:
        try:
            return self.transform.forward(batch)
        except AttributeError as error:
            raise BadInput(
                f"{type(self.transform).__name__} on a batch: {error}. One that needs to know the spaces is told them first: "
                "transform.spaces(env.observation_space, env.action_space)"
            ) from error

    def state(self) -> State:
        """What it has learned, and its memory."""
        memory = {name: torch.as_tensor(array) for name, array in self.transform.state().items()}
        return {**self.transform.state_dict(prefix="learned."), **memory}, {}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        learned = {name.removeprefix("learned."): x for name, x in arrays.items() if name.startswith("learned.")}
        self.transform.load_learned({name: x.numpy() for name, x in learned.items()})
        self.transform.load_state({name: x for name, x in arrays.items() if not name.startswith("learned.")})
        return True


def in_order(parts: Sequence[Lookup | Transform]) -> tuple[Lookup, ...]:
    """All of them as lookups. Raises BadInput for what is neither, and for a lookup after a transform: it reads rows as they are stored,
    and what the transform did would be lost, or be mixed with what was not transformed."""
    found: list[Lookup] = []
    for part in parts:
        if not isinstance(part, Lookup | Transform):
            raise BadInput(
                f"a buffer changes batches by lookups (subclasses of whorl.buffers.lookup.lookup.Lookup) and transforms, got {part!r:.80}"
            )
        if isinstance(part, Lookup) and found and isinstance(found[-1], Pure):
            raise BadInput(
                f"{type(part).__name__} reads rows as they are stored, so it stands before {type(found[-1].transform).__name__}: "
                "lookups first, then transforms"
            )
        found.append(Pure(part) if isinstance(part, Transform) else part)
    return tuple(found)
