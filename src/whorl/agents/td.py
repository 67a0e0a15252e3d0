"""TD(lambda): Sarsa, Expected Sarsa, Q-learning, true online, and prediction. Sutton and Barto 2018, chapters 6, 7, 10, 12.

Maths: functional/traces.py. Deviations: docs/algorithms/td.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numba.extending import register_jitable
from torch import Tensor, nn

from whorl.agents.agent import Agent, Metrics
from whorl.batch import get
from whorl.errors import BadInput, Incompatible, NotFinite
from whorl.feeds import Stream
from whorl.functional import traces
from whorl.functional.kernels.cached import cached
from whorl.functional.traces import (
    ACCUMULATING,
    DUTCH,
    OLD_VALUE,
    REPLACING,
    SCALE,
    Traces,
    clear,
    fetch,
    read,
    read_all,
    store,
    update,
)
from whorl.nets import tile_coding
from whorl.nets.encoder import Encoder
from whorl.nets.linear_q import LinearQ
from whorl.nets.mlp import linear
from whorl.nets.tile_coding import HASHED, Features, OneHot, Raw, TileCoding, code
from whorl.policies import exploration
from whorl.policies.exploration import EPSILON, probabilities, row_of
from whorl.policies.greedy import Greedy, discrete

SARSA, EXPECTED_SARSA, Q_LEARNING, NAIVE_Q_LEARNING, PREDICTION = range(5)
TARGETS = {
    "sarsa": SARSA,
    "expected_sarsa": EXPECTED_SARSA,
    "q_learning": Q_LEARNING,
    "naive_q_learning": NAIVE_Q_LEARNING,
    "prediction": PREDICTION,
}
HOPELESS = 1e6  # a network's TD error, in units of the largest reward
KINDS = {"accumulating": ACCUMULATING, "replacing": REPLACING, "dutch": DUTCH}


@dataclass(frozen=True)
class TDConfig:
    target: Literal["sarsa", "expected_sarsa", "q_learning", "naive_q_learning", "prediction"] = (
        "sarsa"  # V' of the TD error; q_learning cuts the traces after an exploratory action (Watkins), naive does not
    )
    trace: Literal["accumulating", "replacing", "dutch"] = "replacing"  # dutch: true online TD(lambda)
    trace_decay: float = 0.9  # lambda
    clear_other_actions: bool = False  # replacing traces: 0 for the other actions of the state (Singh and Sutton 1996)
    learning_rate: float = 0.0625  # alpha, of each weight: 0.5 / 8 tilings moves a value half way to its target
    discount: float = 1.0  # gamma, per environment step
    exploration: Literal["epsilon_greedy", "softmax"] = "epsilon_greedy"
    epsilon: float = 0.1  # share of uniform actions
    epsilon_decay: float = 1.0  # epsilon's factor at each step
    epsilon_min: float = 0.0  # where it stops
    temperature: float = 1.0  # of softmax, in units of the return
    model: Literal["auto", "table", "linear", "tile_coding", "mlp"] = (
        "auto"  # auto: a table for Discrete observations, else tile coding
    )
    tilings: int = 8  # grids of the tile coding
    tiles: int = 8  # per dimension and grid
    memory: int = 0  # slots of a tiling whose tiles are hashed; 0 = one for each tile
    bias: bool = False  # a feature that is always on
    low: tuple[float, ...] = ()  # box of the tile coding; () = the bounds of the observation space
    high: tuple[float, ...] = ()
    initial_value: float = (
        0.0  # of every linear value before anything is learned; above what can be earned, it explores
    )
    hidden: tuple[int, ...] = (64,)  # units of each hidden layer (mlp)
    activation: Literal["tanh", "relu"] = "tanh"  # (mlp)
    feed: Stream = Stream()


class TD(Agent):
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
        self._linear = linear_values
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
            self.optimizer = TraceDescent(self.critic.parameters(), c.learning_rate, c.discount * c.trace_decay)

    @classmethod
    def build(cls, observation_space: spaces.Space, action_space: spaces.Space, config: TDConfig) -> TD:
        c, actions = config, discrete(action_space)

        def values(outputs: int) -> nn.Module:
            if c.model == "mlp":
                encoder = Encoder(observation_space, c.hidden, c.activation)
                return nn.Sequential(encoder, linear(encoder.width, outputs, gain=1.0))
            return LinearQ(features_of(observation_space, c), outputs, c.initial_value)

        if c.target == "prediction":  # of the uniformly random policy
            return cls(Greedy(values(actions), action_space, epsilon=1.0), c, values(1))
        return cls(Greedy(values(actions), action_space, c.exploration, c.epsilon, c.temperature), c)

    def value(self, observation: Any) -> Tensor:
        """V(s) of a prediction, else max_a q(s, a)."""
        return self.critic(observation).max(-1).values.float()

    def _allocate(self, num_envs: int) -> None:
        for name, array in Traces.empty(self.critic.weight.numel())._asdict().items():
            self.register_buffer(f"traces_{name}", torch.from_numpy(np.repeat(array[None], num_envs, 0)))
        self.traces_numbers[:, SCALE] = abs(
            self.config.initial_value
        )  # a TD error is large beside this, or the rewards
        self._views: Any = (None, ())

    def _load_from_state_dict(self, state_dict, prefix, *others):
        saved = state_dict.get(f"{prefix}traces_slot")
        if saved is not None and len(saved) != len(self.traces_slot):
            self._allocate(len(saved))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def learner(self) -> tuple:
        """All that `td_step` and `claim` read and write beside a row, as numpy views of this agent's buffers."""
        c, f = self.config, self.critic.features
        buffers: Any = self._buffers
        return (
            (f.kind, f.table.numpy(), f.slots, f.size),
            self.critic.weight.view(-1).numpy(),
            Traces(*(buffers[f"traces_{name}"].numpy() for name in Traces._fields)),
            tuple(buffers[name].numpy() for name in ("owner", "shared", "collisions")),
            (TARGETS[c.target], KINDS[c.trace], c.clear_other_actions),
            np.array([c.learning_rate, c.discount, c.discount * c.trace_decay, c.epsilon_decay, c.epsilon_min]),
            self.policy.exploration.numpy(),
        )

    def prepare(self, rollout: Any) -> Any:  # [1, N]
        if not self._linear:
            return super().prepare(rollout)
        if self._views[0] is not rollout:  # a stream is one memory, written again at each step: look into it once
            self._views = rollout, self._look(rollout)
        return rollout

    def _look(self, rollout: Any) -> tuple:
        """The arguments of `learn_rows`."""
        next, n, actions = rollout["next"], rollout.shape[1], self.policy.actions
        if n != len(self.traces_slot):
            self._allocate(n)
        rows = lambda x: x[0].numpy().reshape(n, -1)  # noqa: E731
        mask, allowed, first = (get(rollout, key) for key in ("mask", "next.action_mask", "is_first"))
        every = np.ones((n, actions), bool)
        row = (
            rows(rollout["observation"]), rollout["action"][0].numpy(), next["reward"][0].numpy(), next["terminated"][0].numpy(),
            next["truncated"][0].numpy(), every[:, 0] if mask is None else mask[0].numpy(),
            ~every[:, 0] if first is None else first[0].numpy(), rows(next["observation"]),
            next["action"][0].numpy(), every if allowed is None else rows(allowed),
        )  # fmt: skip
        f = self.critic.features
        scratch = row_of(f), row_of(f), np.zeros(self.critic.actions), np.zeros(actions)
        return *row, *self.learner(), *scratch, self.td_error.numpy(), self.env_steps.numpy()

    def update(self, batch: Any) -> Metrics:  # [1, N]
        if not self._linear:
            return self._update_network(batch)
        held, arguments = self._views
        bad = learn_rows(*(arguments if batch is held else self._look(batch)))
        if bad >= 0:
            raise self.diverged(bad)
        return self.metrics

    def diverged(self, env: int) -> NotFinite:
        return NotFinite(
            f"the values diverge: the TD error of environment {env} became {float(self.td_error):g} after {int(self.env_steps):,} "
            f"environment steps. The weights are those before it. Lower the learning rate (alpha = "
            f"{self.config.learning_rate:g}), or use replacing or dutch traces"
        )

    def learn(self, buffer: Any, count: int | None = None) -> Metrics:
        """`update` with each row, in order. What is not finite is found before it is written."""
        metrics: Metrics = {}
        for batch in buffer.batches(count):
            metrics = self.update(batch)
        return metrics

    # -- values from a network: the same recursion over all parameters -----------------------------------------------

    def loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        """q(s, a), whose gradient a network's trace gathers."""
        q = self.critic(batch["observation"])
        action = torch.zeros_like(batch["action"]) if self.config.target == "prediction" else batch["action"]
        return q.gather(-1, action.unsqueeze(-1)).sum(), {}

    def _update_network(self, batch: Any) -> Metrics:
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
            future = self.critic(next["observation"])[0, 0]
            allowed = get(batch, "next.action_mask")
            allowed = torch.ones_like(future, dtype=torch.bool) if allowed is None else allowed[0, 0]
            a = int(next["action"])
            best = torch.where(allowed, future, -torch.inf).max() if c.target != "prediction" else future[0]
            expected = lambda: (self.policy.probabilities(future, allowed) * future).sum()  # noqa: E731
            v = {"sarsa": lambda: future[a], "expected_sarsa": expected}.get(c.target, lambda: best)()
            target = next["reward"][0, 0] + torch.where(next["terminated"][0, 0], 0.0, c.discount * v)
        self.optimizer.td_error = target - q
        self.td_error.copy_(target - q)
        self.scale.clamp_(min=float(next["reward"].abs()))
        if not self.td_error.abs() < HOPELESS * self.scale:
            raise self.diverged(0)
        self.optimize(self.loss, self.optimizer, batch)
        if self.step.void or not self.optimizer.fine:
            raise self.diverged(0)
        cut = c.target == "q_learning" and future[a] < best
        if cut or next["terminated"] or next["truncated"]:
            self.optimizer.clear()
        epsilon = float(self.policy.exploration[EPSILON])
        if epsilon > c.epsilon_min and c.target != "prediction":
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


