"""What `Agent.optimize` steps with: torch's optimizers, by name or lean, and gradient, clip and step as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.optim.adam import adam as adam_step

from whorl.errors import BadInput


def adam(
    parameters: Iterable[nn.Parameter], learning_rate: float, eps: float = 1e-5, beta1: float = 0.9
) -> torch.optim.Adam:
    """torch's fused Adam with its learning rate in a tensor, so that schedules never rebuild a compiled graph."""
    return torch.optim.Adam(parameters, lr=torch.tensor(learning_rate), betas=(beta1, 0.999), eps=eps, fused=True)


_NOT_PLAIN = ("Optimizer", "LBFGS", "Muon", "SparseAdam")  # want a closure, matrices only, sparse gradients
OPTIMIZERS = {n.lower(): o for n, o in vars(torch.optim).items() if isinstance(o, type) and n not in _NOT_PLAIN}


def optimizer(
    name: str, parameters: Iterable[nn.Parameter], rate: float, eps: float, weight_decay: float, smoothing: float
) -> torch.optim.Optimizer:
    """The torch optimizer of this name in lower case, its learning rate in a tensor.

    eps: for those that have one number of that name. smoothing: RMSprop's alpha.
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
    return OPTIMIZERS[name](parameters, lr=torch.tensor(rate), **settings)


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
            optimizer.state[p] = {"step": torch.zeros((), device=p.device), "exp_avg": zeros(), "exp_avg_sq": zeros()}
    return [[optimizer.state[p][key] for p in parameters] for key in ("exp_avg", "exp_avg_sq", "step")]


class FusedAdam:
    """`step` of a fused torch Adam, to the same bits with a quarter of the overhead: its lists are made once."""

    def __init__(self, adam: torch.optim.Optimizer):
        self.group = adam.param_groups[0]
        self.means, self.squares, self.steps = adam_state(adam)
        self.one = torch.ones((), device=self.steps[0].device)  # a number would become a tensor for each parameter

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


def named(loss: Callable, value: Tensor, norm: Tensor) -> dict[str, Tensor]:
    name = loss.__name__
    return {name: value, f"{name.removesuffix('loss')}grad_norm": norm}


def judge(void: Tensor, loss: Tensor, norm: Tensor) -> Tensor:
    """`void` if it is set already, else 1 for a bad loss, 2 for a bad gradient, 0 for none."""
    now = torch.where(loss.isfinite(), torch.where(norm.isfinite(), 0.0, 2.0), 1.0)
    return torch.where(void > 0, void, now)


def compiled_step(
    agent: Any, loss: Callable, optimizer: torch.optim.Optimizer
) -> Callable[[Mapping], dict[str, Tensor]]:
    """Gradient, clip and Adam as one graph, writing into the weights and the state of an ordinary optimizer."""
    if type(optimizer) is not torch.optim.Adam or len(optimizer.param_groups) != 1:
        raise BadInput(f"compile=True needs one Adam with one parameter group, got {type(optimizer).__name__}")
    group = optimizer.param_groups[0]
    name_of = {id(p): name for name, p in agent.named_parameters()}
    weights = {name_of[id(p)]: p for p in group["params"]}
    state = adam_state(optimizer)
    limit, bound, (beta1, beta2), rate = agent.max_grad_norm, agent.clip_value, group["betas"], group["lr"]
    moved = [*weights.values(), *state[0], *state[1], *state[2]]

    def step(batch: Mapping) -> dict[str, Tensor]:
        with torch.no_grad():
            objective = lambda weights: functional_call(agent, weights, (loss, batch))  # noqa: E731
            gradients, (value, metrics) = grad_and_value(objective, has_aux=True)(weights)
            squares = torch.stack([g.square().sum() for g in gradients.values()])
            norm = squares.sum().sqrt()
            agent._void.copy_(judge(agent._void, value, norm))
            fine = agent._void == 0
            scale = (limit / (norm + 1e-6)).clamp(max=1.0)
            clipped = [(g * scale).clamp(-bound, bound) for g in gradients.values()]
            before = [x.clone() for x in moved]
            adam_step(
                list(weights.values()), clipped, state[0], state[1], [], state[2],
                foreach=True, capturable=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=rate,
                weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
            )  # fmt: skip
            for x, old in zip(moved, before):  # a void step is taken back: the compiler makes this one pass
                x.copy_(torch.where(fine, x, old))
            return named(loss, value, norm) | metrics

    step.__code__ = step.__code__.replace()  # torch recompiles one code object 8 times at most: each agent has its own
    return torch.compile(step, fullgraph=True)
