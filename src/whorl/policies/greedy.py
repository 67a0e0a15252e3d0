"""Acting on action values: the best action, but for exploration."""

from __future__ import annotations

from typing import Literal

import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from whorl.batch import Tree
from whorl.errors import Incompatible
from whorl.nets.linear_q import LinearQ
from whorl.nets.noisy import Noisy
from whorl.nets.normalizer import NoNormalizer, ObservationNormalizer
from whorl.nets.q import QNetwork
from whorl.nets.rnn import begin, memory_of, remember
from whorl.policies.exploration import EPSILON, EPSILON_GREEDY, KIND, SOFTMAX
from whorl.policies.policy import Actor, Carry, Decided, Drawn, Policy
from whorl.spaces import describe


class Greedy(Policy):
    """The first action with the largest q(observation) [..., A]; `q` is any module. LinearQ and small networks act compiled.

    A q that holds a `Memory` remembers the episode: its state is carried, and recorded as `recurrent_state`.

    epsilon_greedy: with probability epsilon a uniform action instead (which may be the best one). softmax: probabilities
    exp(q / temperature) / sum. A q with `noise_size` above 0 explores by its own noise, q(observation, noise) (NoisyLinear), and by
    nothing else. epsilon_spread: environment i of N has epsilon ** (1 + epsilon_spread * i / (N - 1)), Horgan et al. 2018, section 4.
    Masked actions are never taken. Raises Incompatible for actions that are not Discrete, and for a normalizer before a LinearQ,
    whose features are made for the observations' own bounds.
    """

    exploration: Tensor

    def __init__(
        self,
        q: nn.Module,
        action_space: spaces.Space,
        exploration: Literal["epsilon_greedy", "softmax"] = "epsilon_greedy",
        epsilon: float = 0.1,
        temperature: float = 1.0,
        epsilon_spread: float = 0.0,
        normalizer: ObservationNormalizer | None = None,
    ):
        super().__init__()
        self.normalizer = NoNormalizer() if normalizer is None else normalizer
        if isinstance(q, LinearQ) and not isinstance(self.normalizer, NoNormalizer):
            raise Incompatible(
                "values that are linear in features read observations as they are, whose bounds their features know: "
                "use normalize_observation = False"
            )
        self.q, self.actions, self.epsilon_spread = q, discrete(action_space), epsilon_spread
        self.noise_size = q.noise_size if isinstance(q, Noisy) else 0
        self.recurrent = memory_of(q) is not None
        kind = SOFTMAX if exploration == "softmax" else EPSILON_GREEDY
        # agents anneal epsilon in place; an array, because compiled code reads it
        self.register_buffer("exploration", torch.tensor([kind, epsilon, temperature], dtype=torch.float64))

    def anneal(self, done: int, over: int, first: float, last: float) -> Tensor:
        """Set epsilon to where it is, `done` steps on its straight way of `over` steps from `first` to `last`. Returns it."""
        epsilon = self.exploration[EPSILON]
        return epsilon.fill_(last if done >= over else first + (last - first) * done / over)

    def epsilons(self, num_envs: int) -> Tensor:
        """The epsilon of each environment [N], by `epsilon_spread`."""
        place = torch.linspace(0, 1, num_envs, dtype=torch.float64, device=self.exploration.device)
        return self.exploration[EPSILON] ** (1 + self.epsilon_spread * place)

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Uniform [*shape, 2]: whether to explore, and which action. Zeros where nothing is ever drawn.

        Of a noisy q: standard normal [*shape, noise_size].
        """
        if self.noise_size:
            return torch.randn(
                *shape, self.noise_size, dtype=torch.float32, device=generator.device, generator=generator
            )
        kind, epsilon, _ = self.exploration.tolist()
        if kind == EPSILON_GREEDY and epsilon == 0 and isinstance(self.q, LinearQ):  # TD's epsilon never rises again
            return torch.zeros(2, dtype=torch.float64, device=generator.device).expand(*shape, 2)
        return torch.rand(*shape, 2, dtype=torch.float64, device=generator.device, generator=generator)

    def probabilities(self, q: Tensor, action_mask: Tensor | None = None) -> Tensor:
        """pi(a|s) [..., A] for values q [..., A]."""
        kind, epsilon, temperature = self.exploration.to(q.dtype)
        allowed = torch.ones_like(q, dtype=torch.bool) if action_mask is None else action_mask
        q = torch.where(allowed, q, -torch.inf)
        if int(kind) == SOFTMAX:
            return (q / temperature).softmax(-1)
        best = nn.functional.one_hot(q.argmax(-1), q.shape[-1])
        return (1 - epsilon) * best + epsilon * allowed / allowed.sum(-1, keepdim=True)

    def initial(self, n: int) -> Carry:
        """The state of q's memory, where it has one."""
        return begin(self.q, n) or None

    def act(
        self, observation: Tree, carry: Carry, is_first: Tensor, noise: Drawn, action_mask: Drawn = None
    ) -> Decided:
        seen, after, recorded = remember(self.q, self.normalizer(observation), carry, is_first)
        noisy = self.noise_size and noise is not None
        q = self.q(seen, noise) if noisy else self.q(seen)
        return {"action": self._chosen(q, None if noisy else noise, action_mask), **recorded}, after or None

    def _chosen(self, q: Tensor, noise: Drawn, action_mask: Drawn) -> Tensor:
        first = best(q, action_mask)
        if noise is None:
            return first
        allowed = torch.ones_like(q, dtype=torch.bool) if action_mask is None else action_mask
        explore, which = noise.unbind(-1)
        if int(self.exploration[KIND]) == SOFTMAX:
            share = self.probabilities(q, action_mask)
        else:
            share = allowed / allowed.sum(-1, keepdim=True)
        below = (share.cumsum(-1) <= which.unsqueeze(-1)).sum(-1)  # actions whose share of [0, 1) lies under `which`
        last = allowed.shape[-1] - 1 - allowed.flip(-1).int().argmax(-1)
        drawn = torch.minimum(below, last)
        if int(self.exploration[KIND]) == SOFTMAX:
            return drawn
        epsilon = self.epsilons(explore.shape[-1]) if self.epsilon_spread else self.exploration[EPSILON]
        return torch.where(explore < epsilon, drawn, first)

    def actor(self, num_envs: int) -> Actor:
        """On the CPU, linear values and small MLPs act compiled, equal to `act` but for rounding."""
        from whorl.policies.actors.greedy import linear, values
        from whorl.policies.actors.mlp import numpy_network

        if self.exploration.device.type != "cpu":
            return super().actor(num_envs)
        exploration = self.exploration.numpy()
        if isinstance(self.q, LinearQ):
            return linear(self.q, exploration, num_envs)
        if isinstance(self.q, QNetwork) and self.q.outputs == 1 and not self.noise_size:
            # V(s) of a dueling network shifts all values of a row, so it decides nothing and is left out
            network = numpy_network(self.normalizer, self.q.encoder, self.q.advantage, num_envs)
            if network is not None:
                return values(network, self.actions, exploration, float(self.epsilon_spread), num_envs)
        return super().actor(num_envs)