class TraceDescent(torch.optim.Optimizer):
    """e <- decay e + gradient, w <- w + learning_rate * td_error * e, for all parameters."""

    td_error: Tensor
    fine = True  # False: the last step would have made a weight infinite, and was not done

    def __init__(self, parameters: Any, learning_rate: float, decay: float):
        super().__init__(parameters, {"lr": learning_rate, "decay": decay})
        for p in self.param_groups[0]["params"]:
            self.state[p] = {"trace": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self, closure=None):
        group = self.param_groups[0]
        traces = [self.state[p]["trace"].mul_(group["decay"]).add_(p.grad) for p in group["params"]]
        moves = [group["lr"] * self.td_error * trace for trace in traces]
        self.fine = all(bool((p + move).isfinite().all()) for p, move in zip(group["params"], moves, strict=True))
        if self.fine:
            for p, move in zip(group["params"], moves, strict=True):
                p.add_(move)

    def clear(self) -> None:
        for p in self.param_groups[0]["params"]:
            self.state[p]["trace"].zero_()


ALPHA, DISCOUNT, DECAY, EPSILON_DECAY, EPSILON_MIN = range(5)  # entries of `rates`


@register_jitable(forceinline=True)
def td_step(
    weight, trace, rule, rates, exploration, size, index, value, action, reward, terminated, ended,
    next_q, next_action, allowed, share,
):  # fmt: skip
    """One update from (s, a, r, s', a'), s as features, s' as its values next_q [A]. (TD error, whether it was done: see `update`)."""
    target_of, kind, exclusive = rule
    offset = 0 if target_of == PREDICTION else action * size
    best = next_action
    if target_of == SARSA:
        future = next_q[next_action]
    elif target_of == PREDICTION:
        future = next_q[0]
    else:
        best = probabilities(next_q, allowed, exploration, share)
        future = next_q[best]
        if target_of == EXPECTED_SARSA:
            future = 0.0
            for a in range(len(next_q)):
                if allowed[a]:
                    future += share[a] * next_q[a]
    if terminated:
        future = 0.0
    q = read(weight, trace, index, value, offset)
    target = reward + rates[DISCOUNT] * future
    trace.numbers[SCALE] = max(trace.numbers[SCALE], abs(reward))
    if not update(weight, trace, kind, index, value, offset, q, target, rates[ALPHA], rates[DECAY], exclusive, size):
        return target - q, False
    trace.numbers[OLD_VALUE] = future
    if ended or (target_of == Q_LEARNING and next_q[next_action] < next_q[best]):  # Watkins: a' was exploratory
        clear(weight, trace)
    return target - q, True


