"""The only base class of agents: prepare a rollout, a pure loss, one optimizer step, learn from a buffer."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite
from typing import Any, ClassVar, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_

from whorl.agents.optimizers import FusedAdam, compiled_step, is_fused_adam, judge, named
from whorl.agents.optimizers import adam as adam
from whorl.batch import get
from whorl.errors import NotFinite
from whorl.functional.streams import stream
from whorl.policies.policy import Policy

Metrics = dict[str, Tensor]
Loss = Callable[[Any], tuple[Tensor, Metrics]]


class Agent(nn.Module):
    """An algorithm: what it acts with (`policy`), what it learns with (its other parts and optimizers), and how.

    Constructors take finished parts; `build` makes the default ones. No agent inherits from another agent.
    """

    Config: ClassVar[type]  # the frozen dataclass of its settings
    reads: ClassVar[frozenset[str]] = frozenset()  # costly batch keys it wants, such as "next.action"
    uncompiled: ClassVar[str] = ""  # why it cannot be compiled, if it cannot
    env_steps: Tensor
    _void: Tensor
    optimizer: torch.optim.Optimizer

    def __init__(self, policy: Policy, config: Any):
        super().__init__()
        self.policy, self.config = policy, config
        self.compiled = False  # set by `compile=True`: every optimizer step is one compiled graph
        self.report: Metrics = {}  # what `prepare` wants logged
        self.seed = 0  # of the learning stream
        self.register_buffer("env_steps", torch.zeros((), dtype=torch.int64))
        self.updates = 0  # counted by the `update` of agents that draw `noise` or have targets; saved with the state
        self.register_buffer("_void", torch.zeros(()), persistent=False)  # 0 fine, 1 loss, 2 gradient was not finite
        self._generator: torch.Generator | None = None
        self._moments: list = []
        self._graphs: dict = {}
        self._lean: dict[int, FusedAdam] = {}
        self.leaves: dict[
            int, list
        ] = {}  # id(optimizer) -> where its gradients come from, if not its own parameters (hogwild)
        self._parts: list[nn.Module] = []
        self.eval()

    @classmethod
    def build(cls, observation_space: spaces.Space, action_space: spaces.Space, config: Any) -> Agent:
        """The agent with its default parts for these spaces. Raises Incompatible(reason) when it cannot work there."""
        raise NotImplementedError

    def prepare(self, rollout: Any) -> Any:
        """Once per rollout [T, N]: count its steps and gather observation statistics. Agents add returns, advantages, ..."""
        mask = get(rollout, "mask")
        self.env_steps.add_(rollout.numel() if mask is None else mask.sum())
        self._moments = self.policy.normalizer.moments(rollout["observation"], mask)
        return rollout

    def loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        """The maths: a scalar and its parts. Pure: parameters, buffers and batch in."""
        raise NotImplementedError

    def update(self, batch: Any) -> Metrics:
        """One gradient step on a batch; detached tensors back, never `.item()`."""
        return self.optimize(self.loss, self.optimizer, batch)

    def noise(self, shape: tuple[int, ...], kind: Literal["normal", "uniform"] = "normal") -> Tensor:
        """The random numbers of this update, float32 [*shape], from the stream (seed, "learning", updates).

        `update` asks once and puts them into batch["noise"], where the losses read them; the next numbers come when it has
        counted `updates` up.
        """
        if self._generator is None or self._generator.device != self.env_steps.device:
            self._generator = torch.Generator(self.env_steps.device)
        self._generator.manual_seed(stream(self.seed, "learning", self.updates))
        draw = torch.randn if kind == "normal" else torch.rand
        return draw(shape, generator=self._generator, device=self._generator.device)

    def enough(self, metrics: Metrics) -> bool:
        """Whether to skip the batches that are left of this rollout (PPO's KL stop)."""
        return False

    def learn(self, buffer: Any) -> Metrics:
        """Every batch that is due, then move the observation statistics. Raises NotFinite before anything is logged or saved."""
        self._mode(True)
        history = []
        prioritized = getattr(self.config.feed, "prioritized", False)
        for batch in buffer.batches():
            metrics = self.update(batch)
            priority = metrics.pop("priority", None)
            if prioritized and not self._void:
                buffer.feedback(batch["index"], priority)
            history.append(metrics)
            if self.enough(metrics):
                break
        self._mode(False)
        if self._void:
            what = "the loss" if self._void == 1 else "the gradient"
            self._void.zero_()  # whoever mends the cause may go on
            raise NotFinite(
                f"{what} became NaN or infinite after {int(self.env_steps):,} environment steps; the step was void and the "
                f"weights are those before it. Lower the learning rate, clip gradients, or look at the rewards' scale"
            )
        moments, self._moments = self._moments, []  # each rollout moves the statistics once
        if moments:
            self.policy.normalizer.merge(moments)
        return {**_mean(history), **self.report}

    def _mode(self, training: bool) -> None:
        """`train` or `eval`, for modules that do nothing else there: their own recursion costs more than a small network."""
        self._parts = self._parts or list(self.modules())
        for part in self._parts:
            part.__dict__["training"] = training

    def optimize(self, loss: Loss, optimizer: torch.optim.Optimizer, batch: Any) -> Metrics:
        """Gradient, finite check, clip, step: the only place in the library with these. Final.

        Only the optimizer's own parameters get gradients. Metrics are named after the loss: `loss` and `grad_norm`, or
        `critic_loss` and `critic_grad_norm`. A step whose loss or gradient norm is not finite is void, and so are all that
        follow it until `learn` has raised.
        """
        if self.compiled:
            key = (loss.__name__, id(optimizer))
            if key not in self._graphs:
                self._graphs[key] = compiled_step(self, loss, optimizer)
            return self._graphs[key](batch.to_dict())
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for p in parameters:
            p.grad = None
        value, metrics = loss(batch)
        value.backward(inputs=self.leaves.get(id(optimizer), parameters))
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        limit, void = self.max_grad_norm, None
        if norm.is_cpu:  # where looking at two numbers costs less than computing with them
            bad = 1 if not isfinite(value.item()) else 2 if not isfinite(norm.item()) else 0
            if bad and not self._void:
                self._void.fill_(bad)
            if self._void:
                return named(loss, value.detach(), norm) | {k: v.detach() for k, v in metrics.items()}
            limit = inf if norm.item() + 1e-6 <= limit else limit
        else:
            void = self._void.copy_(judge(self._void, value.detach(), norm)).clamp(max=1)
        if limit < inf:
            clip_grads_with_norm_(parameters, limit, norm)
        if self.clip_value < inf:
            clip_grad_value_(parameters, self.clip_value)
        if len(gradients) == len(parameters) and is_fused_adam(optimizer):
            lean = self._lean.get(id(optimizer))
            if lean is None or not lean.holds(optimizer):
                lean = self._lean[id(optimizer)] = FusedAdam(optimizer)
            lean.step(gradients, void)
        elif void is None or not void:
            optimizer.step()
        return named(loss, value.detach(), norm) | {k: v.detach() for k, v in metrics.items()}

    @property
    def max_grad_norm(self) -> float:
        return getattr(self.config, "max_grad_norm", 0.0) or inf

    @property
    def clip_value(self) -> float:
        return getattr(self.config, "clip_value", 0.0) or inf

    def anneal(self, optimizer: torch.optim.Optimizer, done: Tensor | None = None, over: int = 0) -> None:
        """Learning rate falling linearly from `config.learning_rate` to 0 over `config.anneal_steps` environment steps.

        done, over: count something else, `done` of it until now, on the way to `over`.
        """
        done, over = (self.env_steps, self.config.anneal_steps) if done is None else (done, over)
        left = 1.0 if not over else max(0.0, 1 - int(done) / over)
        for group in optimizer.param_groups:
            group["lr"].fill_(self.config.learning_rate * left)
        self.report["learning_rate"] = optimizer.param_groups[0]["lr"].clone()

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By attribute name; what a checkpoint saves beside `state_dict`."""
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.optim.Optimizer)}

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Tensor) -> None:
        self.updates = int(state)

    def forward(self, loss: Loss, batch: Any) -> tuple[Tensor, Metrics]:
        """`functional_call` enters a module through its forward, so this is the door to `loss` with other parameters."""
        return loss(batch)


def _mean(history: list[Metrics]) -> Metrics:
    if len(history) <= 1:
        return dict(history[0]) if history else {}
    keys = list(history[0])
    table = torch.stack([metrics[key] for metrics in history for key in keys]).view(len(history), -1)
    return dict(zip(keys, table.mean(0).unbind(), strict=True))
