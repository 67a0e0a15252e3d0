"""Transforms that play or draw, around a world of tensors: the numbers that they give in numpy. "cpu:0" is a device as any other."""

import numpy as np
import pytest
import torch

from whorl.envs.make import make_env
from whorl.envs.native.device import DeviceWorld
from whorl.transforms.action import DiscretizeAction, StickyAction
from whorl.transforms.env import Transformed
from whorl.transforms.episode import NoopStart, RandomTruncation, StepCount, TerminateWhen
from whorl.transforms.macro import MultiAction, Repeat
from whorl.transforms.reward import NormalizeReward, SumReward

N = 4
CHAINS = {
    "repeat": ("CartPole-v1", lambda: (Repeat(3, discount=0.9), SumReward())),
    "maximum": ("Pendulum-v1", lambda: (Repeat(2, maximum=True), DiscretizeAction(5))),
    "several": ("CartPole-v1", lambda: (MultiAction(2, discount=0.5), NormalizeReward())),
    "start": ("Pendulum-v1", lambda: (NoopStart(3, noop=1.0), RandomTruncation(3, 9, later=0.5), StepCount())),
    "sticky": ("CartPole-v1", lambda: (StickyAction(0.5), TerminateWhen("<", -0.02, index=0))),
}


@pytest.mark.parametrize("name", CHAINS)
def test_tensors_and_numpy_agree(name):
    id, chain = CHAINS[name]
    one, other = (
        Transformed(world, *chain())
        for world in (make_env(id, N, max_episode_steps=11), DeviceWorld(id, N, max_episode_steps=11, device="cpu:0"))
    )
    close(one.reset(3), other.reset(3))
    rng = np.random.default_rng(0)
    for t in range(25):
        space = one.action_space
        choices = getattr(space, "nvec", getattr(space, "n", None))
        action = (
            rng.uniform(-2, 2, (N, *space.shape)).astype(np.float32)
            if choices is None
            else rng.integers(0, choices, (N, *space.shape))
        )
        rows = None if t % 3 else rng.random(N) < 0.5
        a, b = one.step(action, rows), other.step(other_kind(action), None if rows is None else other_kind(rows))
        for x, y in zip((*a[:4], a.discount), (*b[:4], b.discount), strict=True):
            close(x, y)
        valid = (np.ones(N, bool) if step.valid is None else np.asarray(step.valid) for step in (a, b))
        np.testing.assert_array_equal(*valid)
        if one.raw_reward is not None:
            close(one.raw_reward, other.raw_reward)


def other_kind(x):
    return torch.as_tensor(x, device="cpu:0")


def close(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            close(one[key], other[key])
    elif one is None:
        assert other is None
    else:
        np.testing.assert_allclose(one, other.numpy(), 1e-4, 1e-4)
        assert str(one.dtype) == str(other.dtype).removeprefix("torch.")
