"""n-step returns at sample time: rows stay single steps in the storage, so n can differ from one run to the next."""

from __future__ import annotations

import torch
from torch import Tensor

from whorl.batch import Batch
from whorl.buffers.lookup.lookup import Lookup
from whorl.buffers.lookup.neighbours import ahead
from whorl.buffers.parts import Storage
from whorl.errors import BadInput


class NStep(Lookup):
    """Looks up to n rows ahead, in each row's own lane.

    For row t, with k rows summed (1 <= k <= n):
        next.reward   = sum over j < k of discount^j r[t+j]
        next.discount = discount^k
        next.index    = the absolute index of row t+k-1 (where n > 1)
        every other key of `next` (observation, terminated, truncated, action_mask, ...) is that of row t+k-1
    so the target is next.reward + next.discount * (1 - next.terminated) * value(next.observation) for any k. k = n, or
    less where row t+k-1 terminated or was truncated, is the newest of its lane, or is followed by a row that starts an
    episode (`is_first`, where it is stored). Where rows carry a `next.discount` of their own, products of those stand in
    for the powers of `discount`.

    Sutton and Barto 2018, section 7.1; as used by Hessel et al. 2018 (Rainbow), "Multi-step learning".
    Raises BadInput for n < 1, a discount outside of [0, 1], sequences [T, B] of fewer than n rows, and n > 1 after
    another lookup that changes `next`.
    """

    def __init__(self, n: int, discount: float):
        if n < 1:
            raise BadInput(f"n-step returns need n of at least 1, got {n}")
        if not 0 <= discount <= 1:
            raise BadInput(f"discount must lie in [0, 1], got {discount}")
        self.n, self.discount = n, discount
        self._tables: dict[torch.device, Tensor] = {}
        self._checked: Storage | None = None  # whose rows came as they are stored

    def __call__(self, storage: Storage, index: Tensor, batch: Batch) -> Batch:
        if index.ndim > 1 and self.n > index.shape[0]:
            raise BadInput(
                f"n-step longer than the sequence: n = {self.n}, the sequences have {index.shape[0]} rows. "
                "Use a smaller n or longer sequences"
            )
        index = index.to(storage.device)
        powers = self._powers(index.device)
        slot, used = ahead(storage, index, self.n)
        k = used.sum(-1)
        if "next.discount" in storage.names():
            discounts = storage.column("next.discount")[slot].masked_fill(~used, 1.0).cumprod(-1)
            weights, discount = discounts.roll(1, -1), discounts[..., -1]
            weights[..., 0] = 1.0
        else:
            weights, discount = powers[:-1], powers[k]
        reward = (storage.column("next.reward")[slot] * weights * used).sum(-1)
        if self.n == 1:
            batch["next"]["discount"] = discount
            return batch
        if "relabelled" in batch.keys():  # noqa: SIM118
            raise BadInput("n-step returns sum stored rewards, hindsight relabelling recomputes them: use n = 1")
        last = index + (k - 1) * storage.lanes
        # the axis in front gives this read a memory of its own: one of the batch's shape would be written over the batch
        successor = storage.read(last.unsqueeze(0))["next"][0]
        if self._checked is not storage:
            self._check(batch["next"], successor)
            self._checked = storage
        successor["reward"], successor["discount"], successor["index"] = reward, discount, last
        batch["next"] = successor
        return batch

    def _check(self, after: Batch, successor: Batch) -> None:
        for key, value in after.items():
            if key not in successor.keys() or value.shape != successor[key].shape:  # noqa: SIM118
                raise BadInput(
                    f"n-step returns take `next` of a later row as it is stored, and next.{key} came from a lookup: put NStep before it"
                )

    def _powers(self, device: torch.device) -> Tensor:
        """discount to the power of 0 ... n, on `device`."""
        if device not in self._tables:
            powers = [self.discount**j for j in range(self.n + 1)]
            self._tables[device] = torch.tensor(powers, dtype=torch.float32, device=device)
        return self._tables[device]
