"""Optimizers as tensors and plain settings, for a checkpoint, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from copy import deepcopy
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from whorl.agents.optimizers import OPTIMIZERS
from whorl.agents.step import step_nowhere
from whorl.batch import Arrays, Numbers
from whorl.errors import BadInput, in_words

# How a step is computed, not what it computes: that belongs to the machine and does not travel with a checkpoint.
_MEANS = {"foreach", "fused", "capturable", "differentiable"}


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
def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[Numbers], prefix: str = ""
) -> None:
    """Puts back what `optimizer_state` gave: the next steps have the same bits as without the interruption.

    Tensors that the optimizer already has are written in place, because a compiled graph holds them; others are made.
    Raises BadInput, before anything is changed, if it has parameters of other shapes, or in other groups, and for tensors and settings
    that are none of its own. prefix: what goes before the names of tensors in their file.
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
    own = (
        type(optimizer) not in OPTIMIZERS.values()
    )  # an agent's: it keeps what it likes, and may take no step without its agent
    for index, kept in enumerate([] if own else _kept_by(optimizer, groups)):
        if str(index) in owned:
            _check_kept(owned[str(index)], kept, f"{prefix}{index}.")
    parameters = iter(enumerate(_parameters(optimizer)))
    for number, (group, settings) in enumerate(zip(optimizer.param_groups, groups)):
        for index, parameter in islice(parameters, len(group["params"])):
            if str(index) not in owned:  # no step was taken before the checkpoint
                optimizer.state.pop(parameter, None)
                continue
            state = optimizer.state[parameter]
            for name, tensor in owned[str(index)].items():
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
        load_optimizer_state(one, own, groups[name], prefix)
    return left


def _put(held: Any, value: Any, device: torch.device | str) -> Tensor:
    """`value` in the memory of `held` if that is a tensor, else in memory of its own."""
    if isinstance(held, Tensor):
        return held.copy_(value) if isinstance(value, Tensor) else held.fill_(value)
    return value.to(device, copy=True)


def _kept_by(optimizer: torch.optim.Optimizer, groups: list[Numbers]) -> list[Arrays]:
    """The tensors that the optimizer keeps of each parameter, once it has taken a step with these settings: found by a copy that takes
    one. Kernels walk through them by the shape of the parameter. Raises BadInput for settings with which it takes none."""
    twin = deepcopy(optimizer)
    twin.state.clear()
    for group, settings in zip(twin.param_groups, groups):
        own = {
            name: value
            for name, value in settings.items()
            if name != "params" and not isinstance(group.get(name), Tensor)
        }
        group |= {name: tuple(value) if isinstance(group.get(name), tuple) else value for name, value in own.items()}
    try:
        if not all(
            0 <= beta < 1 for group in twin.param_groups for beta in group.get("betas", ())
        ):  # what torch asks when it is made
            raise ValueError("betas lie from 0 to 1")
        step_nowhere(twin)
    except (RuntimeError, ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise BadInput(
            f"the saved settings of an optimizer are none that it can step with: {in_words(error)}"
        ) from None
    return [{name: x for name, x in twin.state[p].items() if isinstance(x, Tensor)} for p in _parameters(twin)]


def _check_kept(saved: Arrays, kept: Arrays, prefix: str) -> None:
    """Raises BadInput, naming the first that is not, unless these are finite tensors of the same names, shapes and dtypes."""
    for name in {**kept, **saved}:
        one, own = saved.get(name), kept.get(name)
        alike = one is not None and own is not None and (one.shape, one.dtype) == (own.shape, own.dtype)
        if one is None or not alike or not one.isfinite().all():
            wanted = ", ".join(f"{key} {list(x.shape)}" for key, x in kept.items())
            what = "is not there" if one is None else "is wrong"
            raise BadInput(
                f"the array {prefix + name!r} {what}: what is saved of an optimizer must be finite and shaped as it keeps it: {wanted}"
            )


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _shapes(group: dict[str, Any]) -> list[list[int]]:
    return [list(parameter.shape) for parameter in group["params"]]
