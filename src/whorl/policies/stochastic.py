"""The stochastic policy of policy-gradient agents: features -> parameters of a distribution -> action and its log-probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from whorl.batch import Batch, Tree
from whorl.errors import BadInput, Incompatible
from whorl.nets.encoder import EncoderFactory, encoder_for
from whorl.nets.heads import ValueHead, output_layer
from whorl.nets.normalizer import NoNormalizer, ObservationNormalizer, observation_normalizer
from whorl.nets.rnn import STATE, Choice, begin, memory_of, remember, with_memory
from whorl.policies.distributions import (
    MASKED,
    Categorical,
    Distribution,
    Gaussian,
    ScaledGaussian,
    SquashedGaussian,
    mean_and_log_std,
)
from whorl.policies.policy import Actor, Carry, Decided, Drawn, Policy
from whorl.spaces import action_sizes, describe, is_bounded

Std = Literal["independent", "dependent", "fixed"]
Mean = Literal["linear", "tanh"]
Initialization = Literal["orthogonal", "uniform"]


class Stochastic(Policy):
    """Categorical (Discrete), multi-categorical (MultiDiscrete, MultiBinary), Gaussian or tanh-squashed Gaussian (Box) actions.

    model: the finished encoder, observation -> features [..., model.width], or a `Memory`, whose state is carried and recorded as
    `recurrent_state`; one linear layer on top of it is the policy's own. critic: a head on the same features, which an agent may put there:
    its values are recorded while acting.
    std "independent": one learned log std per action component (Schulman et al. 2017); "dependent": a second output of the net;
    "fixed": `fixed_std`, not learned. mean "tanh": the mean is the tanh of the net's output.
    scale: the Gaussian lives in units of half the action range around its centre. squash: tanh onto the bounds. Both need finite
    bounds. initialization: of the last layer, see `nets.mlp.initialize`.
    Raises Incompatible for any other space and for infinite bounds, BadInput for options that contradict each other and for a
    model without `width`.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        model: nn.Module,
        action_space: spaces.Space,
        normalizer: ObservationNormalizer | None = None,
        std: Std = "independent",
        fixed_std: float = 1.0,
        mean: Mean = "linear",
        scale: bool = False,
        squash: bool = False,
        initialization: Initialization = "orthogonal",
    ):
        super().__init__()
        self.normalizer = NoNormalizer() if normalizer is None else normalizer
        self.encoder = model
        self.critic: ValueHead | None = None
        self.recurrent = memory_of(model) is not None
        self.sizes = action_sizes(action_space)
        self.scalar = isinstance(action_space, spaces.Discrete)
        self.std, self.mean, self.scale, self.squash = std, mean, scale, squash
        if self.sizes is not None:
            self.outputs = sum(self.sizes)
            self.family: type[Categorical | Gaussian] = Categorical
        elif isinstance(action_space, spaces.Box) and len(action_space.shape) == 1:
            self.outputs = action_space.shape[0]
            self._build_gaussian(action_space, fixed_std)
        else:
            raise Incompatible(
                f"a stochastic policy acts in Discrete, MultiDiscrete, MultiBinary or one-axis Box spaces, got {describe(action_space)}"
            )
        two = self.sizes is None and std == "dependent"
        self.head = output_layer(model, self.outputs * (2 if two else 1), initialization)

    def _build_gaussian(self, space: spaces.Box, fixed_std: float) -> None:
        for name, value, choices in (("std", self.std, get_args(Std)), ("mean", self.mean, get_args(Mean))):
            if value not in choices:
                raise BadInput(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
        if self.scale and self.squash:
            raise BadInput("scale and squash both map a Gaussian onto the action bounds: choose one")
        if self.std == "fixed" and not 0 < fixed_std < math.inf:
            raise BadInput(f"fixed_std is the standard deviation of the actions and must be above 0, got {fixed_std}")
        if (self.squash or self.scale) and not is_bounded(space):
            kind, option = ("squashed", "squash") if self.squash else ("scaled", "scale")
            raise Incompatible(
                f"a {kind} Gaussian needs finite action bounds, low below high, got {space}; use {option}=False"
            )
        self.family = SquashedGaussian if self.squash else ScaledGaussian if self.scale else Gaussian
        self.register_bounds(space)
        if self.std == "independent":
            self.log_std = nn.Parameter(torch.zeros(self.outputs, dtype=torch.float32))
        elif self.std == "fixed":
            self.register_buffer("log_std", torch.full((self.outputs,), math.log(fixed_std), dtype=torch.float32))

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, *, hidden: Sequence[int] = (64, 64), activation: str = "tanh",
        initialization: Initialization = "orthogonal", normalize: bool = False, std: Std = "independent", fixed_std: float = 1.0,
        mean: Mean = "linear", scale: bool = False, squash: bool = False, encoder: EncoderFactory | None = None,
        memory: Choice = "none", memory_width: int = 128,
    ) -> Stochastic:  # fmt: skip
        """The default policy for these spaces: an `Encoder`, or one of the user's, between a normalizer and a memory where asked for."""
        normalizer = observation_normalizer(observation_space, normalize)
        model = with_memory(
            encoder_for(observation_space, encoder, hidden, activation, initialization), memory, memory_width
        )
        return cls(model, action_space, normalizer, std, fixed_std, mean, scale, squash, initialization)

    def encode(self, batch: Batch) -> Tensor:
        """Features [..., width] of `observation`: normalizer, then encoder; of a memory along [L, B], from the state that was recorded."""
        observation, memory = self.normalizer(batch["observation"]), memory_of(self.encoder)
        if memory is None:
            return self.encoder(observation)
        return memory.unroll(observation, batch[STATE][0], batch["is_first"])[0]

    def later(self, batch: Batch) -> Tensor:
        """Features [B, width] of `next.observation`, by one more step of a memory from the state after acting."""
        successor, memory = self.normalizer(batch["next"]["observation"]), memory_of(self.encoder)
        if memory is None:
            return self.encoder(successor)
        state = memory.step(self.normalizer(batch["observation"]), batch[STATE])
        return memory.features(memory.step(successor, state))

    def initial(self, n: int) -> Carry:
        """The state of a memory."""
        return begin(self.encoder, n) or None

    def distribution(self, features: Tensor, action_mask: Tensor | None = None) -> Distribution:
        """The distribution over actions given features; actions whose mask [..., A] is False get probability 0."""
        output = self.head(features)
        if self.sizes is not None:
            logits = output if action_mask is None else torch.where(action_mask, output, MASKED)
            return Categorical(logits, self.sizes, self.scalar)
        if self.std == "dependent":
            mean, log_std = mean_and_log_std(output)
        else:
            mean, log_std = output, self.log_std.expand_as(output)
        mean = mean.tanh() if self.mean == "tanh" else mean
        if self.family is Gaussian:
            return Gaussian(mean, log_std)
        bounded = SquashedGaussian if self.squash else ScaledGaussian
        return bounded(mean, log_std, self.low, self.high)

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return self.family.noise(shape, self.outputs, generator)

    def act(
        self, observation: Tree, carry: Carry, is_first: Tensor, noise: Drawn, action_mask: Drawn = None
    ) -> Decided:
        seen, carry, recorded = remember(self.encoder, self.normalizer(observation), carry, is_first)
        features = self.encoder(seen)
        distribution = self.distribution(features, action_mask)
        action = distribution.mode if noise is None else distribution.sample(noise)
        if self.critic is not None:
            recorded["value"] = self.critic(features)
        return {"action": action, "log_prob": distribution.log_prob(action), **recorded}, carry or None

    def actor(self, num_envs: int) -> Actor:
        """On the CPU, a small MLP over a float vector runs in numpy over views of the weights; all else is `act`."""
        from whorl.policies.actors.mlp import numpy_network
        from whorl.policies.actors.stochastic import categorical, gaussian

        network = numpy_network(self.normalizer, self.encoder, [self.head], num_envs)
        if network is None or self.squash or self.critic is not None or not (self.scalar or self.sizes is None):
            return super().actor(num_envs)
        if self.sizes is not None:
            return categorical(network, self.outputs, num_envs)
        log_std = None if self.std == "dependent" else self.log_std.detach().numpy()
        return gaussian(
            network, self.low.numpy(), self.high.numpy(), num_envs, log_std, self.mean == "tanh", self.scale
        )
