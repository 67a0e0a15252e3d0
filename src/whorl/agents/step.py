"""One optimizer step: gradient, finite check, clip, step. The only place in the library with these."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf, isfinite
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_
from torch.optim import Optimizer
from torch.optim.adam import adam as adam_step

from whorl.agents.contract import blame, blame_metrics, kind_of, numbers
from whorl.agents.micro_batches import Batches, Weights, cut, joined
from whorl.agents.optimizers import FusedAdam, adam_state, is_fused_adam, limits
from whorl.batch import Batch, Buffer, Metrics
from whorl.errors import AgentError, BadInput, NotFinite, WhorlError
from whorl.feeds import Fed
from whorl.nets.walk import modules_in

if TYPE_CHECKING:
    from torch._dynamo.types import GuardFilterEntry

Loss = Callable[[Batch], tuple[Tensor, Metrics]]


class Plan(Protocol):
    """Steps of small networks without autograd, on one loss (agents/packed.py)."""

    loss: Loss

    def take(
        self, step: OptimizerStep, loss: Loss, optimizer: Optimizer, batches: Batches, weights: Weights
    ) -> Metrics:
        """As `OptimizerStep.eager`."""


class OptimizerStep(nn.Module):
    """The optimizer steps of one agent: eager, lean where the optimizer is a plain Adam; packed; or each as one compiled graph.

    `void`, a scalar, says whether a step went wrong: 0 none, 1 the loss, 2 the gradient was NaN or infinite. Such a step is not done,
    and no other is until somebody has set `void` to 0.
    `reduce`, where it is set, is called with the list of gradients before their norm is taken, and changes them in place: a mean over
    ranks. Set it before the first compiled step.
    `leaves` maps the id of an optimizer to where its gradients come from, if not its own parameters (asynchronous workers).
    """

    void: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("void", torch.zeros((), dtype=torch.float32), persistent=False)
        self.reduce: Callable[[list[Tensor]], None] | None = None
        self.leaves: dict[int, list[Tensor]] = {}
        self.plans: dict[int, Plan] = {}  # of packed steps, by the id of their optimizer (agents/packed.py)
        self.value: Callable[[Tensor], Tensor] | None = None  # packed, the agent's own: observations -> values
        self.forget()

    def forget(self) -> None:
        """Drop compiled graphs and lists of tensors; the next step makes them again."""
        self._graphs: dict[tuple, Callable[..., Metrics]] = {}
        self._lean: dict[int, FusedAdam] = {}

    def __getstate__(self) -> dict[str, object]:
        # they hold the memory of this one: a copy makes its own
        own: dict[str, object] = {"_graphs": {}, "_lean": {}, "plans": {}, "value": None}
        return {**self.__dict__, **own}

    def take(
        self, agent: nn.Module, loss: Loss, optimizer: Optimizer, batches: Batches, weights: Weights = None
    ) -> Metrics:
        """See `Agent.optimize`: compiled or packed where the agent is, else eager. Raises AgentError for a loss that does not give what it
        must."""
        try:
            if agent.compiled:
                return self.compiled(agent, loss, optimizer, batches, weights)
            if plan := self.plans.get(id(optimizer)):
                if loss == plan.loss:
                    return plan.take(self, loss, optimizer, batches, weights)
                own = f"{type(agent).__name__}.{name_of(loss)}"
                warnings.warn(f"{own} is not written by rows, so its steps are eager", stacklevel=2)
            return self.eager(loss, optimizer, batches, weights)
        except WhorlError:
            raise
        except Exception:
            blame(
                f"{type(agent).__name__}.{name_of(loss)}",
                loss,
                optimizer,
                batches[0] if isinstance(batches, list) else batches,
            )
            raise

    def eager(self, loss: Loss, optimizer: Optimizer, batches: Batches, weights: Weights = None) -> Metrics:
        """See `Agent.optimize`."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        leaves = self.leaves.get(id(optimizer), parameters)
        for p in parameters:
            p.grad = None
        pieces, shares = cut(batches, weights, self.void.device)
        if shares is None:
            value, metrics = loss(pieces[0])
            value.backward(inputs=leaves)
        else:
            results = []
            for piece, share in zip(pieces, shares):
                value, metrics = loss(piece)
                (share * value).backward(inputs=leaves)  # its graph is freed before the next one is built
                results.append((value.detach(), metrics))
            value, metrics = joined(results, shares)
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.reduce is not None:
            self.reduce(gradients)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        told = named(name_of(loss), value.detach(), norm) | {key: x.detach() for key, x in metrics.items()}
        (limit, bound), void = limits(optimizer), None
        if norm.is_cpu:  # where looking at two numbers costs less than computing with them
            if not self.sound(value.item(), norm.item()):
                return told
            limit = inf if norm.item() + 1e-6 <= limit else limit
        else:
            void = self.void.copy_(judge(self.void, value.detach(), norm)).clamp(max=1)
        if limit < inf:
            clip_grads_with_norm_(parameters, limit, norm)
        if bound < inf:
            clip_grad_value_(parameters, bound)
        if len(gradients) == len(parameters) and is_fused_adam(optimizer):
            lean = self._lean.get(id(optimizer))
            if lean is None or not lean.holds(optimizer):
                lean = self._lean[id(optimizer)] = FusedAdam(optimizer)
            lean.step(gradients, void)
        elif void is None or not void:
            optimizer.step()
        return told

    def sound(self, loss: float, norm: float) -> bool:
        """Whether the step may be done; what is wrong is noted."""
        bad = 1 if not isfinite(loss) else 2 if not isfinite(norm) else 0
        if bad and not self.void:
            self.void.fill_(bad)
        return not self.void

    def compiled(
        self, agent: nn.Module, loss: Loss, optimizer: Optimizer, batches: Batches, weights: Weights = None
    ) -> Metrics:
        """The same as one graph, for one Adam; `agent(loss, batch)` must be `loss(batch)`. A loss made anew is compiled anew."""
        from torch._dynamo.exc import BackendCompilerFailed, FailOnRecompileLimitHit  # as slow to import as torch

        pieces, shares = cut(batches, weights, self.void.device)
        # as many rows as episodes have: one graph for any number
        varied = cast(Fed, agent.config).feed.unit == "episode"
        key = loss, id(optimizer), len(pieces) if varied else tuple(piece.batch_size for piece in pieces)
        if key not in self._graphs:
            self._graphs[key] = self._compile(agent, loss, optimizer, varied)
        try:
            return self._graphs[key]([piece.to_dict() for piece in pieces], shares)
        except BackendCompilerFailed as failure:  # before anything of the step was done
            agent.compiled = False  # type: ignore[assignment]
            reason = str(failure).strip().splitlines()[0]
            warnings.warn(f"torch cannot compile here, so the steps are eager: {reason}", stacklevel=2)
            return self.eager(loss, optimizer, batches, weights)
        except FailOnRecompileLimitHit:
            raise AgentError(
                f"{type(agent).__name__}.{name_of(loss)} reads a plain value that changes each time, and a compiled step is made for one "
                f"value: keep it in a tensor (register_buffer), or use update='eager'"
            ) from None

    def _compile(self, agent: nn.Module, loss: Loss, optimizer: Optimizer, varied: bool) -> Callable[..., Metrics]:
        """Gradient, clip and Adam, writing into the weights and the state of an ordinary optimizer; varied: for any number of rows, else
        for those of the first call."""
        if type(optimizer) is not torch.optim.Adam or len(optimizer.param_groups) != 1:
            raise BadInput(f"compile=True needs one Adam with one parameter group, got {type(optimizer).__name__}")
        group = optimizer.param_groups[0]
        names = {id(p): name for name, p in agent.named_parameters()}
        weights = {names[id(p)]: p for p in group["params"]}
        state = adam_state(optimizer)
        (limit, bound), (beta1, beta2), rate = limits(optimizer), group["betas"], group["lr"]
        moved = [*weights.values(), *state[0], *state[1], *state[2]]
        reduce, name = self.reduce, name_of(loss)

        def gradient(batch: Mapping) -> tuple[dict[str, Tensor], tuple[Tensor, Metrics]]:
            return grad_and_value(lambda w: functional_call(agent, w, (loss, batch)), has_aux=True)(weights)

        def step(batches: list[Mapping], shares: Tensor | None) -> Metrics:
            with torch.no_grad():
                if shares is None:
                    named_gradients, (value, metrics) = gradient(batches[0])
                    gradients = list(named_gradients.values())
                else:
                    found = [gradient(batch) for batch in batches]
                    scaled = [[share * g for g in own.values()] for (own, _), share in zip(found, shares)]
                    gradients = [sum(parts[1:], parts[0]) for parts in zip(*scaled)]
                    value, metrics = joined([result for _, result in found], shares)
                if reduce is not None:
                    reduce(gradients)
                norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
                self.void.copy_(judge(self.void, value, norm))
                fine = self.void == 0
                scale = (limit / (norm + 1e-6)).clamp(max=1.0)
                clipped = [(g * scale).clamp(-bound, bound) for g in gradients]
                before = [x.clone() for x in moved]
                adam_step(
                    list(weights.values()), clipped, state[0], state[1], [], state[2],
                    foreach=True, capturable=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=rate,
                    weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
                )  # fmt: skip
                for x, old in zip(moved, before):  # a void step is taken back: the compiler makes this one pass
                    x.copy_(torch.where(fine, x, old))
                return named(name, value, norm) | metrics

        # torch would take a graph made for another vector unit out of its cache, and crash (docs/design/011)
        tags, own = torch.compiler.config, torch.backends.cpu.get_cpu_capability()
        tags.cache_key_tag += own if own not in tags.cache_key_tag else ""
        step.__code__ = step.__code__.replace()  # torch recompiles one code object 8 times at most: each has its own
        options: dict[str, str | int | bool | Callable] = {"guard_filter_fn": may_change}
        options["cpp.use_decompose_tanh"] = True  # by exp, up to 1e-7 off (docs/design/022-compiled.md)
        return torch.compile(step, fullgraph=True, dynamic=varied, options=options)


