"""Evaluation: whole episodes, the same number in every environment, own streams, and an end where there is none."""

import gymnasium
import numpy as np
import pytest
import torch

from whorl.envs.env import Env, Step
from whorl.envs.make import make_env
from whorl.errors import BadInput
from whorl.policies.random import Random
from whorl.policies.stochastic import Stochastic
from whorl.training import evaluate as module
from whorl.training.evaluate import eval_envs, evaluate


class Lengths(Env):
    """Environment i always plays episodes of 2 * i + 1 steps, reward 1 each."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    origin = "native"

    def __init__(self, num_envs=4, endless=False):
        self.num_envs, self.endless = num_envs, endless

    def reset(self, seed=None):
        self.t = np.zeros(self.num_envs, int)
        return np.zeros((self.num_envs, 1), np.float32)

    def step(self, action):
        self.t += 1
        done = (self.t > 2 * np.arange(self.num_envs)) & (not self.endless)
        self.t[done] = 0
        observation = np.zeros((self.num_envs, 1), np.float32)
        return Step(observation, np.ones(self.num_envs, np.float32), done, np.zeros(self.num_envs, bool), observation)


def test_short_episodes_are_not_favoured():
    env = Lengths()
    result = evaluate(Random(env.action_space), env, 12, seed=0)
    assert sorted(result.lengths.tolist()) == [1, 1, 1, 3, 3, 3, 5, 5, 5, 7, 7, 7]
    assert result.returns.tolist() == result.lengths.tolist()
    assert result.summary() == {"mean": 4.0, "std": pytest.approx(5**0.5), "min": 1.0, "max": 7.0, "episodes": 12}


def test_episodes_that_cannot_be_shared():
    env = Lengths()
    with pytest.raises(
        BadInput, match="10 episodes cannot be shared equally by 4 environments; ask for a multiple of 4"
    ):
        evaluate(Random(env.action_space), env, 10, seed=0)
    with pytest.raises(BadInput, match="at least 1 episode, got 0"):
        eval_envs(0, "native")
    assert all(n % eval_envs(n, origin) == 0 for n in range(1, 400) for origin in ("native", "gymnasium"))
    assert eval_envs(100, "native") == 100 and eval_envs(100, "gymnasium") == 10


def test_an_episode_without_end_is_cut_and_counted(monkeypatch):
    monkeypatch.setattr(module, "LONGEST", 50)
    env = Lengths(endless=True)
    result = evaluate(Random(env.action_space), env, 8, seed=0)
    assert result.cut == 4 and result.lengths.tolist() == [50] * 4  # each environment is cut once and plays no more


def test_own_streams_and_nothing_changed():
    env = make_env("CartPole-v1", 5, seed=0)
    policy = Stochastic.build(env.observation_space, env.action_space, normalize=True)
    policy.normalizer.merge(policy.normalizer.moments(torch.randn(100, 4)))
    before = {k: v.clone() for k, v in policy.state_dict().items()}
    state = torch.random.get_rng_state()
    a, b, c = (evaluate(policy, env, 20, seed=s).returns for s in (1, 1, 2))
    assert a.tolist() == b.tolist() != c.tolist()
    assert all(torch.equal(v, before[k]) for k, v in policy.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_random_policies_draw_from_the_evaluation_s_stream():
    env = make_env("MountainCarContinuous-v0", 2, seed=0)
    policy = Random(env.action_space)
    assert evaluate(policy, env, 4, seed=1).returns.tolist() == evaluate(policy, env, 4, seed=1).returns.tolist()
    assert len(set(evaluate(policy, env, 4, seed=1).returns.tolist())) > 1
