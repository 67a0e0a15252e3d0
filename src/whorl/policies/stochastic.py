"""The stochastic policy of policy-gradient agents: features -> parameters of a distribution -> action and its log-probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from whorl.errors import Incompatible
from whorl.nets.encoder import Encoder
from whorl.nets.mlp import linear
from whorl.nets.normalizer import observation_normalizer
from whorl.policies.distributions import LOG_STD_RANGE, MASKED, Categorical, Distribution, Gaussian, SquashedGaussian
from whorl.policies.numpy_actor import numpy_actor
from whorl.policies.policy import Actor, Policy
from whorl.spaces import action_sizes, describe


class Stochastic(Policy):
    """Categorical (Discrete), multi-categorical (MultiDiscrete, MultiBinary), Gaussian or tanh-squashed Gaussian (Box) actions.

    std "independent": one learned log std per action component (Schulman et al. 2017); "dependent": a second output of the net.
    squash: tanh onto the bounds of the Box, which must be finite. Raises Incompatible for any other space.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        std: Literal["independent", "dependent"] = "independent",
        squash: bool = False,
        normalize_observation: bool = False,
    ):
        super().__init__()
        self.normalizer = observation_normalizer(observation_space, normalize_observation)
        self.encoder = Encoder(observation_space, hidden, activation)
        self.sizes = action_sizes(action_space)
        self.scalar = isinstance(action_space, spaces.Discrete)
        self.std, self.squash = std, squash
        if self.sizes is not None:
            self.outputs = sum(self.sizes)
            self.family: type[Distribution] = Categorical
        elif isinstance(action_space, spaces.Box) and len(action_space.shape) == 1:
            self.outputs = action_space.shape[0]
            self.family = SquashedGaussian if squash else Gaussian
            if squash and not np.isfinite([action_space.low, action_space.high]).all():
                raise Incompatible(
                    f"a squashed Gaussian needs finite action bounds, got {action_space}; use squash=False"
                )
            self.register_buffer("low", torch.as_tensor(action_space.low, dtype=torch.float32))
            self.register_buffer("high", torch.as_tensor(action_space.high, dtype=torch.float32))
            if std == "independent":
                self.log_std = nn.Parameter(torch.zeros(self.outputs))
        else:
            raise Incompatible(
                f"a stochastic policy acts in Discrete, MultiDiscrete, MultiBinary or one-axis Box spaces, got {describe(action_space)}"
            )
        two = self.sizes is None and std == "dependent"
        self.head = linear(self.encoder.width, self.outputs * (2 if two else 1), gain=0.01)

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
        return SquashedGaussian(mean, log_std, self.low, self.high) if self.squash else Gaussian(mean, log_std)

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return self.family.noise(shape, self.outputs, generator)

    def act(self, observation, carry, is_first, noise, action_mask=None):
        distribution = self.distribution(self.encode({"observation": observation}), action_mask)
        action = distribution.mode if noise is None else distribution.sample(noise)
        return {"action": action, "log_prob": distribution.log_prob(action)}, carry

    def actor(self, num_envs: int) -> Actor:
        """On the CPU, a small MLP over a float vector runs in numpy over views of the weights; all else is `act`."""
        small = self.encoder.plain and (self.scalar or self.family is Gaussian)
        on_cpu = self.head.weight.device.type == "cpu"
        return numpy_actor(self, num_envs) if small and on_cpu else super().actor(num_envs)
