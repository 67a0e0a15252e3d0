"""What an agent must give back, said in one sentence once something has failed on it: what holds costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

from whorl.batch import Batch
from whorl.errors import AgentError


def blame(who: str, loss: Callable, optimizer: Optimizer, batch: Batch) -> None:
    """Raises AgentError where a step failed because of what `loss(batch)` gives; it is pure, so it is asked again."""
    try:
        given = loss(batch)
    except Exception:
        return  # the error is its own
    if not isinstance(given, tuple) or len(given) != 2:
        raise AgentError(f"{who} must return (loss, metrics), one number and a dict of tensors, got {kind_of(given)}")
    value, metrics = given
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise AgentError(
            f"{who} must give a tensor of one number as its loss, such as a mean over the batch, got {kind_of(value)}"
        )
    if not isinstance(metrics, Mapping):
        raise AgentError(f"{who} must give its metrics as a dict of tensors, got {kind_of(metrics)}")
    blame_metrics(who, metrics)
    if not value.requires_grad:
        raise AgentError(
            f"{who} gives a loss without a gradient, {kind_of(value)}: nothing it is made of is a parameter that learns"
        )
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    if not parameters or all(g is None for g in torch.autograd.grad(value, parameters, allow_unused=True)):
        raise AgentError(
            f"{who} gives a loss that depends on none of the {len(parameters)} parameters of its optimizer"
        )


def blame_metrics(who: str, metrics: Mapping[str, object], single: bool = False) -> None:
    """Raises AgentError for a metric that is no tensor; single: or holds more than one number."""
    for name, value in metrics.items():
        if not isinstance(value, Tensor):
            raise AgentError(
                f"{who} gives the metric {name!r} as {kind_of(value)}: metrics are tensors, without .item()"
            )
        if single and value.numel() != 1:
            raise AgentError(
                f"{who} gives the metric {name!r} as {kind_of(value)}: one number is logged, such as its mean"
            )


def numbers(metrics: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Metrics as plain numbers. Raises AgentError for one that is none."""
    try:
        return {name: float(value) for name, value in metrics.items()}
    except (TypeError, ValueError, RuntimeError):
        blame_metrics(
            "the update",
            {name: value for name, value in metrics.items() if not isinstance(value, float | int)},
            single=True,
        )
        raise


def kind_of(value: object) -> str:
    """What something is, for a message."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"