def may_change(guards: Sequence[GuardFilterEntry]) -> list[bool]:
    """Which of its assumptions a compiled step looks at each time: batches, plain values that a loss reads of its agent, torch's own
    state. The rest, several hundred, is modules, their parameters and functions: who changes those calls `forget`."""
    plain = ("CONSTANT_MATCH", "EQUALS_MATCH")
    return [
        guard.name.startswith(("batches", "shares"))
        or guard.guard_type in ("GLOBAL_STATE", "SHAPE_ENV")
        or (guard.guard_type in plain and not guard.is_global)
        for guard in guards
    ]


def mean(history: Sequence[Metrics]) -> Metrics:
    """Each metric's mean over the updates that have it. Raises AgentError for one that is no tensor of one number."""
    if len(history) <= 1:
        return dict(history[0]) if history else {}
    keys = list(history[0])
    try:
        if all(list(metrics) == keys for metrics in history):  # in one operation
            table = torch.stack([x for metrics in history for x in metrics.values()]).view(len(history), -1)
            return dict(zip(keys, table.mean(0).unbind(), strict=True))
        every = {key: [metrics[key] for metrics in history if key in metrics] for metrics in history for key in metrics}
        return {key: torch.stack(found).mean(0) for key, found in every.items()}
    except (TypeError, ValueError, RuntimeError):
        for metrics in history:
            blame_metrics("the update", metrics, single=True)
        raise


