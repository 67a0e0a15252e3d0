"""What an agent steps with: torch's optimizers, by name or lean, with their limits of the gradient."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from whorl import dynamo
from whorl.batch import Numbers
from whorl.errors import BadInput


def adam(
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    eps: float = 1e-5,
    beta1: float = 0.9,
    max_grad_norm: float = 0.0,
    clip_value: float = 0.0,
) -> torch.optim.Adam:
    """torch's fused Adam with its learning rate in a tensor, so that schedules never rebuild a compiled graph.

    max_grad_norm, clip_value: see `limits`.
    """
    group = limited(parameters, max_grad_norm, clip_value)
    rate = torch.tensor(learning_rate, dtype=torch.float32)
    return dynamo.make(torch.optim.Adam, group, lr=rate, betas=(beta1, 0.999), eps=eps, fused=True)


def limited(parameters: Iterable[nn.Parameter], max_grad_norm: float, clip_value: float) -> list[Numbers]:
    """One parameter group that says how far its gradient may go."""
    return [{"params": list(parameters), "max_grad_norm": max_grad_norm, "clip_value": clip_value}]


def limits(optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """(largest global norm, largest size of each element) of its gradient: "max_grad_norm" and "clip_value" of its (first) group.

    First the norm is cut, then each element; 0 or no such entry: no limit.
    """
    group = optimizer.param_groups[0]
    return group.get("max_grad_norm") or inf, group.get("clip_value") or inf


_NOT_PLAIN = ("Optimizer", "LBFGS", "Muon", "SparseAdam")  # want a closure, matrices only, sparse gradients
OPTIMIZERS = {n.lower(): o for n, o in vars(torch.optim).items() if isinstance(o, type) and n not in _NOT_PLAIN}


def optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    rate: float,
    eps: float,
    weight_decay: float,
    smoothing: float,
    max_grad_norm: float = 0.0,
    clip_value: float = 0.0,
) -> torch.optim.Optimizer:
    """The torch optimizer of this name in lower case, its learning rate in a tensor.

    eps: for those that have one number of that name. smoothing: RMSprop's alpha. max_grad_norm, clip_value: see `limits`.
    Raises BadInput for an unknown name, listing the choices, and for a weight_decay that the optimizer does not have.
    """
    if name not in OPTIMIZERS:
        raise BadInput(f"unknown optimizer {name!r}. Optimizers: {', '.join(sorted(OPTIMIZERS))}")
    own = {key: value.default for key, value in signature(OPTIMIZERS[name]).parameters.items()}
    if weight_decay and "weight_decay" not in own:
        raise BadInput(f"optimizer {name!r} has no weight decay: weight_decay must be 0, got {weight_decay}")
    settings: dict[str, Any] = {"weight_decay": weight_decay} if "weight_decay" in own else {}
    settings |= {"eps": eps} if isinstance(own.get("eps"), float) else {}
    settings |= {"alpha": smoothing} if name == "rmsprop" else {"fused": True} if name == "adam" else {}
    group = limited(parameters, max_grad_norm, clip_value)
    return dynamo.make(OPTIMIZERS[name], group, lr=torch.tensor(rate, dtype=torch.float32), **settings)


def is_fused_adam(optimizer: torch.optim.Optimizer) -> bool:
    """One group of plain, fused Adam."""
    o = optimizer.defaults
    plain = type(optimizer) is torch.optim.Adam and len(optimizer.param_groups) == 1
    return plain and bool(o["fused"]) and not (o["amsgrad"] or o["maximize"] or o["decoupled_weight_decay"])


def adam_state(optimizer: torch.optim.Optimizer) -> list[list[Tensor]]:
    """Adam's first moments, second moments and step counters, made where no step was taken yet."""
    parameters = optimizer.param_groups[0]["params"]
    for p in parameters:
        if not optimizer.state[p]:
            zeros = lambda p=p: torch.zeros_like(p, memory_format=torch.preserve_format)  # noqa: E731
            optimizer.state[p] = {
                "step": torch.zeros((), dtype=torch.float32, device=p.device),
                "exp_avg": zeros(),
                "exp_avg_sq": zeros(),
            }
    return [[optimizer.state[p][key] for p in parameters] for key in ("exp_avg", "exp_avg_sq", "step")]


class FusedAdam:
    """`step` of a fused torch Adam, to the same bits with a quarter of the overhead: its lists are made once."""

    def __init__(self, adam: torch.optim.Optimizer):
        self.group = adam.param_groups[0]
        self.means, self.squares, self.steps = adam_state(adam)
        self.one = torch.ones(
            (), dtype=torch.float32, device=self.steps[0].device
        )  # a number would become a tensor for each parameter

    def holds(self, adam: torch.optim.Optimizer) -> bool:
        """Whether its state is still the one the lists were made of."""
        return all(adam.state[p].get("step") is step for p, step in zip(self.group["params"], self.steps))

    @torch.no_grad()
    def step(self, gradients: list[Tensor], void: Tensor | None = None) -> None:
        """Nothing moves if `void`, where there is one, holds 1."""
        g = self.group
        torch._foreach_add_(self.steps, self.one if void is None else 1 - void)
        torch._fused_adam_(
            g["params"], gradients, self.means, self.squares, [], self.steps, lr=g["lr"], beta1=g["betas"][0], beta2=g["betas"][1],
            weight_decay=g["weight_decay"], eps=g["eps"], amsgrad=False, maximize=False, grad_scale=None, found_inf=void,
        )  # fmt: skip


def anneal(optimizer: torch.optim.Optimizer, learning_rate: float, done: Tensor, over: int) -> Tensor:
    """Sets a learning rate that falls linearly from `learning_rate` to 0 while `done` goes to `over` (0: it stays), and returns it."""
    left = 1.0 if not over else max(0.0, 1 - int(done) / over)
    for group in optimizer.param_groups:
        group["lr"].fill_(learning_rate * left)
    return optimizer.param_groups[0]["lr"].clone()
