"""Mixed actions, of choices and numbers at once: a `Stochastic` for each kind on one encoder, and one distribution of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from whorl.batch import Tree
from whorl.errors import Incompatible
from whorl.nets.normalizer import NoNormalizer, ObservationNormalizer
from whorl.nets.rnn import memory_of
from whorl.policies.distributions import Categorical, Distribution, Gaussian
from whorl.policies.policy import Actor, Carry, Decided, Drawn, Policy
from whorl.policies.random import Random
from whorl.policies.stochastic import Initialization, Mean, Std, Stochastic
from whorl.spaces import describe


@dataclass
class Parts:
    """Independent choices beside a normal: an action [..., K + D] is K choices, as float32, and D numbers."""

    choices: Categorical
    numbers: Gaussian

    def sample(self, noise: Tensor) -> Tensor:
        outputs = sum(self.choices.sizes)
        return _joined(self.choices.sample(noise[..., :outputs]), self.numbers.sample(noise[..., outputs:]))

    @property
    def mode(self) -> Tensor:
        return _joined(self.choices.mode, self.numbers.mode)

    def log_prob(self, action: Tensor) -> Tensor:
        """log P(choices) + log p(numbers), [...]: a density in the numbers."""
        count = len(self.choices.sizes)
        return self.choices.log_prob(action[..., :count]) + self.numbers.log_prob(action[..., count:])

    def entropy(self) -> Tensor:
        return self.choices.entropy() + self.numbers.entropy()

    def kl(self, other: Parts) -> Tensor:
        return self.choices.kl(other.choices) + self.numbers.kl(other.numbers)

    def tensors(self) -> dict[str, Tensor]:
        return self.choices.tensors() | self.numbers.tensors()

    def restore(self, tensors: Mapping[str, Tensor]) -> Self:
        return type(self)(self.choices.restore(tensors), self.numbers.restore(tensors))


class Mixed(Stochastic):
    """Acts in Tuple((MultiDiscrete, Box of one axis)). Options are those of `Stochastic`; the Gaussian's are for the Box.

    Raises Incompatible for any other space, and what `Stochastic` does.
    """

    def __init__(
        self, model: nn.Module, action_space: spaces.Space, normalizer: ObservationNormalizer | None = None,
        std: Std = "independent", fixed_std: float = 1.0, mean: Mean = "linear", scale: bool = False, squash: bool = False,
        initialization: Initialization = "orthogonal",
    ):  # fmt: skip
        Policy.__init__(self)
        self.normalizer = NoNormalizer() if normalizer is None else normalizer
        self.encoder, self.critic, self.recurrent = model, None, memory_of(model) is not None
        choices, numbers = _kinds(action_space)
        self.choices = Stochastic(_Features(model), choices, initialization=initialization)
        self.numbers = Stochastic(_Features(model), numbers, None, std, fixed_std, mean, scale, squash, initialization)

    def distribution(self, features: Tensor, action_mask: Tensor | None = None) -> Distribution:
        choices, numbers = self.choices.distribution(features, action_mask), self.numbers.distribution(features)
        assert isinstance(choices, Categorical) and isinstance(numbers, Gaussian)
        return Parts(choices, numbers)

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return _joined(self.choices.noise(shape, generator), self.numbers.noise(shape, generator))

    def actor(self, num_envs: int) -> Actor:
        """`act`: there is no faster twin."""
        return Policy.actor(self, num_envs)


def stochastic_for(action_space: spaces.Space) -> type[Stochastic]:
    """The stochastic policy that acts in this space: `Mixed` for choices and numbers at once."""
    return Mixed if isinstance(action_space, spaces.Tuple) else Stochastic


class MixedRandom(Random):
    """Uniform over both kinds, over the allowed choices where a mask is given; the Box must be bounded."""

    def __init__(self, action_space: spaces.Space):
        Policy.__init__(self)
        self.normalizer = NoNormalizer()
        self.choices, self.numbers = map(Random, _kinds(action_space))

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return _joined(self.choices.noise(shape, generator), self.numbers.noise(shape, generator))

    def act(
        self, observation: Tree, carry: Carry, is_first: Tensor, noise: Drawn, action_mask: Drawn = None
    ) -> Decided:
        outputs = sum(self.choices.sizes or ())
        one, other = (None, None) if noise is None else (noise[..., :outputs], noise[..., outputs:])
        choices, _ = self.choices.act(observation, None, is_first, one, action_mask)
        numbers, _ = self.numbers.act(observation, None, is_first, other)
        return {"action": _joined(choices["action"], numbers["action"])}, carry


class _Features(nn.Identity):
    """In the place of an encoder: its features as they are."""

    def __init__(self, model: Any):
        super().__init__()
        self.width: int = model.width


def _kinds(space: spaces.Space) -> tuple[spaces.MultiDiscrete, spaces.Box]:
    match space:
        case spaces.Tuple(spaces=(spaces.MultiDiscrete() as choices, spaces.Box(shape=(_,)) as numbers)):
            return choices, numbers
    raise Incompatible(f"a mixed action is Tuple(MultiDiscrete, Box of one axis), got {describe(space)}")


def _joined(choices: Tensor, numbers: Tensor) -> Tensor:
    return torch.cat([choices.to(numbers.dtype), numbers], -1)
