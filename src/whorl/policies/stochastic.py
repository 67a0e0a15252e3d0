"""The stochastic policy of policy-gradient agents: features -> parameters of a distribution -> action and its log-probability."""

from __future__ import annotations

import math
from typing import Any, Literal

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
    SDE_MEAN,
    Categorical,
    Distribution,
    Gaussian,
    ScaledGaussian,
    SquashedGaussian,
)
from whorl.policies.numpy_actor import numpy_actor, squashed_actor
from whorl.policies.policy import Actor, Policy
from whorl.spaces import action_sizes, describe, is_bounded

STDS, MEANS = ("independent", "dependent", "fixed", "sde"), ("linear", "tanh")


class Stochastic(Policy):
    """Categorical (Discrete), multi-categorical (MultiDiscrete, MultiBinary), Gaussian or tanh-squashed Gaussian (Box) actions.

    model: the finished encoder, observation -> features [..., model.width]; one linear layer on top of it is the policy's own.
    std "independent": one learned log std per action component (Schulman et al. 2017); "dependent": a second output of the net;
    "fixed": `fixed_std`, not learned. mean "tanh": the mean is the tanh of the net's output.
    scale: the Gaussian lives in units of half the action range around its centre. squash: tanh onto the bounds. Both need finite
    bounds. initialization: of the last layer, see `nets.mlp.initialize`.
    replay: it acts for a replay agent: squashed, no log_prob is recorded, and while `warming` is set actions are uniform.
    std "sde" (of those): state-dependent exploration, Raffin et al. 2021: action = squash(mean + features @ E), where E [width, D]
    ~ N(0, exp(log_std)^2) is held, in each environment, for `sde_every` steps, at most to the episode's end (0: until that end).
    Over the draws of E the action has std(s) = sqrt(features^2 @ exp(log_std)^2), with no gradient into the features: the
    distribution that the losses use, whose rows are drawn by themselves. sde_log_std: log_std at the start.
    Raises Incompatible for any other space and for infinite bounds, BadInput for options that contradict each other.
    """

    low: Tensor
    high: Tensor
    warming: Tensor
    centre: Tensor
    half_range: Tensor
    log_half: Tensor

    def __init__(
        self,
        model: nn.Module,
        action_space: spaces.Space,
        normalizer: ObservationNormalizer | None = None,
        std: Literal["independent", "dependent", "fixed", "sde"] = "independent",
        fixed_std: float = 1.0,
        mean: Literal["linear", "tanh"] = "linear",
        scale: bool = False,
        squash: bool = False,
        initialization: Literal["orthogonal", "uniform"] = "orthogonal",
        replay: bool = False,
        sde_every: int = 0,
        sde_log_std: float = -3.0,
    ):
        super().__init__()
        self.normalizer = NoNormalizer() if normalizer is None else normalizer
        self.encoder = model
        self.sizes = action_sizes(action_space)
        self.scalar = isinstance(action_space, spaces.Discrete)
        self.std, self.mean, self.scale, self.squash = std, mean, scale, squash
        self.replay, self.sde, self.sde_every = replay, std == "sde", sde_every
        if replay and not isinstance(action_space, spaces.Box):
            raise Incompatible(f"a squashed Gaussian needs Box actions, got {describe(action_space)}; use discrete_sac")
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
        if self.sde:
            self.log_std = nn.Parameter(torch.full((width, self.outputs), sde_log_std))
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
        if (self.squash or self.scale) and not is_bounded(space):
            kind, option = ("squashed", "squash") if self.squash else ("scaled", "scale")
            hint = "" if self.replay else f"; use {option}=False"
            raise Incompatible(f"a {kind} Gaussian needs finite action bounds, low below high, got {space}{hint}")
        self.family = SquashedGaussian if self.squash else ScaledGaussian if self.scale else Gaussian
        self.register_buffer("low", torch.as_tensor(space.low, dtype=torch.float32))
        self.register_buffer("high", torch.as_tensor(space.high, dtype=torch.float32))
        if self.std == "independent":
            self.log_std = nn.Parameter(torch.zeros(self.outputs))
        elif self.std == "fixed":
            self.register_buffer("log_std", torch.full((self.outputs,), math.log(fixed_std)))
        if self.sde and not self.replay:
            raise BadInput("std='sde' is exploration for replay agents: it needs replay=True")
        if self.replay and not self.squash:
            raise BadInput("replay=True is of squashed Gaussians: it needs squash=True")
        if self.replay:
            self.register_buffer("warming", torch.zeros((), dtype=torch.bool))
            self.register_buffer("centre", (self.low + self.high) / 2, persistent=False)
            self.register_buffer("half_range", (self.high - self.low) / 2, persistent=False)
            self.register_buffer("log_half", self.half_range.log().sum(), persistent=False)

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

    @classmethod
    def squashed(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: Any, model: nn.Module | None = None
    ) -> Stochastic:
        """The policy of SAC and its relatives: replay, squash, std "dependent" or with `config.sde` "sde".

        config: hidden, activation, and where it has them sde, sde_every, sde_log_std. Weights are torch's. model: the encoder, if it
        is not an `Encoder`. Raises Incompatible unless actions are a bounded Box.
        """
        if not isinstance(action_space, spaces.Box):
            raise Incompatible(f"a squashed Gaussian needs Box actions, got {describe(action_space)}; use discrete_sac")
        if model is None:
            model = Encoder(observation_space, config.hidden, config.activation, "uniform")
        std: Any = "sde" if getattr(config, "sde", False) else "dependent"
        sde = {name: getattr(config, name) for name in ("sde_every", "sde_log_std") if hasattr(config, name)}
        return cls(model, action_space, None, std, squash=True, initialization="uniform", replay=True, **sde)

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
        elif self.sde:
            mean = mean.clamp(-SDE_MEAN, SDE_MEAN)
            log_std = 0.5 * (features.detach().square() @ (2 * self.log_std).exp() + 1e-6).log()
        else:
            log_std = self.log_std.expand_as(mean)
        mean = mean.tanh() if self.mean == "tanh" else mean
        if self.family is Gaussian:
            return Gaussian(mean, log_std)
        bounded = SquashedGaussian if self.squash else ScaledGaussian
        return bounded(mean, log_std, self.low, self.high)

    def sample(self, observation: Any, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [..., D] and their log-densities [...] in units of half the action range, differentiable in both. noise [..., D].

        In these units neither an entropy bonus nor a target entropy depends on the bounds.
        """
        distribution: Any = self.distribution(self.encode({"observation": observation}))
        unit, log_prob = distribution.unit_sample(noise)
        return torch.addcmul(self.centre, self.half_range, unit), log_prob

    def initial(self, n: int) -> Any:
        """Under gSDE the standard normal matrices [n, width * D] and how long they have been held [n]."""
        if not self.sde:
            return None
        device = self.low.device
        held = torch.zeros(n, dtype=torch.int64, device=device)
        return {"exploration": torch.zeros(n, self.log_std.numel(), device=device), "held": held}

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return self.family.noise(shape, self.log_std.numel() if self.sde else self.outputs, generator)

    def act(self, observation, carry, is_first, noise, action_mask=None):
        features = self.encode({"observation": observation})
        distribution = self.distribution(features, action_mask)
        if self.replay:
            action, carry = self._explore(features, distribution, carry, is_first, noise)
            return {"action": action}, carry
        action = distribution.mode if noise is None else distribution.sample(noise)
        return {"action": action, "log_prob": distribution.log_prob(action)}, carry

    def _explore(self, features: Tensor, distribution: Any, carry: Any, is_first: Tensor, noise: Tensor | None) -> Any:
        if noise is None:
            return distribution.mode, carry
        own = noise[..., : self.outputs]
        if self.sde:
            renew = is_first | (carry["held"] >= self.sde_every) if self.sde_every else is_first
            matrix = torch.where(renew[:, None], noise, carry["exploration"])
            carry = {"exploration": matrix, "held": torch.where(renew, 1, carry["held"] + 1)}
            matrix = matrix.view(-1, *self.log_std.shape) * self.log_std.exp()
            action = distribution.squash(distribution.mean + (features.unsqueeze(-2) @ matrix).squeeze(-2))
        else:
            action = distribution.sample(own)
        uniform = self.low + (self.high - self.low) * torch.special.ndtr(own)
        return torch.where(self.warming, uniform, action), carry

    def actor(self, num_envs: int) -> Actor:
        """On the CPU, a small MLP over a float vector runs in numpy over views of the weights; all else is `act`."""
        small = isinstance(self.encoder, Encoder) and self.encoder.plain
        small = small and (self.scalar or self.replay or self.family in (Gaussian, ScaledGaussian))
        if not small or self.head.weight.device.type != "cpu":
            return super().actor(num_envs)
        return squashed_actor(self, num_envs) if self.replay else numpy_actor(self, num_envs)
