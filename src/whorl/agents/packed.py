"""The step of small networks without autograd: an agent's loss by rows, then clip and Adam on one flat vector. CPU, float32.

Which losses can, and how, stands in the files beside this one; an agent names its own. Why, and what it gains: docs/design/020.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from math import inf, nan
from typing import Any

import numba
import numpy as np
import torch
from numba.core.errors import NumbaError
from torch import Tensor
from torch.optim import Optimizer

from whorl.agents.agent import Agent
from whorl.agents.micro_batches import Batches, Weights, cut, joined
from whorl.agents.optimizers import adam_state, is_fused_adam, limits
from whorl.agents.packed_parts import Part, RowLoss
from whorl.agents.step import Loss, OptimizerStep, name_of, named
from whorl.batch import Batch, Metrics
from whorl.errors import AgentError, BadInput, Incompatible
from whorl.nets.packed import Vector, adam, aligned, norm


def pack(agent: Agent) -> None:
    """Lay the parameters of an agent, with the moments of its Adams, in flat vectors: from now on its steps are packed.

    To be called before anybody looks at the parameters' memory (actors do). Raises Incompatible, with the reason, for an agent whose
    losses nobody wrote by rows, whose networks are more than small MLPs on the CPU, or that does not step with plain Adams; AgentError
    where it names losses by rows that there are not.
    """
    own: Any = type(agent)
    owner: Any = next(cls for cls in own.__mro__ if "packed" in vars(cls))
    if not agent.packed:
        raise Incompatible(f"{own.__name__} has no loss by rows")
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        raise Incompatible("numba is switched off (NUMBA_DISABLE_JIT)")
    try:
        norm(aligned(1))
    except NumbaError as failure:
        raise Incompatible(f"numba cannot compile here: {str(failure).splitlines()[0]}") from None
    parts = _losses(agent)(agent)
    for name in [*(name_of(part.loss) for part in parts), "value"]:
        if getattr(owner, name) is not getattr(own, name) or name in vars(agent):
            raise Incompatible(f"{own.__name__} changes the loss of {owner.__name__}")
    for part in parts:
        _check(part.optimizer)
    vectors = {id(part.optimizer): Vector(part.optimizer.param_groups[0]["params"]) for part in parts}
    try:
        rows = [part.rows(lambda optimizer: vectors[id(optimizer)]) for part in parts]
    except Incompatible:
        for vector in vectors.values():
            vector.undo()  # eager keeps its bits
        raise
    agent.step.plans = {
        id(part.optimizer): PackedPlan(part.loss, part.optimizer, vectors[id(part.optimizer)], own)
        for part, own in zip(parts, rows, strict=True)
    }


def _losses(agent: Agent) -> Callable[[Agent], list[Part]]:
    """What `packed` names. Raises AgentError if it names nothing."""
    file, _, function = str(agent.packed).partition(":")
    try:
        return getattr(import_module(f"whorl.agents.{file}"), function)
    except (ImportError, AttributeError):
        raise AgentError(
            f"{type(agent).__name__}.packed names a file of whorl.agents and a function there, as 'packed_policy:ppo', or is '' for none; "
            f"got {agent.packed!r}"
        ) from None


def _check(optimizer: Optimizer) -> None:
    if not is_fused_adam(optimizer):
        raise Incompatible(f"its optimizer is no plain Adam but {type(optimizer).__name__}")
    parameters = optimizer.param_groups[0]["params"]
    if any(p.device.type != "cpu" or p.dtype != torch.float32 or not p.requires_grad for p in parameters):
        raise Incompatible("some of its parameters are no float32 on the CPU, or do not learn")


class PackedPlan:
    """Gradient, norm, clip and Adam of one optimizer whose parameters, moments and counters lie in flat vectors."""

    def __init__(self, loss: Loss, optimizer: Optimizer, vector: Vector, rows: RowLoss):
        self.loss, self.optimizer = loss, optimizer
        self.vector, self._rows = vector, rows
        self._steps, self._strange = 0, 0  # of this process; batches in a row whose two gradients differ
        self.gradients = [torch.from_numpy(vector.like(p, vector.gradient)) for p in vector.parameters]
        self._bring()

    def _bring(self) -> None:
        """Let the optimizer's moments and counters lie in flat vectors, as its parameters do."""
        means, squares, steps = adam_state(self.optimizer)
        if len({step.item() for step in steps}) > 1:
            raise BadInput(f"the step counters of one Adam are equal, these are {[int(step) for step in steps]}")
        self.means, self.squares = np.zeros_like(self.vector.value), np.zeros_like(self.vector.value)
        self.steps = torch.stack(steps)
        for p, mean, square, step in zip(self.vector.parameters, means, squares, self.steps.unbind()):
            state = self.optimizer.state[p]
            state["step"] = step
            for name, held, flat in (("exp_avg", mean, self.means), ("exp_avg_sq", square, self.squares)):
                view = self.vector.like(p, flat)
                np.copyto(view, held.numpy())
                state[name] = torch.from_numpy(view)
        self._counter = self.optimizer.state[self.vector.parameters[0]]["step"]

    def take(
        self, step: OptimizerStep, loss: Loss, optimizer: Optimizer, batches: Batches, weights: Weights
    ) -> Metrics:
        """As `OptimizerStep.eager`. Raises AgentError where the parameters were moved since."""
        if not self.vector.holds():
            raise AgentError(
                "the parameters were moved since they were packed (a copy, another device) or frozen: pack the agent again, before "
                "anybody acts with it"
            )
        if optimizer.state[self.vector.parameters[0]].get("step") is not self._counter:
            self._bring()  # moments that were loaded anew
        pieces, shares = cut(batches, weights, step.void.device)
        self.vector.gradient[:] = 0
        if shares is None:
            value, metrics = self.rows(pieces[0], 1.0)
        else:
            found = [self.rows(piece, share) for piece, share in zip(pieces, shares.tolist())]
            joint, metrics = joined([(torch.tensor(value), metrics) for value, metrics in found], shares)
            value = joint.item()
        self._steps += 1
        if self._strange or self._steps & (self._steps - 1) == 0:  # 1, 2, 4, 8, ...
            self._compare(pieces, shares)
        if step.reduce is not None:
            step.reduce(self.gradients)
        size = float(norm(self.vector.gradient))
        if step.sound(value, size):
            self.move(size)
        numbers = torch.from_numpy(np.array([value, size], np.float32)).unbind()
        return named(name_of(loss), *numbers) | metrics

    def _compare(self, pieces: list[Batch], shares: Tensor | None) -> None:
        """Now and then: whoever changes one of the two losses must hear of the other. Not at the first batch alone, where a policy is
        still the one that acted and nothing is clipped; and twice in a row, because rounding may cross the edge of a clip once."""
        losses = torch.stack([self.loss(piece)[0] for piece in pieces])
        loss = losses[0] if shares is None else (shares * losses).sum()
        theirs = torch.autograd.grad(loss, self.vector.parameters, allow_unused=True)
        pairs = [(a, torch.zeros_like(a) if b is None else b) for a, b in zip(self.gradients, theirs, strict=True)]
        apart, size = (torch.stack([x.norm() for x in every]).norm() for every in zip(*((a - b, b) for a, b in pairs)))
        self._strange = self._strange + 1 if apart > 0.01 * size + 1e-6 else 0
        if self._strange == 2:
            name = name_of(self.loss)
            raise AgentError(
                f"the gradient of {name} by rows is not that of the agent's own {name} (they differ by {float(apart / size):.1%}): one of "
                "them was changed. Change both, or use update='eager'"
            )

    def rows(self, batch: Batch, share: float) -> tuple[float, Metrics]:
        """(loss, metrics) of a batch; share times its gradient is added. Of no rows the loss is NaN, as any mean of nothing."""
        if 0 in batch.batch_size:
            return nan, {}
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found in the loss and the norm
            return self._rows(batch, share)

    def move(self, size: float) -> None:
        """Clip a gradient whose norm is `size`, and move."""
        (limit, bound), g = limits(self.optimizer), self.optimizer.param_groups[0]
        self.steps += 1
        count, (beta1, beta2) = float(self.steps[0]), g["betas"]
        adam(
            self.vector.value, self.vector.gradient, self.means, self.squares,
            min(1.0, limit / (size + 1e-6)) if limit < inf else 1.0, bound,
            float(g["lr"]) / (1 - beta1**count), 1 / (1 - beta2**count) ** 0.5, g["eps"], beta1, beta2, g["weight_decay"],
        )  # fmt: skip
