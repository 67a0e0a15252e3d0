"""Micro-batches: one optimizer step on several batches, whose graphs are there one at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from whorl.batch import Batch, Metrics, get
from whorl.errors import BadInput

Batches = Batch | list[Batch]  # one, or micro-batches
Weights = Sequence[float | Tensor] | None  # of micro-batches


def cut(batches: Batches, weights: Weights, device: torch.device) -> tuple[list[Batch], Tensor | None]:
    """(micro-batches, their shares [n] of the gradient, which sum to 1); no shares where there is one batch alone."""
    if not isinstance(batches, list):
        batches = [batches]
    if not batches or (weights is not None and len(weights) != len(batches)):
        raise BadInput(
            f"got {len(batches)} micro-batches and {len(weights or [])} weights: at least one, and one weight for each or none"
        )
    if len(batches) == 1:
        return batches, None
    if empty := [i for i, batch in enumerate(batches) if 0 in batch.batch_size]:
        raise BadInput(f"micro-batch {empty[0]} of {len(batches)} has no rows: leave it out")
    amounts = [rows_of(batch) for batch in batches] if weights is None else weights
    total = torch.stack([torch.as_tensor(x, dtype=torch.float32, device=device) for x in amounts])
    if weights is not None and not (total.isfinite() & (total >= 0)).all():
        raise BadInput(f"weights of micro-batches are finite numbers of at least 0, got {total.tolist()}")
    return batches, total / total.sum().clamp(min=torch.finfo(total.dtype).tiny)


def rows_of(batch: Batch) -> int | Tensor:
    """How many rows of a batch count."""
    mask = get(batch, "mask")
    return batch.numel() if mask is None else mask.sum()


def joined(results: Sequence[tuple[Tensor, Metrics]], shares: Tensor) -> tuple[Tensor, Metrics]:
    """(loss, metrics) of micro-batches as of one batch: the mean of what is one number, the rows of what has rows."""
    mean = lambda numbers: (shares * torch.stack([x.detach() for x in numbers])).sum()  # noqa: E731
    metrics = {}
    for key in results[0][1]:
        found = [own[key] for _, own in results]
        metrics[key] = torch.cat(found) if found[0].ndim else mean(found)
    return mean([value for value, _ in results]), metrics
