"""Chunks of actions, for policies that decide about several steps at once."""

from __future__ import annotations

from torch import Tensor

from whorl.batch import Batch
from whorl.buffers.lookup.lookup import Lookup
from whorl.buffers.lookup.neighbours import ahead
from whorl.buffers.parts import Storage
from whorl.errors import BadInput


class Chunks(Lookup):
    """`action` [..., steps, *action]: those of row t and the rows after it in its episode, and `chunk_mask` bool [..., steps]: which of
    them there are. Where the episode ends, or the newest row of the lane is reached, the last one stands again and `chunk_mask` is False.

    With `NStep(steps, discount)` the batch has the rewards of a chunk, too. Zhao et al. 2023 (ACT), section IV; LeRobot: delta_timestamps
    and action_is_pad. Raises BadInput for fewer than 1 step.
    """

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise BadInput(f"a chunk has at least 1 action, got {steps}")
        self.steps = steps

    def __call__(self, storage: Storage, index: Tensor, batch: Batch) -> Batch:
        slot, same = ahead(storage, index.to(storage.device), self.steps)
        last = same.sum(-1, keepdim=True) - 1
        place = same.cumsum(-1) - 1  # the row itself, or the last one that there is
        batch["action"] = storage.column("action")[slot.gather(-1, place.minimum(last))]
        storage.looked_at(slot.numel())
        batch["chunk_mask"] = same
        return batch
