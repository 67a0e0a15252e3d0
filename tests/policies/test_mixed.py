"""Choices and numbers at once: against torch.distributions on random inputs, and acting in a space of both."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal, kl_divergence

from whorl.errors import Incompatible
from whorl.policies.distributions import Categorical, Gaussian
from whorl.policies.mixed import Mixed, MixedRandom, Parts, stochastic_for
from whorl.policies.stochastic import Stochastic

SIZES, D = (2, 3), 2
BOX = spaces.Box(-1, 1, (4,), np.float32)
SPACE = spaces.Tuple((spaces.MultiDiscrete(SIZES), spaces.Box(np.float32([-1, 2]), np.float32([3, 4]))))


def drawn(seed: int, rows: int = 50) -> tuple[Parts, list[TorchCategorical], Normal]:
    """One of ours, and the independent parts that torch has for it."""
    g = torch.Generator().manual_seed(seed)
    logits, mean, log_std = (torch.randn(rows, n, generator=g, dtype=torch.float64) for n in (sum(SIZES), D, D))
    ours = Parts(Categorical(logits, SIZES, False), Gaussian(mean, log_std))
    return ours, [TorchCategorical(logits=part) for part in logits.split(SIZES, -1)], Normal(mean, log_std.exp())


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_sum_of_torch_s_parts(seed):
    ours, choices, normal = drawn(seed)
    torch.manual_seed(seed)
    taken, numbers = [each.sample() for each in choices], normal.sample()
    action = torch.cat([torch.stack(taken, -1).double(), numbers], -1)
    expected = sum(each.log_prob(a) for each, a in zip(choices, taken, strict=True)) + normal.log_prob(numbers).sum(-1)
    torch.testing.assert_close(ours.log_prob(action), expected)
    torch.testing.assert_close(ours.entropy(), sum(each.entropy() for each in choices) + normal.entropy().sum(-1))
    other, others, another = drawn(seed + 100)
    divergence = sum(kl_divergence(p, q) for p, q in zip(choices, others, strict=True))
    torch.testing.assert_close(ours.kl(other), divergence + kl_divergence(normal, another).sum(-1))
    modes = torch.stack([each.probs.argmax(-1) for each in choices], -1)
    assert torch.equal(ours.mode, torch.cat([modes.double(), normal.mean], -1))


def test_samples_have_the_moments_of_torch_s_parts_and_are_independent():
    n, policy = 200_000, stochastic_for(SPACE).build(BOX, SPACE, hidden=(8,))
    assert type(policy) is Mixed
    with torch.no_grad():
        policy.choices.head.bias.copy_(torch.tensor([0.5, -0.5, 1.0, 0.0, -1.0]))
        policy.numbers.head.bias.copy_(torch.tensor([0.7, -2.0]))
        policy.numbers.log_std.copy_(torch.tensor([-0.5, 0.3]))
        ours = policy.distribution(policy.encode({"observation": torch.zeros(n, 4)}))
        action = ours.sample(policy.noise((n,), torch.Generator().manual_seed(0)))
    assert action.dtype == torch.float32 and action.shape == (n, 4)
    for column, logits in enumerate(ours.choices.logits[0].split(SIZES)):
        found = torch.bincount(action[:, column].long(), minlength=len(logits)) / n
        torch.testing.assert_close(found, logits.softmax(-1), atol=5e-3, rtol=0)
    numbers = action[:, 2:]
    torch.testing.assert_close(numbers.mean(0), ours.numbers.mean[0], atol=1e-2, rtol=0)
    torch.testing.assert_close(numbers.std(0), ours.numbers.log_std[0].exp(), atol=1e-2, rtol=0)
    assert (torch.corrcoef(action.T) - torch.eye(4)).abs().max() < 0.01
    torch.testing.assert_close(-ours.log_prob(action).mean(), ours.entropy()[0], atol=1e-2, rtol=0)


def test_masks_are_of_the_choices_and_squash_is_of_the_box():
    policy = stochastic_for(SPACE).build(BOX, SPACE, hidden=(8,), squash=True)
    mask = torch.tensor([[False, True, True, False, True]]).expand(500, 5)
    noise = 3 * policy.noise((500,), torch.Generator().manual_seed(0))
    decided, _ = policy.act(torch.zeros(500, 4), None, torch.ones(500, dtype=torch.bool), noise, mask)
    choices, numbers = decided["action"][:, :2], decided["action"][:, 2:]
    assert (choices[:, 0] == 1).all() and set(choices[:, 1].tolist()) == {0, 2}
    low, high = torch.tensor(SPACE[1].low), torch.tensor(SPACE[1].high)
    assert ((numbers > low) & (numbers < high)).all() and decided["log_prob"].isfinite().all()


def test_random_is_uniform_over_both_kinds():
    policy, first = MixedRandom(SPACE), torch.ones(3000, dtype=torch.bool)
    noise = policy.noise((3000,), torch.Generator().manual_seed(0))
    action = policy.act(None, None, first, noise)[0]["action"]
    assert {tuple(row) for row in action[:, :2].tolist()} == {(i, j) for i in range(2) for j in range(3)}
    torch.testing.assert_close(action[:, 2:].mean(0), torch.tensor([1.0, 3.0]), atol=0.1, rtol=0)
    mask = torch.tensor([[True, False, False, False, True]]).expand(3000, 5)
    assert policy.act(None, None, first, noise, mask)[0]["action"][:, :2].unique(dim=0).tolist() == [[0, 2]]


def test_other_tuples_are_refused():
    for space in (spaces.Tuple((SPACE[1], SPACE[0])), spaces.Tuple((spaces.Discrete(2), SPACE[1]))):
        for make in (lambda space: stochastic_for(space).build(BOX, space), MixedRandom):
            with pytest.raises(Incompatible, match=r"a mixed action is Tuple\(MultiDiscrete, Box of one axis\), got"):
                make(space)
    with pytest.raises(Incompatible, match="a stochastic policy acts in"):
        Stochastic(torch.nn.Identity(), SPACE)
