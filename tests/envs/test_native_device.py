"""The torch versions of the worlds: the same streams, numbers and episodes as the compiled ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from whorl.envs.native import make
from whorl.envs.native.device import WORLDS, DeviceWorld
from whorl.errors import BadInput


@pytest.mark.parametrize("id", WORLDS)
def test_equal_to_the_compiled_world_over_thousands_of_steps(id):
    rng = np.random.default_rng(0)
    ours, theirs = DeviceWorld(id, 16, seed=7, device="cpu"), make(id, 16, seed=7)
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    np.testing.assert_array_equal(ours.reset().numpy(), theirs.reset())
    ends = 0
    for t in range(1100):  # the longest time limit is 999
        if id == "Acrobot-v1" and t % 20 == 0:  # chaotic: the last bits of a cosine grow by themselves
            ours.load_state(theirs.state())
        if hasattr(theirs.action_space, "n"):
            action = rng.integers(0, theirs.action_space.n, 16)
        else:
            action = rng.uniform(-2.5, 2.5, (16, 1)).astype(np.float32)
        mine, other = ours.step(torch.from_numpy(action)), theirs.step(action)
        state, expected = ours.state(), theirs.state()
        np.testing.assert_allclose(state["state"], expected["state"], rtol=0, atol=1e-9)
        for name in ("episode", "elapsed", "seed"):
            np.testing.assert_array_equal(state[name], expected[name])
        assert torch.equal(mine.terminated, torch.from_numpy(other.terminated))
        assert torch.equal(mine.truncated, torch.from_numpy(other.truncated))
        for left, right in zip(mine[:5], other[:5]):
            assert left.dtype == torch.from_numpy(right).dtype
        np.testing.assert_allclose(mine.reward.numpy(), other.reward, rtol=1e-6)
        np.testing.assert_allclose(mine.observation.numpy(), other.observation, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(mine.next_observation.numpy(), other.next_observation, rtol=1e-6, atol=1e-7)
        ends += int((other.terminated | other.truncated).sum())
    assert ends >= 16


@pytest.mark.parametrize("id", WORLDS)
def test_starts_have_the_same_bits(id):
    ours, theirs = DeviceWorld(id, 100, seed=-3, device="cpu"), make(id, 100, seed=-3)
    for _ in range(5):
        ours.reset(), theirs.reset()
        np.testing.assert_array_equal(ours.state()["state"], theirs.state()["state"])


@pytest.mark.parametrize("id", WORLDS)
def test_a_run_moves_between_the_two_versions(id):
    ours, theirs = DeviceWorld(id, 3, seed=1, device="cpu"), make(id, 3, seed=2)
    theirs.reset()
    action = np.zeros((3, *theirs.action_space.shape), theirs.action_space.dtype)
    for _ in range(5):
        theirs.step(action)
    observation = ours.load_state(theirs.state())
    np.testing.assert_allclose(observation.numpy(), theirs.load_state(theirs.state()), rtol=1e-6)
    ours.step(torch.from_numpy(action))
    theirs.load_state(ours.state())
    for name, part in ours.state().items():
        np.testing.assert_array_equal(theirs.state()[name], part)
    assert (ours.state()["elapsed"] == 6).all() and ours.state()["seed"] == 2


@pytest.mark.parametrize("id", WORLDS)
def test_a_step_never_asks_the_device_for_a_value(id):
    # Fake tensors have no values: what would make the host wait for a number raises
    with FakeTensorMode():
        env = DeviceWorld(id, 4, device="cpu")
        env.reset(0)
        action = torch.zeros(
            (4, *env.action_space.shape), dtype=torch.float32 if env.action_space.shape else torch.int64
        )
        step = env.step(action)
        assert step.reward.shape == (4,) and step.next_observation is not step.observation
        with pytest.raises(DataDependentOutputException):
            bool(step.terminated.any())  # what such a step would do


def test_bad_input_is_named():
    with pytest.raises(
        BadInput,
        match="GridWorld-v0 has no version in torch, which prefer='torch' and .* need; those that have one: CartPole",
    ):
        make("GridWorld-v0", device="cuda")
    env = DeviceWorld("Pendulum-v1", 2, device="cpu")
    with pytest.raises(BadInput, match="step before the first reset"):
        env.step(torch.zeros(2, 1))
    env.reset()
    with pytest.raises(BadInput, match=r"expected actions of shape \(2, 1\), got \(2,\)"):
        env.step(torch.zeros(2))
    with pytest.raises(BadInput, match=r"expected a state of shape \(2, 2\), got \(3, 2\)"):
        env.load_state({**env.state(), "state": np.zeros((3, 2))})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("id", WORLDS)
def test_the_same_numbers_on_cuda_without_waiting_for_it(id):
    there, here = (DeviceWorld(id, 64, 3, max_episode_steps=25, device=device) for device in ("cuda", "cpu"))
    there.reset(), here.reset()
    actions = (
        torch.arange(64, dtype=torch.float32)[:, None] / 32 - 1 if here.action_space.shape else torch.arange(64) % 2
    )
    on_device = actions.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        mine = [there.step(on_device) for _ in range(60)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for step in mine:
        for left, right in zip(step[:5], here.step(actions)[:5]):
            torch.testing.assert_close(left.cpu(), right)
    np.testing.assert_allclose(there.state()["state"], here.state()["state"], atol=1e-9)
