"""Rows without training, and batches of their form without a step."""

import numpy as np
import pytest
import torch

import whorl
from tests.cases import each
from whorl import batch
from whorl.errors import BadInput
from whorl.training.catalog import default_config
from whorl.training.new_agent import new_agent


def policy_of(agent, env):
    return new_agent(agent, env, default_config(agent), 0).policy


def form(rows):
    return {name: (batch.get(rows, name).dtype, tuple(batch.get(rows, name).shape)) for name in batch.names(rows)}


def test_a_fake_batch_has_the_form_of_a_rollout():
    for id, agent, options in each([
        ("CartPole-v1", "ppo", {}),
        ("Pendulum-v1", "sac", {"transforms": ["scale_action", {"name": "stack_frames", "count": 2}]}),
        ("CartPole-v1", "dqn", {"transforms": [{"name": "repeat", "count": 2, "discount": 0.9}]}),
        ("FrozenLake-v1", "random", {}),
        ("Pendulum-v1", "ppo", {"transforms": ["previous_action_reward"]}),
        ("CartPole-v1", "a2c", {"prefer": "gymnasium"}),
    ]):  # fmt: skip
        env = whorl.make_env(id, 3, **options)
        policy = policy_of(agent, env)
        fake, real = whorl.fake_batch(env, policy, (5, 3)), whorl.rollout(env, policy, 5)
        assert form(fake) == form(real) and fake.batch_size == real.batch_size == (5, 3)
        assert whorl.fake_batch(env, policy, (7,)).batch_size == (7,)
        env.close()


def test_a_rollout_is_what_the_environment_did():
    env = whorl.make_env("CartPole-v1", 4)
    policy = policy_of("ppo", env)
    before = {name: x.clone() for name, x in policy.state_dict().items()}
    rows, again = whorl.rollout(env, policy, 60, seed=2), whorl.rollout(env, policy, 60, seed=2)
    assert bool((rows == again).all()) and not bool((rows == whorl.rollout(env, policy, 60, seed=3)).all())
    assert all(torch.equal(x, before[name]) for name, x in policy.state_dict().items())
    world = whorl.make_env("CartPole-v1", 4)
    observation = world.reset(2)
    for t in range(60):
        np.testing.assert_array_equal(rows["observation"][t], observation)
        step = world.step(rows["action"][t].numpy())
        np.testing.assert_array_equal(rows["next"]["observation"][t], step.next_observation)
        observation = step.observation
    for steps in each([0, 2.5, True]):
        with pytest.raises(BadInput, match="a rollout has at least 1 step, got"):
            whorl.rollout(env, policy, steps)
