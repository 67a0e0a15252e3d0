"""The squashed Gaussian of SAC and its relatives: how replay agents act in a bounded Box."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from whorl.batch import Batch, Tree
from whorl.errors import Incompatible
from whorl.nets.encoder import EncoderFactory, encoder_for
from whorl.nets.heads import output_layer
from whorl.nets.normalizer import NoNormalizer, ObservationNormalizer, observation_normalizer
from whorl.nets.rnn import Choice, at_first, begin, memory_of, remember, with_memory
from whorl.policies.distributions import SDE_MEAN, SquashedGaussian, mean_and_log_std
from whorl.policies.policy import Actor, Carry, Decided, Drawn, Policy
from whorl.spaces import describe, is_bounded


def _bounded_box(space: spaces.Space) -> spaces.Box:
    if not isinstance(space, spaces.Box):
        instead = "ppo, a2c or reinforce" if isinstance(space, spaces.Tuple) else "discrete_sac"
        raise Incompatible(f"a squashed Gaussian needs Box actions, got {describe(space)}; use {instead}")
    if len(space.shape) != 1:
        raise Incompatible(f"a squashed Gaussian acts in one-axis Box spaces, got {describe(space)}")
    if not is_bounded(space):
        raise Incompatible(f"a squashed Gaussian needs finite action bounds, low below high, got {space}")
    return space


class Squashed(Policy):
    """action = squash(u), u ~ N(mean, std) with mean and std from one linear layer on the features, squash = tanh onto the bounds.

    model: the finished encoder, observation -> features [..., model.width], or a `Memory`, whose state is carried and recorded as
    `recurrent_state`. No log_prob is recorded, and while `warming` is set actions are uniform over the Box instead, by the same numbers.
    Weights are torch's.
    sde: state-dependent exploration, Raffin et al. 2021: action = squash(mean + features @ E), where E [width, D]
    ~ N(0, exp(log_std)^2) is held, in each environment, for `sde_every` steps, at most to the episode's end (0: until that end).
    Over the draws of E the action has std(s) = sqrt(features^2 @ exp(log_std)^2), with no gradient into the features: the
    distribution that the losses use, whose rows are drawn by themselves. sde_log_std: log_std at the start.
    Raises Incompatible unless actions are a Box of one axis with finite bounds, BadInput for a model without `width`.
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
        sde: bool = False,
        sde_every: int = 0,
        sde_log_std: float = -3.0,
    ):
        super().__init__()
        box = _bounded_box(action_space)
        self.normalizer = NoNormalizer() if normalizer is None else normalizer
        self.encoder, self.sde, self.sde_every = model, sde, sde_every
        self.outputs, self.recurrent = box.shape[0], memory_of(model) is not None
        self.register_bounds(box)
        self.register_buffer("warming", torch.zeros((), dtype=torch.bool))
        self.register_buffer("centre", (self.low + self.high) / 2, persistent=False)
        self.register_buffer("half_range", (self.high - self.low) / 2, persistent=False)
        self.register_buffer("log_half", self.half_range.log().sum(), persistent=False)
        self.head = output_layer(model, self.outputs * (1 if sde else 2), "uniform")
        if sde:
            self.log_std = nn.Parameter(
                torch.full((self.head.in_features, self.outputs), sde_log_std, dtype=torch.float32)
            )

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, *, hidden: Sequence[int], activation: str,
        normalize: bool = False, sde: bool = False, sde_every: int = 0, sde_log_std: float = -3.0,
        encoder: EncoderFactory | None = None, memory: Choice = "none", memory_width: int = 128,
    ) -> Squashed:  # fmt: skip
        """The default one: an `Encoder` with torch's weights, or one of the user's, after a normalizer and before a memory where asked
        for."""
        _bounded_box(action_space)  # before a network is made that nobody can use
        model = encoder_for(observation_space, encoder, hidden, activation, "uniform")
        normalizer = observation_normalizer(observation_space, normalize)
        return cls(with_memory(model, memory, memory_width), action_space, normalizer, sde, sde_every, sde_log_std)

    def encode(self, batch: Batch) -> Tensor:
        """Features [..., width] of `observation`: normalizer, then encoder."""
        return self.encoder(self.normalizer(batch["observation"]))

    def distribution(self, features: Tensor) -> SquashedGaussian:
        """The distribution over actions given features."""
        output = self.head(features)
        if self.sde:
            mean = output.clamp(-SDE_MEAN, SDE_MEAN)
            log_std = 0.5 * (features.detach().square() @ (2 * self.log_std).exp() + 1e-6).log()
        else:
            mean, log_std = mean_and_log_std(output)
        return SquashedGaussian(mean, log_std, self.low, self.high)

    def sample(self, observation: Tree, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [..., D] and their log-densities [...] in units of half the action range, differentiable in both. noise [..., D].

        In these units neither an entropy bonus nor a target entropy depends on the bounds.
        """
        return self.draw(self.normalizer(observation), noise)

    def draw(self, seen: Tree, noise: Tensor) -> tuple[Tensor, Tensor]:
        """`sample`, of what the encoder is asked with: normalized observations, or what a memory made of them."""
        unit, log_prob = self.distribution(self.encoder(seen)).unit_sample(noise)
        return torch.addcmul(self.centre, self.half_range, unit), log_prob

    def forward(self, observation: Tree) -> Tensor:
        """The greedy action [..., D]; with a memory, that of an episode's first step."""
        return self.distribution(self.encoder(at_first(self.encoder, self.normalizer(observation)))).mode

    def initial(self, n: int) -> Carry:
        """Under gSDE the standard normal matrices [n, width * D] and how long they have been held [n]; the state of a memory."""
        carry, device = begin(self.encoder, n), self.low.device
        if self.sde:
            carry["exploration"] = torch.zeros(n, self.log_std.numel(), dtype=torch.float32, device=device)
            carry["held"] = torch.zeros(n, dtype=torch.int64, device=device)
        return carry or None

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return SquashedGaussian.noise(shape, self.log_std.numel() if self.sde else self.outputs, generator)

    def act(
        self, observation: Tree, carry: Carry, is_first: Tensor, noise: Drawn, action_mask: Drawn = None
    ) -> Decided:
        seen, after, recorded = remember(self.encoder, self.normalizer(observation), carry, is_first)
        features = self.encoder(seen)
        distribution = self.distribution(features)
        carry = {**(carry or {}), **after} or None
        if noise is None:
            return {"action": distribution.mode, **recorded}, carry
        own = noise[..., : self.outputs]
        if self.sde:
            assert carry is not None
            renew = is_first | (carry["held"] >= self.sde_every) if self.sde_every else is_first
            matrix = torch.where(renew[:, None], noise, carry["exploration"])
            carry |= {"exploration": matrix, "held": torch.where(renew, 1, carry["held"] + 1)}
            matrix = matrix.view(-1, *self.log_std.shape) * self.log_std.exp()
            action = distribution.squash(distribution.mean + (features.unsqueeze(-2) @ matrix).squeeze(-2))
        else:
            action = distribution.sample(own)
        uniform = self.low + (self.high - self.low) * torch.special.ndtr(own)
        return {"action": torch.where(self.warming, uniform, action), **recorded}, carry

    def actor(self, num_envs: int) -> Actor:
        """On the CPU, a small MLP over a float vector runs in numpy over views of the weights; all else is `act`."""
        from whorl.policies.actors.mlp import numpy_network
        from whorl.policies.actors.squashed import sde, squashed

        network = numpy_network(self.normalizer, self.encoder, [self.head], num_envs)
        if network is None:
            return super().actor(num_envs)
        box = self.low.numpy(), self.high.numpy(), self.warming.numpy()
        if self.sde:
            return sde(network, *box, num_envs, self.log_std.detach().numpy(), self.sde_every)
        return squashed(network, *box, num_envs)
