"""TD(lambda): Sarsa, Expected Sarsa, Q-learning, true online, and prediction. Sutton and Barto 2018, chapters 6, 7, 10, 12.

Maths: functional/traces.py; one step of it: td_kernel.py; of a network: td_network.py. Deviations: docs/algorithms/td.md
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from whorl import dynamo
from whorl.agents.agent import Agent
from whorl.agents.td_kernel import (
    EXPECTED_SARSA,
    NAIVE_Q_LEARNING,
    PREDICTION,
    Q_LEARNING,
    SARSA,
    Coder,
    Hashing,
    Learner,
    Rates,
    Row,
    Rule,
    Scratch,
    Steps,
    learn_rows,
)
from whorl.agents.td_network import HOPELESS, TraceDescent, future_value
from whorl.batch import Batch, Buffer, Metrics, Tree, get
from whorl.errors import BadInput, Damaged, Incompatible, NotFinite
from whorl.feeds import Stream
from whorl.functional.kernels.cached import bound
from whorl.functional.traces import ACCUMULATING, DUTCH, REPLACING, SCALE, Traces, sound
from whorl.nets.encoder import EncoderFactory, encoder_for, refuse
from whorl.nets.linear_q import LinearQ
from whorl.nets.mlp import linear
from whorl.nets.tile_coding import HASHED, Features, OneHot, Raw, TileCoding
from whorl.options import Amount, Bounds, Count, Positive, Share
from whorl.policies.exploration import EPSILON, row_of
from whorl.policies.greedy import Greedy, discrete

TARGETS = {
    "sarsa": SARSA,
    "expected_sarsa": EXPECTED_SARSA,
    "q_learning": Q_LEARNING,
    "naive_q_learning": NAIVE_Q_LEARNING,
    "prediction": PREDICTION,
}
KINDS = {"accumulating": ACCUMULATING, "replacing": REPLACING, "dutch": DUTCH}


@dataclass(frozen=True)
class TDConfig:
    """Defaults: Sarsa(0.9) with replacing traces on 8 tilings, each step half way to its target."""

    # V' of the TD error; q_learning cuts the traces after an exploratory action (Watkins), naive does not
    target: Literal["sarsa", "expected_sarsa", "q_learning", "naive_q_learning", "prediction"] = "sarsa"
    # dutch: true online TD(lambda)
    trace: Literal["accumulating", "replacing", "dutch"] = "replacing"
    # lambda
    trace_decay: Annotated[float, Share] = 0.9
    # replacing traces: 0 for the other actions of the state (Singh and Sutton 1996)
    clear_other_actions: bool = False
    # alpha, of each weight: 0.5 / 8 tilings moves a value half way to its target
    learning_rate: Annotated[float, Amount] = 0.0625
    # gamma, per environment step
    discount: Annotated[float, Share] = 1.0

    exploration: Literal["epsilon_greedy", "softmax"] = "epsilon_greedy"
    # share of uniform actions
    epsilon: Annotated[float, Share] = 0.1
    # epsilon's factor at each step
    epsilon_decay: Annotated[float, Share] = 1.0
    # where it stops
    epsilon_min: Annotated[float, Share] = 0.0
    # of softmax, in units of the return
    temperature: Annotated[float, Positive] = 1.0
    # auto: a table for Discrete observations, else tile coding
    model: Literal["auto", "table", "linear", "tile_coding", "mlp"] = "auto"
    # grids of the tile coding
    tilings: Annotated[int, Bounds(1, sizes="tables")] = 8
    # per dimension and grid
    tiles: Annotated[int, Bounds(1, sizes="bins")] = 8
    # slots of a tiling whose tiles are hashed; 0 = one for each tile
    memory: Annotated[int, Bounds(0, sizes="slots")] = 0
    # a feature that is always on
    bias: bool = False
    # box of the tile coding; () = the bounds of the observation space
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    # of every linear value before anything is learned; above what can be earned, it explores
    initial_value: float = 0.0
    # units of each hidden layer (mlp)
    hidden: Annotated[tuple[int, ...], Count] = (64,)
    # (mlp)
    activation: Literal["tanh", "relu"] = "tanh"

    feed: Stream = Stream()


class TD(Agent[TDConfig]):
    """One update at each step, from (s, a, r, s', a'). The policy chooses a' before the update, and it is taken next.

    A time limit does not end the bootstrap; it ends the traces, as a terminal state does, after the update.
    """

    Config = TDConfig
    reads = frozenset({"next.action"})
    optimizer: Any = None
    policy: Any
    critic: Any
    td_error: Tensor
    traces_slot: Tensor
    traces_numbers: Tensor
    collisions: Tensor
    scale: Tensor

    def __init__(self, policy: Greedy, config: TDConfig = TDConfig(), critic: nn.Module | None = None):
        """critic: what is learned, when it is not the policy's own `q` (prediction of a policy's values)."""
        super().__init__(policy, config)
        self.critic = policy.q if critic is None else critic
        c, linear_values = config, isinstance(self.critic, LinearQ)
        self._linear, self._target = linear_values, TARGETS[config.target]
        if c.trace == "dutch" and c.target not in ("sarsa", "prediction"):
            raise Incompatible(f"true online TD (trace 'dutch') is for sarsa and prediction, not {c.target}")
        if c.trace == "replacing" and c.trace_decay and linear_values and not self.critic.features.binary:
            raise Incompatible("replacing traces are for features that are on or off; use accumulating or dutch")
        if c.clear_other_actions and (c.trace != "replacing" or c.target == "prediction"):
            raise Incompatible("clear_other_actions is for replacing traces of action values: leave it out")
        if not linear_values and c.trace != "accumulating" and c.trace_decay:
            raise Incompatible(f"a network's traces are accumulating, not {c.trace} (or set trace_decay 0)")
        self.td_error = torch.zeros((), dtype=torch.float64)
        self.metrics = {"td_error": self.td_error, "epsilon": policy.exploration[EPSILON]}
        if linear_values:
            slots = self.critic.features.size if self.critic.features.kind == HASHED else 0
            self.register_buffer("owner", torch.zeros(slots, dtype=torch.int64))  # whose tile came to a slot first
            self.register_buffer("shared", torch.zeros(slots, dtype=torch.bool))  # slots that more than one tile uses
            self.register_buffer("collisions", torch.zeros(1, dtype=torch.int64))  # how many these are
            if slots:
                self.metrics["collisions"] = self.collisions[0]
            self._allocate(1)
        else:
            self.register_buffer("scale", torch.ones((), dtype=torch.float64))  # largest |reward|, at least 1
            rates = c.learning_rate, c.discount * c.trace_decay
            self.optimizer = dynamo.make(TraceDescent, self.critic.parameters(), *rates)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: TDConfig, *, encoder: EncoderFactory | None = None
    ) -> TD:  # fmt: skip
        c, actions = config, discrete(action_space)

        def values(outputs: int) -> nn.Module:
            if c.model == "mlp":
                model: Any = encoder_for(observation_space, encoder, c.hidden, c.activation)
                return nn.Sequential(model, linear(model.width, outputs, gain=1.0))
            refuse(encoder, f"td's model {c.model!r} is linear in its features (model 'mlp' takes one)")
            return LinearQ(features_of(observation_space, c), outputs, c.initial_value)

        if c.target == "prediction":  # of the uniformly random policy
            return cls(Greedy(values(actions), action_space, epsilon=1.0), c, values(1))
        return cls(Greedy(values(actions), action_space, c.exploration, c.epsilon, c.temperature), c)

    def value(self, observation: Tree) -> Tensor:
        """V(s) of a prediction, else max_a q(s, a)."""
        return self.critic(self.policy.normalizer(observation)).max(-1).values.float()

    def _allocate(self, num_envs: int) -> None:
        for name, array in Traces.empty(self.critic.weight.numel())._asdict().items():
            self.register_buffer(f"traces_{name}", torch.from_numpy(np.repeat(array[None], num_envs, 0)))
        self.traces_numbers[:, SCALE] = abs(
            self.config.initial_value
        )  # a TD error is large beside this, or the rewards
        self._views: tuple[Batch | None, Callable[[], int]] = (None, int)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        if self._linear and f"{prefix}traces_slot" in state_dict:
            saved = Traces(*(state_dict[f"{prefix}traces_{name}"].numpy() for name in Traces._fields))
            like = Traces.empty(self.critic.weight.numel())
            alike = all(x.shape[1:] == y.shape and x.dtype == y.dtype for x, y in zip(saved, like, strict=True))
            if not alike or len({len(x) for x in saved}) > 1 or not all(map(sound, map(Traces, *saved))):
                raise Damaged("the saved traces are not what td writes: it was changed")
            if len(saved.slot) != len(self.traces_slot):
                self._allocate(len(saved.slot))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def learner(self) -> Learner:
        """All that `td_step` and `claim` read and write beside a row, as numpy views of this agent's buffers."""
        c, f, array = self.config, self.critic.features, lambda name: self.get_buffer(name).numpy()
        return Learner(
            Coder(f.kind, f.table.numpy(), f.slots, f.size),
            self.critic.weight.view(-1).numpy(),
            Traces(*(array(f"traces_{name}") for name in Traces._fields)),
            Hashing(*map(array, Hashing._fields)),
            Rule(self._target, KINDS[c.trace], c.clear_other_actions),
            Rates(
                *map(float, (c.learning_rate, c.discount, c.discount * c.trace_decay, c.epsilon_decay, c.epsilon_min))
            ),
            self.policy.exploration.numpy(),
        )

    def prepare(self, rollout: Batch) -> Batch:  # [1, N]
        if not self._linear:
            return super().prepare(rollout)
        if self._views[0] is not rollout:  # a stream is one memory, written again at each step: look into it once
            self._views = rollout, self._look(rollout)
        return rollout

    def _look(self, rollout: Batch) -> Callable[[], int]:
        """`learn_rows` with its arguments."""
        next, n, actions = rollout["next"], rollout.shape[1], self.policy.actions
        if n != len(self.traces_slot):
            self._allocate(n)
        rows = lambda x: x[0].numpy().reshape(n, -1)  # noqa: E731
        row = lambda x: x[0].numpy()  # noqa: E731
        mask, allowed, first = (get(rollout, key) for key in ("mask", "next.action_mask", "is_first"))
        every = np.ones((n, actions), bool)
        steps = Steps(
            observation=rows(rollout["observation"]),
            action=row(rollout["action"]),
            reward=row(next["reward"]),
            terminated=row(next["terminated"]),
            truncated=row(next["truncated"]),
            mask=every[:, 0] if mask is None else row(mask),
            is_first=~every[:, 0] if first is None else row(first),
            next_observation=rows(next["observation"]),
            next_action=row(next["action"]),
            allowed=every if allowed is None else rows(allowed),
        )
        f = self.critic.features
        scratch = Scratch(Row(*row_of(f)), Row(*row_of(f)), np.zeros(self.critic.actions), np.zeros(actions))
        return bound(learn_rows, steps, self.learner(), scratch, self.td_error.numpy(), self.env_steps.numpy())

    def update(self, batch: Batch) -> Metrics:  # [1, N]
        if not self._linear:
            return self._update_network(batch)
        held, learn = self._views
        bad = learn() if batch is held else self._look(batch)()
        if bad >= 0:
            raise self.diverged(bad)
        return self.metrics

    def diverged(self, env: int) -> NotFinite:
        """What to raise when the values of environment `env` were about to diverge."""
        return NotFinite(
            f"the values diverge: the TD error of environment {env} became {float(self.td_error):g} after {int(self.env_steps):,} "
            f"environment steps. The weights are those before it. Lower the learning rate (alpha = "
            f"{self.config.learning_rate:g}), or use replacing or dutch traces"
        )

    def learn(self, buffer: Buffer, count: int | None = None) -> Metrics:
        """`update` with each row, in order. What is not finite is found before it is written."""
        metrics: Metrics = {}
        for batch in buffer.batches(count):
            metrics = self.update(batch)
        return metrics

    # -- values from a network ---------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """q(s, a), whose gradient a network's trace gathers."""
        q = self.critic(self.policy.normalizer(batch["observation"]))
        action = torch.zeros_like(batch["action"]) if self._target == PREDICTION else batch["action"]
        return q.gather(-1, action.unsqueeze(-1)).sum(), {}

    def _update_network(self, batch: Batch) -> Metrics:
        if batch.numel() != 1:
            raise BadInput(
                f"values from a network learn from one environment at a time, got {batch.shape[1]}: num_envs=1"
            )
        next, c, mask = batch["next"], self.config, get(batch, "mask")
        if mask is not None and not mask.all():
            return self.metrics
        if get(batch, "is_first", False):  # as in learn_rows
            self.optimizer.clear()
        with torch.no_grad():
            q, _ = self.loss(batch)
            there, allowed = self.critic(self.policy.normalizer(next["observation"])), get(batch, "next.action_mask")
            allowed = None if allowed is None else allowed[0, 0]
            future, cut = future_value(self._target, self.policy, there[0, 0], int(next["action"]), allowed)
            target = next["reward"][0, 0] + torch.where(next["terminated"][0, 0], 0.0, c.discount * future)
        self.optimizer.td_error = target - q
        self.td_error.copy_(target - q)
        self.scale.clamp_(min=float(next["reward"].abs()))
        if not self.td_error.abs() < HOPELESS * self.scale:
            raise self.diverged(0)
        self.optimize(self.loss, self.optimizer, batch)
        if self.step.void or not self.optimizer.fine:
            raise self.diverged(0)
        if cut or next["terminated"] or next["truncated"]:
            self.optimizer.clear()
        epsilon = float(self.policy.exploration[EPSILON])
        if epsilon > c.epsilon_min and self._target != PREDICTION:
            self.policy.exploration[EPSILON] = max(epsilon * c.epsilon_decay, c.epsilon_min)
        return self.metrics


def features_of(observation_space: spaces.Space, config: TDConfig) -> Features:
    """The coder of `config.model`. Raises Incompatible where it does not fit the space."""
    c, table = config, isinstance(observation_space, spaces.Discrete)
    if c.model == "table" or (c.model == "auto" and table):
        return OneHot(observation_space)
    if c.model == "linear":
        return Raw(observation_space)
    return TileCoding(observation_space, c.tilings, c.tiles, c.low, c.high, c.memory, c.bias)