def best(q: Tensor, action_mask: Tensor | None = None) -> Tensor:
    """The first action with the largest q [..., A] among those that are allowed: [...]."""
    return (q if action_mask is None else torch.where(action_mask, q, -torch.inf)).argmax(-1)


def taken(q: Tensor, action: Tensor) -> Tensor:
    """What q [*rows, A, *rest] has at action [*rows]: q(s, a), its atoms, its quantiles: [*rows, *rest]."""
    axis = action.ndim
    if q.ndim == axis + 1:
        return q.gather(axis, action.unsqueeze(axis)).squeeze(axis)
    index = action.reshape(*action.shape, *[1] * (q.ndim - axis))
    return q.gather(axis, index.expand(*action.shape, 1, *q.shape[axis + 1 :])).squeeze(axis)


def _instead(space: spaces.Space) -> str:
    return "ppo, a2c or reinforce" if isinstance(space, spaces.Tuple) else "an agent with a continuous policy"


def discrete(action_space: spaces.Space) -> int:
    """The number of actions. Raises Incompatible unless the space is Discrete."""
    if not isinstance(action_space, spaces.Discrete):
        raise Incompatible(
            f"action values need Discrete actions, got {describe(action_space)}; use {_instead(action_space)}"
        )
    return int(action_space.n)