@register_jitable(forceinline=True)
def claim(index, key, hashing):
    """Counts the slots that tiles of more than one place were hashed into."""
    owner, shared, collisions = hashing
    for k in range(len(key)):
        i = index[k]
        if owner[i] == 0:
            owner[i] = key[k]
        elif owner[i] != key[k] and not shared[i]:
            shared[i] = True
            collisions[0] += 1


@register_jitable(forceinline=True)
def anneal(exploration, rates):
    """epsilon <- epsilon * decay, not below its floor."""
    e = exploration[EPSILON]
    if e > rates[EPSILON_MIN]:
        exploration[EPSILON] = max(e * rates[EPSILON_DECAY], rates[EPSILON_MIN])


@cached(traces, tile_coding, exploration)
def learn_rows(
    observation, action, reward, terminated, truncated, mask, is_first, successor, next_action, allowed,
    features, weight, all_traces, hashing, rule, rates, exploration, row, next_row, next_q, share, td_error, env_steps,
):  # fmt: skip
    """`td_step` for each environment in turn. Returns the first whose values diverge, or -1."""
    kind, table, slots, size = features
    index, value, key = row
    next_index, next_value, next_key = next_row
    before, scale = env_steps[()], 0.0
    for i in range(len(observation)):  # what is large is judged by the rewards of all environments
        scale = max(scale, all_traces.numbers[i, SCALE])
    for i in range(len(observation)):
        if not mask[i]:
            continue
        env_steps[()] += 1
        trace = Traces(all_traces.slot[i], all_traces.feature[i], all_traces.packed[i], all_traces.numbers[i])
        trace.numbers[SCALE] = scale
        fetch(weight, trace)
        if is_first[
            i
        ]:  # nothing is left of an episode that was lost, such as one that a resumed run could not go on with
            clear(weight, trace)
        code(kind, observation[i], table, slots, index, value, key)
        if kind == HASHED:
            claim(index, key, hashing)
        code(kind, successor[i], table, slots, next_index, next_value, next_key)
        read_all(weight, trace, next_index, next_value, size, next_q)
        ended = terminated[i] or truncated[i]
        delta, fine = td_step(
            weight, trace, rule, rates, exploration, size, index, value, action[i], reward[i], terminated[i], ended,
            next_q, next_action[i], allowed[i], share,
        )  # fmt: skip
        td_error[()] = delta
        if not fine:
            return i
        store(weight, trace)
    if env_steps[()] > before and rule[0] != PREDICTION:
        anneal(exploration, rates)
    return -1
