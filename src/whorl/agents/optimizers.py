"""What an agent steps with: torch's optimizers, by name or lean, with their limits of the gradient; their state as tensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from inspect import signature
from itertools import islice
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from whorl import dynamo
from whorl.batch import Arrays, Numbers
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


# How a step is computed, not what it computes: that belongs to the machine and does not travel with a checkpoint.
_MEANS = {"foreach", "fused", "capturable", "differentiable"}


def anneal(optimizer: torch.optim.Optimizer, learning_rate: float, done: Tensor, over: int) -> Tensor:
    """Sets a learning rate that falls linearly from `learning_rate` to 0 while `done` goes to `over` (0: it stays), and returns it."""
    left = 1.0 if not over else max(0.0, 1 - int(done) / over)
    for group in optimizer.param_groups:
        group["lr"].fill_(learning_rate * left)
    return optimizer.param_groups[0]["lr"].clone()


def flatten(prefix: str, nested: Mapping) -> dict[str, Tensor]:
    """Nested dicts of tensors under joined names: flatten("a.", {0: {"b": t}}) is {"a.0.b": t}.

    Raises BadInput for a leaf that is no tensor.
    """
    flat: dict[str, Tensor] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= flatten(f"{prefix}{key}.", value)
        elif isinstance(value, Tensor):
            flat[f"{prefix}{key}"] = value
        else:
            raise BadInput(f"{prefix}{key} should be a tensor or a dict of tensors, got a {type(value).__name__}")
    return flat


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[Numbers]]:
    """A torch optimizer as (tensors, groups), for a checkpoint.

    A tensor is named "index.name" (index: the parameter's place in the param groups), or "group.index.name" where it is
    a setting, such as a learning rate. `groups` holds, per group, the other settings and the shapes of its parameters.
    Raises BadInput for state that is not tensors (LBFGS).
    """
    state = {
        index: {name: value for name, value in optimizer.state[parameter].items() if value is not None}
        for index, parameter in enumerate(_parameters(optimizer))
        if parameter in optimizer.state
    }
    vectors: dict[int, dict[str, Tensor]] = {}
    groups: list[dict[str, Any]] = []
    for index, group in enumerate(optimizer.param_groups):
        settings = {name: value for name, value in group.items() if name != "params" and name not in _MEANS}
        vectors[index] = {name: value for name, value in settings.items() if isinstance(value, Tensor)}
        plain = {name: value for name, value in settings.items() if name not in vectors[index]}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
        groups.append({"params": _shapes(group)} | plain)
    return flatten("", state) | flatten("group.", vectors), groups


@torch.no_grad()
def load_optimizer_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[Numbers]) -> None:
    """Puts back what `optimizer_state` gave: the next steps have the same bits as without the interruption.

    Tensors that the optimizer already has are written in place, because a compiled graph holds them; others are made.
    Raises BadInput, before anything is changed, if it has parameters of other shapes, or in other groups.
    """
    saved, here = [group["params"] for group in groups], [_shapes(group) for group in optimizer.param_groups]
    if saved != here:
        raise BadInput(
            f"the saved optimizer is for groups of parameters of shapes {saved}, this one for {here}: "
            "build the agent with the configuration it was saved with"
        )
    owned: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        owner, _, name = key.rpartition(".")
        owned[owner][name] = tensor
    parameters = iter(enumerate(_parameters(optimizer)))
    for number, (group, settings) in enumerate(zip(optimizer.param_groups, groups)):
        for index, parameter in islice(parameters, len(group["params"])):
            if str(index) not in owned:  # no step was taken before the checkpoint
                optimizer.state.pop(parameter, None)
                continue
            state = optimizer.state[parameter]
            for name, tensor in owned[str(index)].items():
                _check_beside(parameter, name, tensor)
                # torch keeps the step counter on the CPU unless a kernel reads it
                aside = name == "step" and not (group.get("fused") or group.get("capturable"))
                state[name] = _put(state.get(name), tensor, "cpu" if aside else parameter.device)
        for name in settings.keys() - {"params"}:
            value = tuple(settings[name]) if isinstance(group.get(name), tuple) else settings[name]
            group[name] = _put(group[name], value, "cpu") if isinstance(group.get(name), Tensor) else value
        for name, tensor in owned[f"group.{number}"].items():
            group[name] = _put(group.get(name), tensor, group["params"][0].device)


def optimizers_in(module: nn.Module) -> dict[str, torch.optim.Optimizer]:
    """The optimizers of a module and of all inside it, by the names of their attributes: "optimizer", "inner.optimizer"."""
    every = [(name, vars(part)) for name, part in module.named_modules()]
    found = {f"{name}.{key}".lstrip("."): value for name, own in every for key, value in own.items()}
    return {name: value for name, value in found.items() if isinstance(value, torch.optim.Optimizer)}


def optimizer_states(optimizers: Mapping[str, torch.optim.Optimizer]) -> tuple[Arrays, Numbers]:
    """Several of them: tensors under `optimizers.<name>.`, groups by name."""
    arrays: Arrays = {}
    groups: Numbers = {}
    for name, one in optimizers.items():
        own, groups[name] = optimizer_state(one)
        arrays |= {f"optimizers.{name}.{key}": value for key, value in own.items()}
    return arrays, groups


def load_optimizer_states(optimizers: Mapping[str, torch.optim.Optimizer], arrays: Arrays, groups: Numbers) -> Arrays:
    """Puts back what `optimizer_states` gave; returns those of `arrays` that belong to none of them."""
    left = dict(arrays)
    for name, one in optimizers.items():
        prefix = f"optimizers.{name}."
        own = {key.removeprefix(prefix): left.pop(key) for key in arrays if key.startswith(prefix)}
        load_optimizer_state(one, own, groups[name])
    return left


def _put(held: Any, value: Any, device: torch.device | str) -> Tensor:
    """`value` in the memory of `held` if that is a tensor, else in memory of its own."""
    if isinstance(held, Tensor):
        return held.copy_(value) if isinstance(value, Tensor) else held.fill_(value)
    return value.to(device, copy=True)


def _check_beside(parameter: Tensor, name: str, tensor: Tensor) -> None:
    """Kernels walk through a moment as they do through its parameter. Raises BadInput for one that they must not walk through."""
    fits = not tensor.ndim or (tensor.shape == parameter.shape and tensor.dtype == parameter.dtype)
    if not fits or not tensor.isfinite().all():
        raise BadInput(f"the saved {name} of an optimizer must be finite, and shaped as its weights")


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _shapes(group: dict[str, Any]) -> list[list[int]]:
    return [list(parameter.shape) for parameter in group["params"]]
