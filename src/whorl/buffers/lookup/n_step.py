"""n-step returns at sample time: rows stay single steps in the storage, so n can differ from one run to the next."""

from __future__ import annotations

import torch
from torch import Tensor

from whorl.batch import Batch
from whorl.buffers.lookup.lookup import Lookup
from whorl.buffers.parts import Storage
from whorl.errors import BadInput


class NStep(Lookup):
    """Looks up to n rows ahead, in each row's own lane.

    For row t, with k rows summed (1 <= k <= n):
        next.reward   = sum over j < k of discount^j r[t+j]
        next.discount = discount^k
        every other key of `next` (observation, terminated, truncated, action_mask, ...) is that of row t+k-1
    so the target is next.reward + next.discount * (1 - next.terminated) * value(next.observation) for any k. k = n, or
    less where row t+k-1 terminated or was truncated, is the newest of its lane, or is followed by a row that starts an
    episode (`is_first`, where it is stored). Where rows carry a `next.discount` of their own, products of those stand in
    for the powers of `discount`.

    Sutton and Barto 2018, section 7.1; as used by Hessel et al. 2018 (Rainbow), "Multi-step learning".
    Raises BadInput for n < 1, a discount outside of [0, 1], sequences [T, B] of fewer than n rows, and n > 1 after
    hindsight relabelling.
    """

    def __init__(self, n: int, discount: float):
        if n < 1:
            raise BadInput(f"n-step returns need n of at least 1, got {n}")
        if not 0 <= discount <= 1:
            raise BadInput(f"discount must lie in [0, 1], got {discount}")
        self.n, self.discount = n, discount
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, storage: Storage, index: Tensor, batch: Batch) -> Batch:
        if index.ndim > 1 and self.n > index.shape[0]:
            raise BadInput(
                f"n-step longer than the sequence: n = {self.n}, the sequences have {index.shape[0]} rows. "
                "Use a smaller n or longer sequences"
            )
        index = index.to(storage.device)
        ahead, powers = self._table(index.device)
        lane, newest = index % storage.lanes, torch.as_tensor(storage.count, device=index.device) - 1
        left = (newest[lane] - index // storage.lanes).unsqueeze(-1)  # rows of the lane that come after
        slot = storage.slot(index.unsqueeze(-1) + torch.minimum(ahead, left) * storage.lanes)  # [..., n]
        used = ahead <= left
        names = storage.names()
        if self.n > 1:
            stop = storage.column("next.terminated")[slot] | storage.column("next.truncated")[slot]
            used[..., 1:] &= ~stop[..., :-1]
            if "is_first" in names:  # an episode that was given up, its last row without a flag
                used[..., 1:] &= ~storage.column("is_first")[slot][..., 1:]
            used = used.cumprod(-1)
        k = used.sum(-1)
        if "next.discount" in names:
            discounts = storage.column("next.discount")[slot].masked_fill(used == 0, 1.0).cumprod(-1)
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
        # the axis in front gives this read a memory of its own: one of the batch's shape would be written over the batch
        successor = storage.read((index + (k - 1) * storage.lanes).unsqueeze(0))["next"][0]
        successor["reward"], successor["discount"] = reward, discount
        batch["next"] = successor
        return batch

    def _table(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(0 ... n - 1, discount to the power of 0 ... n) on `device`."""
        if device not in self._tables:
            powers = torch.tensor([self.discount**j for j in range(self.n + 1)], dtype=torch.float32, device=device)
            self._tables[device] = torch.arange(self.n, device=device), powers
        return self._tables[device]
