"""The only base class of agents: prepare a rollout, a pure loss, one optimizer step, learn from a buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import Any, ClassVar, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm
from torch.optim.adam import adam as adam_step

from whorl.batch import get
from whorl.errors import BadInput, NotFinite
from whorl.functional.streams import stream
from whorl.policies.policy import Policy

Metrics = dict[str, Tensor]
Loss = Callable[[Any], tuple[Tensor, Metrics]]


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
        self._lists: dict = {}  # what `_fused_step` has made of an optimizer
        self._parts: list[nn.Module] = []
        self.eval()

    @classmethod
    def build(cls, observation_space: spaces.Space, action_space: spaces.Space, config: Any) -> Agent:
        """The agent with its default parts for these spaces. Raises Incompatible(reason) when it cannot work there."""
        raise NotImplementedError

    def prepare(self, rollout: Any) -> Any:
        """Once per rollout [T, N]: count its steps and gather observation statistics. Agents add returns, advantages, ..."""
        mask = get(rollout, "mask")
        self.env_steps += rollout.numel() if mask is None else mask.sum()
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
            if prioritized:
                buffer.feedback(batch["index"], priority)
            history.append(metrics)
            if self.enough(metrics):
                break
        self._mode(False)
        if self._void:
            what = "the loss" if self._void == 1 else "the gradient"
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
                self._graphs[key] = _compile(self, loss, optimizer)
            return self._graphs[key](batch.to_dict())
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for p in parameters:
            p.grad = None
        value, metrics = loss(batch)
        value.backward(inputs=parameters)
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = get_total_norm(gradients)
        self._void.copy_(_judge(self._void, value.detach(), norm))
        if self.max_grad_norm < float("inf"):
            clip_grads_with_norm_(parameters, self.max_grad_norm, norm)
        if self.clip_value < float("inf"):
            clip_grad_value_(parameters, self.clip_value)
        if len(gradients) == len(parameters) and _is_fused_adam(optimizer):
            self._fused_step(optimizer, parameters, gradients)
        elif optimizer.defaults.get("fused"):
            optimizer.found_inf = self._void.clamp(max=1)  # type: ignore[attr-defined]  # fused kernels skip the step by themselves: no host sync
            optimizer.step()
        elif not self._void:
            optimizer.step()
        return _named(loss, value.detach(), norm) | {k: v.detach() for k, v in metrics.items()}

    @torch.no_grad()
    def _fused_step(self, optimizer: torch.optim.Optimizer, parameters: list, gradients: list) -> None:
        """optimizer.step() with the same bits and a quarter of its overhead: its lists are made once."""
        lists = self._lists.get(id(optimizer))
        if lists is None or any(optimizer.state[p]["step"] is not step for p, step in zip(parameters, lists[2])):
            lists = self._lists[id(optimizer)] = _adam_state(optimizer)
        group, void = optimizer.param_groups[0], self._void.clamp(max=1)
        torch._foreach_add_(lists[2], 1 - void)
        torch._fused_adam_(
            parameters, gradients, lists[0], lists[1], [], lists[2], lr=group["lr"], beta1=group["betas"][0],
            beta2=group["betas"][1], weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
            grad_scale=None, found_inf=void,
        )  # fmt: skip

    @property
    def max_grad_norm(self) -> float:
        return getattr(self.config, "max_grad_norm", 0.0) or float("inf")

    @property
    def clip_value(self) -> float:
        return getattr(self.config, "clip_value", 0.0) or float("inf")

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


def _named(loss: Loss, value: Tensor, norm: Tensor) -> Metrics:
    name = loss.__name__
    return {name: value, f"{name.removesuffix('loss')}grad_norm": norm}


def _judge(void: Tensor, loss: Tensor, norm: Tensor) -> Tensor:
    """`void` if it is set already, else 1 for a bad loss, 2 for a bad gradient, 0 for none."""
    now = torch.where(loss.isfinite(), torch.where(norm.isfinite(), 0.0, 2.0), 1.0)
    return torch.where(void > 0, void, now)


def _is_fused_adam(optimizer: torch.optim.Optimizer) -> bool:
    """One group of plain, fused Adam."""
    o = optimizer.defaults
    plain = type(optimizer) is torch.optim.Adam and len(optimizer.param_groups) == 1
    return plain and bool(o["fused"]) and not (o["amsgrad"] or o["maximize"] or o["decoupled_weight_decay"])


def _adam_state(optimizer: torch.optim.Optimizer) -> list[list[Tensor]]:
    """Adam's first moments, second moments and step counters, made where no step was taken yet."""
    parameters = optimizer.param_groups[0]["params"]
    for p in parameters:
        if not optimizer.state[p]:
            zeros = lambda p=p: torch.zeros_like(p, memory_format=torch.preserve_format)  # noqa: E731
            optimizer.state[p] = {"step": torch.zeros((), device=p.device), "exp_avg": zeros(), "exp_avg_sq": zeros()}
    return [[optimizer.state[p][key] for p in parameters] for key in ("exp_avg", "exp_avg_sq", "step")]


def _mean(history: list[Metrics]) -> Metrics:
    if len(history) <= 1:
        return dict(history[0]) if history else {}
    keys = list(history[0])
    table = torch.stack([metrics[key] for metrics in history for key in keys]).view(len(history), -1)
    return dict(zip(keys, table.mean(0).unbind(), strict=True))


def _compile(agent: Agent, loss: Loss, optimizer: torch.optim.Optimizer) -> Callable[[Mapping], Metrics]:
    """Gradient, clip and Adam as one graph, writing into the weights and the state of an ordinary optimizer."""
    if type(optimizer) is not torch.optim.Adam or len(optimizer.param_groups) != 1:
        raise BadInput(f"compile=True needs one Adam with one parameter group, got {type(optimizer).__name__}")
    group = optimizer.param_groups[0]
    name_of = {id(p): name for name, p in agent.named_parameters()}
    weights = {name_of[id(p)]: p for p in group["params"]}
    state = _adam_state(optimizer)
    limit, bound, (beta1, beta2), rate = agent.max_grad_norm, agent.clip_value, group["betas"], group["lr"]

    def step(batch: Mapping) -> Metrics:
        with torch.no_grad():
            objective = lambda weights: functional_call(agent, weights, (loss, batch))  # noqa: E731
            gradients, (value, metrics) = grad_and_value(objective, has_aux=True)(weights)
            squares = torch.stack([g.square().sum() for g in gradients.values()])
            norm = squares.sum().sqrt()
            agent._void.copy_(_judge(agent._void, value, norm))
            fine = agent._void == 0
            scale = (limit / (norm + 1e-6)).clamp(max=1.0)
            clipped = [
                torch.where(fine, (g * scale).clamp(-bound, bound), torch.zeros_like(g)) for g in gradients.values()
            ]
            adam_step(
                list(weights.values()), clipped, state[0], state[1], [], state[2],
                foreach=True, capturable=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=rate * fine,
                weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
            )  # fmt: skip
            return _named(loss, value, norm) | metrics

    step.__code__ = step.__code__.replace()  # torch recompiles one code object 8 times at most: each agent has its own
    return torch.compile(step, fullgraph=True)
