"""Begin with the weights of another run: parameters and statistics, without its optimizers and its counters."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from whorl.agents.agent import Agent
from whorl.batch import Arrays
from whorl.errors import BadInput
from whorl.training import checkpoint, folder


def of_run(path: str | Path) -> Arrays:
    """What the best checkpoint of a run holds of its agent (the last where none was evaluated). Raises what `load` does."""
    path = folder.open_run(path)
    which = "best" if (path / "checkpoints" / "best").exists() else "last"
    tensors, _ = checkpoint.load(checkpoint.find(path / "checkpoints", which))
    return tensors["agent"] | {f"policy.{name}": value for name, value in tensors["policy"].items()}


def begin_with(agent: Agent, arrays: Arrays, source: str) -> None:
    """Put weights and statistics into an agent. Whole numbers and flags count what was done, so they stay its own.

    Raises BadInput, before anything is changed, for an agent with other weights, and for one that keeps traces of episodes among them.
    """
    if agent.config.feed.one_by_one:
        raise BadInput(
            f"init_from: {type(agent).__name__} keeps traces of its episodes with its weights: resume {source}"
        )
    ours = _weights(agent.state_dict())
    theirs = _weights({name: value for name, value in arrays.items() if not name.startswith("optimizers.")})
    for name in sorted(ours.keys() | theirs.keys()):
        here, there = (list(each[name].shape) if name in each else "none" for each in (ours, theirs))
        if here != there:
            raise BadInput(
                f"init_from: {name} is of the shape {there} in {source}, here {here}: the spaces or the networks differ"
            )
    agent.load_state_dict(theirs, strict=False)


def _weights(arrays: Arrays) -> dict[str, Tensor]:
    return {name: value for name, value in arrays.items() if value.is_floating_point()}
