"""Worlds as pure functions in torch: any leading axes, the numbers of the compiled worlds, gradients; and `prefer="torch"`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import whorl
from whorl.envs import native
from whorl.envs.check import check_env
from whorl.envs.guard import guarded
from whorl.envs.make import make_env
from whorl.envs.native.device import WORLDS, DeviceWorld
from whorl.errors import BadInput

H = 1e-5  # of central differences


def acts(id: str, shape: tuple[int, ...]) -> Tensor:
    """Random actions of the world; its numbers in float64 and far from its bounds."""
    space, rng = WORLDS[id].sibling.action_space, torch.Generator().manual_seed(0)
    if space.shape:
        return torch.rand((*shape, *space.shape), generator=rng, dtype=torch.float64) - 0.5
    return torch.randint(int(space.n), shape, generator=rng)


@pytest.mark.parametrize("id", WORLDS)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_any_leading_axes(id, shape):
    world, n = native.dynamics(id), int(np.prod(shape))
    index = torch.arange(n).reshape(shape)
    state, action = world.start(3, index, 0), acts(id, shape)
    compiled = native.make(id, n, seed=3)
    compiled.reset()
    assert torch.equal(state.reshape(n, -1), torch.from_numpy(compiled.state()["state"]))
    flat = world.step(state.reshape(n, -1), action.reshape(n, *compiled.action_space.shape))
    after = world.step(state, action)
    assert after[0].shape == state.shape and after[1].shape == after[2].shape == shape and after[2].dtype == torch.bool
    for one, other in zip(after, flat):
        torch.testing.assert_close(one.reshape(other.shape), other, rtol=1e-14, atol=1e-14)
    seen = world.observe(state)
    assert seen.shape == (*shape, *compiled.observation_space.shape)
    assert torch.equal(world.observe(state.reshape(n, -1)).reshape(seen.shape), seen)


def test_starts_of_other_episodes_and_seeds_are_those_of_the_world():
    compiled = native.make("Acrobot-v1", 4, seed=-1)
    for episode in range(3):
        compiled.reset()
        state = native.dynamics("Acrobot-v1").start(torch.tensor([[-1]]), torch.arange(4), episode)
        np.testing.assert_array_equal(state[0].numpy(), compiled.state()["state"])


def rollout(id: str, state: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """(return [...], last state [..., S]) of actions [T, ..., D]."""
    step, total = native.dynamics(id).step, torch.zeros(state.shape[:-1], dtype=torch.float64)
    for action in actions:
        state, reward, _ = step(state, action)
        total = total + reward
    return total, state


def differences(function, x: Tensor) -> Tensor:
    """Central differences of function (x [K, *x.shape] -> [K]), in one batch of all numbers of x."""
    steps = H * torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *x.shape)
    return ((function(x + steps) - function(x - steps)) / (2 * H)).reshape(x.shape)


def test_the_gradient_of_a_return_is_that_of_central_differences():
    start = torch.tensor([2.5, 0.3], dtype=torch.float64, requires_grad=True)
    actions = acts("Pendulum-v1", (50,)).requires_grad_()
    total, _ = rollout("Pendulum-v1", start, actions)
    by_start, by_actions = torch.autograd.grad(total, (start, actions))
    start, actions = start.detach(), actions.detach()
    along = differences(lambda s: rollout("Pendulum-v1", s, actions[:, None].expand(-1, len(s), -1))[0], start)
    torch.testing.assert_close(by_start, along, rtol=1e-6, atol=1e-6)
    along = differences(lambda a: rollout("Pendulum-v1", start.expand(len(a), 2), a.movedim(1, 0))[0], actions)
    torch.testing.assert_close(by_actions, along, rtol=1e-6, atol=1e-6)
    assert (by_actions.abs() > 1e-3).sum() > 40  # there is something to compare


@pytest.mark.parametrize("id", [id for id in WORLDS if id not in ("CartPole-v0", "Pendulum-v1")])
def test_so_is_that_of_the_last_state_of_the_other_worlds(id):
    start = native.dynamics(id).start(0, 0, 0).requires_grad_()
    actions = acts(id, (20,))
    weights = torch.arange(1, len(start) + 1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(rollout(id, start, actions)[1] @ weights, start)
    batch = lambda s: rollout(id, s, actions.unsqueeze(1).expand(-1, len(s), *actions.shape[1:]))[1] @ weights  # noqa: E731
    torch.testing.assert_close(gradient, differences(batch, start.detach()), rtol=1e-6, atol=1e-6)
    assert gradient.abs().max() > 0.1


@pytest.mark.parametrize("id", WORLDS)
def test_prefer_torch_gives_tensors_on_the_cpu(id):
    env, compiled = make_env(id, 3, seed=4, prefer="torch"), make_env(id, 3, seed=4)
    assert isinstance(env, DeviceWorld) and repr(env) == f"{id} (torch, 3 at once, on cpu)"
    assert env.made_from.make(2).origin == "torch"
    ours, theirs = env.reset(), compiled.reset()
    assert isinstance(ours, Tensor)
    for action in acts(id, (30, 3)):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-5)
        mine, other = env.step(action), compiled.step(action.numpy())
        np.testing.assert_allclose(mine.reward.numpy(), other.reward, rtol=1e-5)
        ours, theirs = mine.observation, other.observation
    check_env(make_env(id, 2, prefer="torch"), steps=40)


def test_who_collects_reads_the_tensors_as_numpy(tmp_path):
    env = make_env("Pendulum-v1", 2, prefer="torch", max_episode_steps=3)
    world = guarded(env)
    rows = np.array([True, False])
    assert isinstance(world.reset(0), np.ndarray) and isinstance(world.restart(rows), np.ndarray)
    step = world.step(np.zeros((2, 1), np.float32), rows)
    assert all(isinstance(x, np.ndarray) for x in step[:6]) and step.next_observation is step.observation
    step = [world.step(np.zeros((2, 1), np.float32)) for _ in range(2)][-1]
    assert step.truncated.tolist() == [True, False] and step.next_observation is not step.observation
    np.testing.assert_array_equal(world.load_state(env.state()), step.observation)
    run = whorl.train(
        "ppo", make_env("CartPole-v1", 2, prefer="torch"), total_steps=64, eval_episodes=1, quiet=True, runs=tmp_path,
        **{"feed.steps": 16},
    )  # fmt: skip
    assert run.evaluate(2, env=make_env("CartPole-v1", 2, prefer="torch")).lengths.min() > 0


def test_what_has_no_version_in_torch_is_named():
    for id in ("GridWorld-v0", "FrozenLake-v1"):
        for make in (lambda id: make_env(id, prefer="torch"), native.dynamics):
            with pytest.raises(
                BadInput, match=f"{id} has no version in torch, which .*; those that have one: CartPole"
            ):
                make(id)
    message = "CartPole-v1 in torch is a native world, which takes no wrappers and has no option but max_episode_steps; got gravity"
    with pytest.raises(BadInput, match=message):
        make_env("CartPole-v1", prefer="torch", gravity=3.0)
