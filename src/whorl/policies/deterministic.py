"""The deterministic policy of DDPG and TD3: an action inside the bounds, with noise added to explore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from whorl.batch import Batch, Tree
from whorl.errors import BadInput, Incompatible
from whorl.nets.encoder import EncoderFactory, encoder_for
from whorl.nets.heads import output_layer
from whorl.nets.normalizer import NoNormalizer, ObservationNormalizer, observation_normalizer
from whorl.nets.rnn import Choice, at_first, begin, memory_of, remember, with_memory
from whorl.policies.policy import Actor, Carry, Decided, Drawn, Policy
from whorl.spaces import describe, is_bounded

THETA, DT = 0.15, 1e-2  # of Ornstein-Uhlenbeck noise: pull to 0, and the length of a step, as in baselines' code


class Deterministic(Policy):
    """action = low + (high - low) / 2 * (tanh(head(features)) + 1), so that bounds of any size and centre are met.

    model: the finished encoder, observation -> features [..., model.width], or a `Memory`, whose state is carried and recorded as
    `recurrent_state`. Exploring, in units of half the action range and cut at the bounds, it adds
        noise "gaussian": std * z,
        noise "ou":       x <- x - 0.15 x dt + std sqrt(dt) z with dt = 0.01, x = 0 where an episode begins (Ornstein-Uhlenbeck),
    z standard normal; while `warming` is set actions are uniform over the Box instead, by the same numbers.
    Raises Incompatible unless actions are a Box of one axis with finite bounds, BadInput for another noise or a negative std.
    """

    low: Tensor
    high: Tensor
    warming: Tensor

    def __init__(
        self,
        model: nn.Module,
        action_space: spaces.Space,
        noise: Literal["gaussian", "ou"] = "gaussian",
        std: float = 0.1,
        normalizer: ObservationNormalizer | None = None,
    ):
        super().__init__()
        if not isinstance(action_space, spaces.Box) or len(action_space.shape) != 1:
            raise Incompatible(f"a deterministic policy acts in one-axis Box spaces, got {describe(action_space)}")
        if not is_bounded(action_space):
            raise Incompatible(f"a deterministic policy needs finite action bounds, low below high, got {action_space}")
        if noise not in ("gaussian", "ou"):
            raise BadInput(f"noise must be 'gaussian' or 'ou', got {noise!r}")
        if std < 0:
            raise BadInput(f"std is that of the exploration noise and must be at least 0, got {std}")
        self.normalizer = NoNormalizer() if normalizer is None else normalizer
        self.encoder, self.ou = model, noise == "ou"
        self.spread = std * DT**0.5 if self.ou else std  # of what is added to the action in one step
        self.outputs, self.recurrent = action_space.shape[0], memory_of(model) is not None
        self.head = output_layer(model, self.outputs, "uniform")
        self.register_bounds(action_space)
        self.register_buffer("warming", torch.zeros((), dtype=torch.bool))

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, *, hidden: Sequence[int], activation: str,
        noise: Literal["gaussian", "ou"], std: float, normalize: bool = False,
        encoder: EncoderFactory | None = None, memory: Choice = "none", memory_width: int = 128,
    ) -> Deterministic:  # fmt: skip
        """The default one: an `Encoder` with torch's weights, or one of the user's, after a normalizer and before a memory where asked
        for."""
        model = with_memory(
            encoder_for(observation_space, encoder, hidden, activation, "uniform"), memory, memory_width
        )
        return cls(model, action_space, noise, std, observation_normalizer(observation_space, normalize))

    def encode(self, batch: Batch) -> Tensor:
        """Features [..., width] of `observation`: normalizer, then encoder."""
        return self.encoder(self.normalizer(batch["observation"]))

    def unit(self, observation: Tree) -> Tensor:
        """The greedy action in units of half the range around the centre, [..., D] in [-1, 1]; with a memory, that of an episode's first
        step."""
        return self.decide(at_first(self.encoder, self.normalizer(observation)))

    def decide(self, seen: Tree) -> Tensor:
        """The same, of what the encoder is asked with: normalized observations, or what a memory made of them."""
        return self.head(self.encoder(seen)).tanh()

    def scale(self, unit: Tensor) -> Tensor:
        """The action of such units; what lies outside [-1, 1] is cut."""
        return self.low + (self.high - self.low) / 2 * (unit.clamp(-1, 1) + 1)

    def forward(self, observation: Tree) -> Tensor:
        """The greedy action [..., D]."""
        return self.scale(self.unit(observation))

    def initial(self, n: int) -> Carry:
        """The state x of Ornstein-Uhlenbeck noise [n, D], and that of a memory."""
        carry = begin(self.encoder, n)
        if self.ou:
            carry["ou"] = torch.zeros(n, self.outputs, dtype=torch.float32, device=self.low.device)
        return carry or None

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return torch.randn(*shape, self.outputs, dtype=torch.float32, device=generator.device, generator=generator)

    def act(
        self, observation: Tree, carry: Carry, is_first: Tensor, noise: Drawn, action_mask: Drawn = None
    ) -> Decided:
        seen, after, recorded = remember(self.encoder, self.normalizer(observation), carry, is_first)
        unit = self.decide(seen)
        carry = {**(carry or {}), **after}
        if noise is None:
            return {"action": self.scale(unit), **recorded}, carry or None
        added = self.spread * noise
        if self.ou:
            added = (1 - THETA * DT) * torch.where(is_first[:, None], 0.0, carry["ou"]) + added
            carry["ou"] = added
        unit = torch.where(self.warming, torch.special.erf(noise * 0.5**0.5), unit + added)
        return {"action": self.scale(unit), **recorded}, carry or None

    def actor(self, num_envs: int) -> Actor:
        """On the CPU, a small MLP over a float vector runs in numpy over views of the weights; all else is `act`."""
        from whorl.policies.actors.deterministic import deterministic
        from whorl.policies.actors.mlp import numpy_network

        network = numpy_network(self.normalizer, self.encoder, [self.head], num_envs)
        if network is None:
            return super().actor(num_envs)
        box = self.low.numpy(), self.high.numpy(), self.warming.numpy()
        return deterministic(network, *box, num_envs, self.spread, 1 - THETA * DT)