def finite(metrics: Metrics) -> dict[str, float]:
    """As JSON takes them; what is not finite is left out."""
    return {key: value for key, value in numbers(metrics).items() if isfinite(value)}


def given(metrics: object, agent: nn.Module) -> Metrics:
    """What an update gave. Raises AgentError unless it is a dict."""
    if not isinstance(metrics, dict):
        raise AgentError(
            f"{type(agent).__name__}.update must return its metrics, a dict of tensors, got {kind_of(metrics)}"
        )
    return metrics


def feed_back(buffer: Buffer, batch: Batch, priority: Tensor | None, agent: nn.Module) -> None:
    """Give the priorities [B] of an update to a prioritized buffer. Raises AgentError where the agent has none."""
    if not isinstance(priority, Tensor):
        name, came = (
            type(agent).__name__,
            "no 'priority' [B]" if priority is None else f"{kind_of(priority)} as 'priority' [B]",
        )
        raise AgentError(f"{name}.update gives {came}: return it, or use feed.prioritized=False")
    buffer.feedback(batch["index"], priority)


@contextmanager
def learning(module: nn.Module, env_steps: Tensor) -> Iterator[None]:
    """Train mode for a module and all inside it, and eval mode again: for those that do nothing else there (torch's own recursion costs
    more than a small network). Raises NotFinite at the end if a step inside was void, after so many environment steps."""
    parts = modules_in(module)
    for part in parts:
        part.__dict__["training"] = True
    try:
        yield
    finally:
        for part in parts:
            part.__dict__["training"] = False
    for step in [part for part in parts if type(part) is OptimizerStep and part.void]:
        what = "the loss" if step.void == 1 else "the gradient"
        step.void.zero_()  # whoever mends the cause may go on
        raise NotFinite(
            f"{what} became NaN or infinite after {int(env_steps):,} environment steps; the step was void and the "
            f"weights are those before it. Lower the learning rate, clip gradients, or look at the rewards' scale"
        )


def name_of(loss: Loss) -> str:
    """What a loss is called: its `__name__` or `name`, of a partial that of its function. Raises BadInput if it has none."""
    while isinstance(loss, partial):
        loss = loss.func
    name = getattr(loss, "__name__", None) or getattr(loss, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise BadInput(
            f"a loss needs a name of its own, for its metrics: give {name or type(loss).__name__} a `__name__` or a `name`"
        )
    return name


def named(name: str, value: Tensor, norm: Tensor) -> Metrics:
    """`loss` and `grad_norm`, or `critic_loss` and `critic_grad_norm`."""
    return {name: value, f"{name.removesuffix('loss')}grad_norm": norm}


def judge(void: Tensor, loss: Tensor, norm: Tensor) -> Tensor:
    """`void` if it is set already, else 1 for a bad loss, 2 for a bad gradient, 0 for none."""
    now = torch.where(loss.isfinite(), torch.where(norm.isfinite(), 0.0, 2.0), 1.0)
    return torch.where(void > 0, void, now)


def step_nowhere(optimizer: Optimizer) -> None:
    """Makes the tensors that an optimizer keeps, by a step without gradient. Of a plain Adam they are known, and its own step would
    import the compiler."""
    if is_fused_adam(optimizer) and not optimizer.param_groups[0]["amsgrad"]:
        adam_state(optimizer)
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
