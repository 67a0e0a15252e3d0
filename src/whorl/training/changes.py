"""What a resume may change: settings and fields of the config that shape nothing which a checkpoint holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import torch

from whorl import options
from whorl.agents.agent import Agent
from whorl.errors import BadInput
from whorl.feeds import Fed
from whorl.options import Field, override
from whorl.training.settings import FIXED, NAMED, Settings, one_word

SETTINGS = {field.name for field in options.fields(Settings)}


class Changes(NamedTuple):
    """`said`: "learning_rate: 0.0003 -> 0.001", one for each change. `groups`: optimizer -> for each group what is another number."""

    said: tuple[str, ...] = ()
    groups: Mapping[str, list[Mapping[str, object]]] = {}

    def apply(self, agent: Agent) -> None:
        """To the optimizers, once a checkpoint has brought back theirs."""
        for name, optimizer in agent.optimizers().items():
            for group, changed in zip(optimizer.param_groups, self.groups.get(name, ())):
                for key, value in changed.items():
                    if isinstance(group[key], torch.Tensor):
                        group[key].copy_(value)  # a compiled graph holds it
                    else:
                        group[key] = value


def changed(settings: Settings, config: Fed, fields: Mapping[str, object]) -> tuple[Settings, Fed]:
    """The settings and the config of a run with some of their fields replaced. Raises BadInput for those that no resume can change."""
    fields = one_word(fields, settings.update)
    of_run = {name: value for name, value in fields.items() if name in SETTINGS}
    of_agent = {name: value for name, value in fields.items() if name not in SETTINGS}
    fixed = (*NAMED, *FIXED, "checkpoint_every") if config.feed.replays else (*NAMED, *FIXED)
    if found := [name for name in of_run if name in fixed]:
        raise BadInput(f"{found[0]} cannot change on the way, its random streams and rows hang on it: train a new run")
    feed = of_agent.get("feed", {})
    names = feed if isinstance(feed, Mapping) else [f.name for f in _differing(config.feed, feed)]
    if wrong := [name for name in names if name not in config.feed.adjustable]:
        can = ", ".join(sorted(config.feed.adjustable)) or "nothing"
        raise BadInput(
            f"feed.{wrong[0]} cannot change on the way: what is kept hangs on it. Of this feed may change: {can}"
        )
    return override(settings, of_run), override(config, of_agent)


def between(before: tuple[Settings, Fed, Agent], now: tuple[Settings, Fed, Agent]) -> Changes:
    """What differs. agents: as they are built, of the same seed.

    Raises BadInput where a change would not reach the weights of the checkpoint: their shapes, their optimizers or how they begin differ.
    """
    said = [line for old, new in zip(before[:2], now[:2]) for line in _lines(old, new)]
    if before[1] == now[1]:
        return Changes(tuple(said))
    old, new = (agent.state_dict() for agent in (before[2], now[2]))
    if _shapes(before[2]) != _shapes(now[2]):
        raise BadInput(f"{_names(before[1], now[1])} changes the shape of what was learned: train a new run")
    if any(not torch.equal(value, new[name]) for name, value in old.items()):
        raise BadInput(
            f"{_names(before[1], now[1])} says how learning begins, which is long ago in this run: train a new one"
        )
    groups: dict[str, list[Mapping[str, object]]] = {}
    for name, optimizer in now[2].optimizers().items():
        pairs = zip(before[2].optimizers()[name].param_groups, optimizer.param_groups)
        groups[name] = [{k: v for k, v in b.items() if k != "params" and _differ(a.get(k), v)} for a, b in pairs]
    return Changes(tuple(said), groups)


def _shapes(agent: Agent) -> object:
    optimizers = {name: (type(o), [len(g["params"]) for g in o.param_groups]) for name, o in agent.optimizers().items()}
    return {name: (value.shape, value.dtype) for name, value in agent.state_dict().items()}, optimizers


def _differ(a: object, b: object) -> bool:
    return not torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a != b


def _differing(old: object, new: object) -> list[Field]:
    return [f for f in options.fields(type(old)) if getattr(old, f.name) != getattr(new, f.name, None)]


def _lines(old: object, new: object, prefix: str = "") -> list[str]:
    lines = []
    for field in _differing(old, new):
        a, b, name = getattr(old, field.name), getattr(new, field.name), prefix + field.name
        lines += _lines(a, b, f"{name}.") if dataclasses.is_dataclass(a) else [f"{name}: {a!r} -> {b!r}"]
    return lines


def _names(old: Fed, new: Fed) -> str:
    return ", ".join(line.partition(":")[0] for line in _lines(old, new))
