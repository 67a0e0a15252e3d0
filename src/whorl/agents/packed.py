"""The step of small networks without autograd: an agent's loss by rows, then clip and Adam on one flat vector. CPU, float32.

Which losses can, and how, stands in `packed_losses`. Why, and what it gains: docs/design/020.
"""

from __future__ import annotations

from math import inf
from typing import Any, Protocol

import numba
import numpy as np
import torch
from numba.core.errors import NumbaError
from torch.optim import Optimizer

from whorl.agents import packed_losses
from whorl.agents.agent import Agent
from whorl.agents.micro_batches import Batches, Weights, cut, joined
from whorl.agents.optimizers import adam_state, is_fused_adam, limits
from whorl.agents.step import Loss, OptimizerStep, name_of, named
from whorl.batch import Batch, Metrics
from whorl.errors import AgentError, BadInput, Incompatible
from whorl.nets.packed import Vector, adam, aligned, norm


class RowLoss(Protocol):
    """An agent's loss without autograd."""

    def __call__(self, batch: Batch, share: float) -> tuple[float, Metrics]:
        """(loss, metrics) of a batch, those of `agent.loss`; share * gradient is added to that of the vector."""


def pack(agent: Agent) -> None:
    """Lay the parameters of an agent, with the moments of its Adam, in flat vectors: from now on its steps are packed.

    To be called before anybody looks at the parameters' memory (actors do). Raises Incompatible, with the reason, for an agent whose
    loss nobody wrote by rows, whose networks are more than small MLPs on the CPU, or that does not step with a plain Adam.
    """
    own: Any = type(agent)
    owner: Any = next(cls for cls in own.__mro__ if "packed" in vars(cls))
    name = own.__name__
    if not agent.packed:
        raise Incompatible(f"{name} has no loss by rows")
    if owner.loss is not own.loss or owner.value is not own.value or "loss" in vars(agent):
        raise Incompatible(f"{name} changes the loss of {owner.__name__}")
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        raise Incompatible("numba is switched off (NUMBA_DISABLE_JIT)")
    try:
        norm(aligned(1))
    except NumbaError as failure:
        raise Incompatible(f"numba cannot compile here: {str(failure).splitlines()[0]}") from None
    agent.step.plan = PackedPlan(agent)


class PackedPlan:
    """Gradient, norm, clip and Adam of one optimizer whose parameters, moments and counters lie in flat vectors."""

    def __init__(self, agent: Agent):
        group = agent.optimizer.param_groups[0]
        parameters = group["params"]
        if not is_fused_adam(agent.optimizer):
            raise Incompatible(f"its optimizer is no plain Adam but {type(agent.optimizer).__name__}")
        if any(p.device.type != "cpu" or p.dtype != torch.float32 or not p.requires_grad for p in parameters):
            raise Incompatible("some of its parameters are no float32 on the CPU, or do not learn")
        self.loss, self.optimizer, self.group = agent.loss, agent.optimizer, group
        self.vector = Vector(parameters)
        try:
            self._rows: RowLoss = getattr(packed_losses, agent.packed)(agent, self.vector)
        except Incompatible:
            self.vector.undo()  # eager keeps its bits
            raise
        self.gradients = [torch.from_numpy(self.vector.like(p, self.vector.gradient)) for p in parameters]
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
        """As `OptimizerStep.eager`. Raises AgentError for another loss, and where the parameters were moved since."""
        if optimizer is not self.optimizer or loss != self.loss or not self.vector.holds():
            raise AgentError(
                "the parameters were moved since they were packed (a copy, another device), or it is another loss: "
                "pack the agent again, before anybody acts with it"
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
        if step.reduce is not None:
            step.reduce(self.gradients)
        size = float(norm(self.vector.gradient))
        if step.sound(value, size):
            self.move(size)
        return named(name_of(loss), torch.tensor(value), torch.tensor(size)) | metrics

    def rows(self, batch: Batch, share: float) -> tuple[float, Metrics]:
        """(loss, metrics) of a batch; share times its gradient is added."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found in the loss and the norm
            return self._rows(batch, share)

    def move(self, size: float) -> None:
        """Clip a gradient whose norm is `size`, and move."""
        (limit, bound), g = limits(self.optimizer), self.group
        self.steps += 1
        count, (beta1, beta2) = float(self.steps[0]), g["betas"]
        adam(
            self.vector.value, self.vector.gradient, self.means, self.squares,
            min(1.0, limit / (size + 1e-6)) if limit < inf else 1.0, bound,
            float(g["lr"]) / (1 - beta1**count), 1 / (1 - beta2**count) ** 0.5, g["eps"], beta1, beta2, g["weight_decay"],
        )  # fmt: skip
