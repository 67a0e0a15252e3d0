"""The only base class of agents: prepare a rollout, a pure loss, one optimizer step, learn from a buffer."""

from __future__ import annotations

from typing import ClassVar, Generic, Literal, TypeVar

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.optim import Optimizer

from whorl.agents.micro_batches import Batches, Weights
from whorl.agents.optimizer_states import load_optimizer_states, optimizer_states, optimizers_in
from whorl.agents.step import Loss, OptimizerStep, feed_back, finite, given, learning, mean
from whorl.batch import Arrays, Batch, Buffer, Metrics, Numbers, State, Tree, get
from whorl.errors import AgentError
from whorl.feeds import Fed
from whorl.functional.streams import stream
from whorl.nets.encoder import EncoderFactory
from whorl.policies.policy import Policy

C = TypeVar("C", bound=Fed)


class Agent(nn.Module, Generic[C]):
    """An algorithm: what it acts with (`policy`), what it learns with (its other parts and optimizers), and how.

    Constructors take finished parts; `build` makes the default ones. No agent inherits from another agent; one may hold others.
    `seed` (of the learning stream) and `compiled` (each optimizer step is one graph), set on an agent, reach those that it holds.
    """

    Config: ClassVar[type]  # the frozen dataclass of its settings
    reads: ClassVar[frozenset[str]] = frozenset()  # costly batch keys it wants, such as "next.action"
    packed: ClassVar[str] = ""  # its losses by rows, for small networks: a file of this folder, and a function there
    uncompiled: ClassVar[str] = ""  # why it cannot be compiled, if it cannot
    env_steps: Tensor
    optimizer: Optimizer

    def __init__(self, policy: Policy, config: C):
        super().__init__()
        self.policy, self.config = policy, config
        self.report: Metrics = {}  # what `prepare` wants logged
        self.register_buffer("env_steps", torch.zeros((), dtype=torch.int64))
        self.step = OptimizerStep()
        # updates: counted by the `update` of agents that draw `noise` or have targets; saved with the state
        self.updates, self.seed, self.compiled = 0, 0, False
        self.gathered: list[tuple] = []  # (normalizer, moments) of the rollout, for `learn` to merge
        self.eval()

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: C, *, encoder: EncoderFactory | None = None
    ) -> Agent[C]:  # fmt: skip
        """The agent with its default parts for these spaces; encoder: makes the network that looks at observations, one for the policy
        and one for the critic. Raises Incompatible(reason) when it cannot work there, or has no place for an encoder."""
        raise AgentError(f"{cls.__name__} has no `build`: it makes its parts for an observation and an action space")

    def prepare(self, rollout: Batch) -> Batch:
        """Once per rollout [T, N]: count its steps and gather observation statistics. Agents add returns, advantages, ..."""
        mask = get(rollout, "mask")
        self.env_steps.add_(rollout.numel() if mask is None else mask.sum())
        normalizer = self.policy.normalizer
        self.gathered[:] = [(normalizer, normalizer.moments(rollout["observation"], mask))]
        return rollout

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """The maths: a scalar and its parts. Pure: parameters, buffers and batch in."""
        raise AgentError(f"{type(self).__name__} has no `loss`: loss(batch) -> (one number, a dict of tensors)")

    def value(self, observation: Tree) -> Tensor | None:
        """What it takes observations [N, ...] to be worth, [N]; None: it values nothing."""
        return None

    def update(self, batch: Batch) -> Metrics:
        """One gradient step on a batch; detached numbers back, never `.item()`.

        What is no metric it pops, but for "priority" [B], which `learn` hands to a prioritized buffer.
        """
        return self.optimize(self.loss, self.optimizer, batch)

    def noise(self, shape: tuple[int, ...], kind: Literal["normal", "uniform"] = "normal", name: str = "") -> Tensor:
        """The random numbers of this update, float32 [*shape], from the stream (seed, "learning", updates, name).

        `update` asks once, or with a name for each, and puts them into the batch, where the losses read them; the next numbers come
        when it has counted `updates` up.
        """
        seed = stream(self.seed, f"learning {name}" if name else "learning", self.updates)
        generator = torch.Generator(self.env_steps.device).manual_seed(seed)
        draw = torch.randn if kind == "normal" else torch.rand
        return draw(shape, generator=generator, dtype=torch.float32, device=generator.device)

    def enough(self, metrics: Metrics) -> bool:
        """Whether to skip the batches that are left of this rollout (PPO's KL stop)."""
        return False

    def learn(self, buffer: Buffer, count: int | None = None) -> Metrics:
        """Every batch that is due, or `count` of them, then move the statistics of what was prepared.

        Each metric is the mean over the updates that have it. Raises NotFinite before anything is logged or saved, AgentError for a
        prioritized feed whose agent gives no priorities.
        """
        history, prioritized = [], self.config.feed.prioritized
        with learning(self, self.env_steps):
            for batch in buffer.batches(count):
                metrics = given(self.update(batch), self)
                priority = metrics.pop("priority", None)
                if prioritized and not self.step.void:
                    feed_back(buffer, batch, priority, self)
                history.append(metrics)
                if self.enough(metrics):
                    break
        for normalizer, moments in self.gathered:
            normalizer.merge(moments)
        self.gathered.clear()  # each rollout moves the statistics once
        return {**mean(history), **self.report}

    def optimize(self, loss: Loss, optimizer: Optimizer, batches: Batches, weights: Weights = None) -> Metrics:
        """Gradient, finite check, clip, step. Final: `agents/step.py` does it, the only place in the library with these.

        batches: one, or a list of micro-batches, whose graphs are there one at a time: the gradient is sum w_i g_i / sum w_i, with the
        rows that count as weights where none are given, and metrics are means with the same weights.
        Only the optimizer's own parameters get gradients; how far these may go, its parameter group says (`optimizers.limits`).
        Metrics are named after the loss: `loss` and `grad_norm`, or `critic_loss` and `critic_grad_norm`. A step whose loss or
        gradient norm is not finite is void, and so are all that follow it until `learn` has raised.
        """
        return self.step.take(self, loss, optimizer, batches, weights)

    def agents(self) -> dict[str, Agent]:
        """This agent, named "", and those that it holds, by the names of their attributes."""
        return {name: module for name, module in self.named_modules() if isinstance(module, Agent)}

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)  # type: ignore[arg-type]
        if name in ("seed", "compiled"):
            for inner, agent in self.agents().items():  # each draws numbers of its own
                agent.__dict__[name] = stream(self.seed, f"agent {inner}") if inner and name == "seed" else value

    def optimizers(self) -> dict[str, Optimizer]:
        """By attribute name; of an agent inside this one "inner.optimizer"."""
        return optimizers_in(self)

    def state(self) -> State:
        """(arrays, numbers) of all but the policy, which speaks for itself: modules, optimizers, reports."""
        arrays, groups = optimizer_states(self.optimizers())
        own = {key: value for key, value in self.state_dict().items() if not key.startswith("policy.")}
        reports = {name: finite(agent.report) for name, agent in self.agents().items()}
        return own | arrays, {"optimizers": groups, "report": reports}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Go on from `state()`, in place and to the same bits. Raises BadInput for optimizers of other parameters."""
        own = load_optimizer_states(self.optimizers(), arrays, numbers["optimizers"])
        self.load_state_dict({**own, **{f"policy.{key}": value for key, value in self.policy.state_dict().items()}})
        for name, agent in self.agents().items():
            agent.report = {key: torch.tensor(value) for key, value in numbers["report"][name].items()}
        return True

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Tensor) -> None:
        self.updates = int(state)

    def forward(self, loss: Loss, batch: Batch) -> tuple[Tensor, Metrics]:
        """`functional_call` enters a module through its forward, so this is the door to `loss` with other parameters."""
        return loss(batch)
