"""The stochastic policy of policy-gradient agents: features -> parameters of a distribution -> action and its log-probability."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from whorl.errors import BadInput, Incompatible
from whorl.nets.encoder import Encoder
from whorl.nets.mlp import initialize, linear
from whorl.nets.normalizer import NoNormalizer, ObservationNormalizer, observation_normalizer
from whorl.policies.distributions import (
    LOG_STD_RANGE,
    MASKED,
    Categorical,
    Distribution,
    Gaussian,
    ScaledGaussian,
    SquashedGaussian,
)
from whorl.policies.numpy_actor import numpy_actor
from whorl.policies.policy import Actor, Policy
from whorl.spaces import action_sizes, describe

STDS, MEANS = ("independent", "dependent", "fixed"), ("linear", "tanh")


class Stochastic(Policy):
    """Categorical (Discrete), multi-categorical (MultiDiscrete, MultiBinary), Gaussian or tanh-squashed Gaussian (Box) actions.

    model: the finished encoder, observation -> features [..., model.width]; one linear layer on top of it is the policy's own.
    std "independent": one learned log std per action component (Schulman et al. 2017); "dependent": a second output of the net;
    "fixed": `fixed_std`, not learned. mean "tanh": the mean is the tanh of the net's output.
    scale: the Gaussian lives in units of half the action range around its centre. squash: tanh onto the bounds. Both need finite
    bounds. initialization: of the last layer, see `nets.mlp.initialize`.
    Raises Incompatible for any other space and for infinite bounds, BadInput for options that contradict each other.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        model: nn.Module,
        action_space: spaces.Space,
        normalizer: ObservationNormalizer | None = None,
        std: Literal["independent", "dependent", "fixed"] = "independent",
        fixed_std: float = 1.0,
        mean: Literal["linear", "tanh"] = "linear",
        scale: bool = False,
        squash: bool = False,
        initialization: Literal["orthogonal", "uniform"] = "orthogonal",
    ):
        super().__init__()
        self.normalizer = NoNormalizer() if normalizer is None else normalizer
        self.encoder = model
        self.sizes = action_sizes(action_space)
        self.scalar = isinstance(action_space, spaces.Discrete)
        self.std, self.mean, self.scale, self.squash = std, mean, scale, squash
        if self.sizes is not None:
            self.outputs = sum(self.sizes)
            self.family: type[Distribution] = Categorical
        elif isinstance(action_space, spaces.Box) and len(action_space.shape) == 1:
            self.outputs = action_space.shape[0]
            self._build_gaussian(action_space, fixed_std)
        else:
            raise Incompatible(
                f"a stochastic policy acts in Discrete, MultiDiscrete, MultiBinary or one-axis Box spaces, got {describe(action_space)}"
            )
        width = getattr(model, "width", None)
        if not isinstance(width, int):
            raise BadInput(
                f"the model of a policy says in `width` how many features it gives; {type(model).__name__} does not"
            )
        two = self.sizes is None and std == "dependent"
        self.head = linear(width, self.outputs * (2 if two else 1), gain=0.01)
        initialize(self.head, initialization)

    def _build_gaussian(self, space: spaces.Box, fixed_std: float) -> None:
        for name, value, choices in (("std", self.std, STDS), ("mean", self.mean, MEANS)):
            if value not in choices:
                raise BadInput(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
        if self.scale and self.squash:
            raise BadInput("scale and squash both map a Gaussian onto the action bounds: choose one")
        if self.std == "fixed" and not 0 < fixed_std < math.inf:
            raise BadInput(f"fixed_std is the standard deviation of the actions and must be above 0, got {fixed_std}")
        if (self.squash or self.scale) and not np.isfinite([space.low, space.high]).all():
            kind, option = ("squashed", "squash") if self.squash else ("scaled", "scale")
            raise Incompatible(f"a {kind} Gaussian needs finite action bounds, got {space}; use {option}=False")
        self.family = SquashedGaussian if self.squash else ScaledGaussian if self.scale else Gaussian
        self.register_buffer("low", torch.as_tensor(space.low, dtype=torch.float32))
        self.register_buffer("high", torch.as_tensor(space.high, dtype=torch.float32))
        if self.std == "independent":
            self.log_std = nn.Parameter(torch.zeros(self.outputs))
        elif self.std == "fixed":
            self.register_buffer("log_std", torch.full((self.outputs,), math.log(fixed_std)))

    @classmethod
    def build(cls, observation_space: spaces.Space, action_space: spaces.Space, config: Any = None) -> Stochastic:
        """The default policy for these spaces: an `Encoder`, with what `config` has of hidden, activation, initialization,
        normalize_observation, std, fixed_std, mean, scale and squash.
        """
        of = lambda *names: {name: getattr(config, name) for name in names if hasattr(config, name)}  # noqa: E731
        normalizer = observation_normalizer(observation_space, getattr(config, "normalize_observation", False))
        model = Encoder(observation_space, **of("hidden", "activation", "initialization"))
        options = of("std", "fixed_std", "mean", "scale", "squash", "initialization")
        return cls(model, action_space, normalizer, **options)

    def encode(self, batch: Any) -> Tensor:
        """Features [..., width] of `observation`: normalizer, then encoder."""
        return self.encoder(self.normalizer(batch["observation"]))

    def distribution(self, features: Tensor, action_mask: Tensor | None = None) -> Distribution:
        """The distribution over actions given features; actions whose mask [..., A] is False get probability 0."""
        output = self.head(features)
        if self.sizes is not None:
            logits = output if action_mask is None else torch.where(action_mask, output, MASKED)
            return Categorical(logits, self.sizes, self.scalar)
        mean, log_std = output, None
        if self.std == "dependent":
            mean, log_std = output.chunk(2, -1)
            log_std = log_std.clamp(*LOG_STD_RANGE)
        else:
            log_std = self.log_std.expand_as(mean)
        mean = mean.tanh() if self.mean == "tanh" else mean
        if self.family is Gaussian:
            return Gaussian(mean, log_std)
        bounded = SquashedGaussian if self.squash else ScaledGaussian
        return bounded(mean, log_std, self.low, self.high)

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return self.family.noise(shape, self.outputs, generator)

    def act(self, observation, carry, is_first, noise, action_mask=None):
        distribution = self.distribution(self.encode({"observation": observation}), action_mask)
        action = distribution.mode if noise is None else distribution.sample(noise)
        return {"action": action, "log_prob": distribution.log_prob(action)}, carry

    def actor(self, num_envs: int) -> Actor:
        """On the CPU, a small MLP over a float vector runs in numpy over views of the weights; all else is `act`."""
        small = isinstance(self.encoder, Encoder) and self.encoder.plain
        small = small and (self.scalar or self.family in (Gaussian, ScaledGaussian))
        on_cpu = self.head.weight.device.type == "cpu"
        return numpy_actor(self, num_envs) if small and on_cpu else super().actor(num_envs)
