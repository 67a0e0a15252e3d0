"""Transforms of rewards by hand; statistics count what was before them."""

import json
import math

import numpy as np
import pytest
import torch

import whorl
from tests.envs.test_paid_apart import Two
from whorl import batch
from whorl.collectors.serial import SerialCollector
from whorl.envs.adapters.mo_gymnasium import Apart, MoGymnasium
from whorl.envs.make import make_env
from whorl.errors import BadInput, Incompatible
from whorl.policies.random import Random
from whorl.transforms.env import Transformed
from whorl.transforms.reward import (
    BinarizeReward,
    ClipReward,
    Linearize,
    NormalizeReward,
    RewardToGo,
    ScaleReward,
    SignReward,
    SumReward,
)


@pytest.mark.parametrize(
    ("transform", "judged"),
    [
        (ScaleReward(2.0, -1.0), [-5.0, -1.0, 0.0]),
        (ClipReward(), [-1.0, 0.0, 0.5]),
        (ClipReward(0.25, None), [0.25, 0.25, 0.5]),
        (SignReward(), [-1.0, 0.0, 1.0]),
        (BinarizeReward(), [0.0, 0.0, 1.0]),
    ],
    ids=repr,
)
def test_one_reward(transform, judged):
    for reward in (np.float32([-2.0, 0.0, 0.5]), torch.tensor([-2.0, 0.0, 0.5])):
        assert transform.judge(reward).tolist() == judged
        assert "float32" in str(transform.judge(reward).dtype)


def test_the_sum_so_far():
    env = Transformed(make_env("CartPole-v1", 2, max_episode_steps=4), ScaleReward(0.5), SumReward())
    assert env.reset(0)["episode_reward"].tolist() == [[0]] * 2
    sums = [env.step(np.zeros(2, np.int64)) for _ in range(3)]
    assert [step.observation["episode_reward"][0, 0] for step in sums] == [0.5, 1, 1.5]
    step = env.step(np.zeros(2, np.int64))
    assert step.next_observation["episode_reward"].tolist() == [[2]] * 2
    assert step.observation["episode_reward"].tolist() == [[0]] * 2


def test_one_reward_from_several():
    env = Transformed(MoGymnasium(Two, 2, wrappers=(Apart,)), Linearize([2.0, 0.5]))
    assert env.scalar_reward
    rollout = SerialCollector(env, Random(env.action_space), 3).collect()
    assert rollout["next", "reward"].tolist() == [[2 * t - 0.5] * 2 for t in (1, 2, 3)]
    reward = rollout["next", "reward"].clone()
    rollout["next", "reward"] = torch.zeros(3, 2)
    assert (env[0](rollout)["next", "reward"] == reward).all()
    step = env.step(np.zeros(2, np.int64), np.array([True, False]))
    assert step.reward.tolist() == [1.5, 0.0]
    three = Transformed(MoGymnasium(Two, 2, wrappers=(Apart,)), Linearize([1.0] * 3))
    three.reset()
    with pytest.raises(BadInput, match=r"Linearize has 3 weights, and the reward of .* is 2 numbers"):
        three.step([0, 0])
    plain = Transformed(make_env("CartPole-v1", 2), Linearize([1.0]))
    plain.reset()
    with pytest.raises(BadInput, match=r"Linearize has 1 weights, and the reward of .* is one number"):
        plain.step(np.zeros(2, np.int64))


def test_the_reward_to_go():
    flag = torch.tensor([[False], [True], [False]])
    rows = batch.make(
        {"next": {"reward": torch.ones(3, 1), "terminated": flag, "truncated": torch.zeros(3, 1, dtype=bool)}}, (3, 1)
    )
    assert RewardToGo(0.5)(rows)["reward_to_go"].tolist() == [[1.5], [1], [1]]
    with pytest.raises(Incompatible, match="it looks ahead"):
        Transformed(make_env("CartPole-v1"), RewardToGo())


def test_the_spread_of_returns_of_rows_that_count():
    """Returns 1 and 1.5 of row 0; row 1 stands in the second step, so it counts once."""
    env = Transformed(make_env("CartPole-v1", 2), NormalizeReward(0.5))
    env.reset(0)
    env.step(np.zeros(2, np.int64))
    step = env.step(np.zeros(2, np.int64), np.array([True, False]))
    learned = env.learned()
    variance = (
        1e-4 * (1 + (7 / 6) ** 2) + 3 * np.var([1, 1, 1.5])
    ) / 3  # a first one of weight 1e-4: mean 0, variance 1
    assert learned["NormalizeReward1.variance"] == pytest.approx(variance, rel=1e-3)
    assert step.reward.tolist() == [pytest.approx(1 / math.sqrt(variance), rel=1e-3), 0]
    other = Transformed(make_env("CartPole-v1", 2), NormalizeReward(0.5))
    other.load_learned(learned)
    assert other.learned() == learned


def test_statistics_are_raw(tmp_path):
    """A policy that learns nothing: the same actions, and the returns of the log and of evaluations are those without ClipReward."""

    def returns(**chain):
        run = whorl.train(
            "ppo", "Pendulum-v1", total_steps=160, num_envs=2, max_episode_steps=20, feed={"steps": 40, "epochs": 1},
            hidden=(4,), learning_rate=0.0, eval_every=80, eval_episodes=2, runs=tmp_path, quiet=True, **chain,
        )  # fmt: skip
        rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        return {
            name: [row[name] for row in rows if name in row] for row in rows for name in row if name != "time/seconds"
        }

    clipped, plain = returns(transforms=[{"name": "clip_reward", "low": -0.5}]), returns()
    for name in ("eval/mean_reward", "eval/std_reward", "rollout/ep_rew_mean", "rollout/ep_rew_std"):
        assert clipped[name] == plain[name]
    assert clipped["train/value_loss"] != plain["train/value_loss"]
    env = whorl.make_env("Pendulum-v1", 2, transforms=[{"name": "clip_reward", "low": -0.5}])
    rollout = SerialCollector(env, Random(env.action_space), 30)
    assert rollout.collect()["next", "reward"].min() == -0.5


def test_wrong_arguments():
    for wrong, message in (
        (lambda: ClipReward(None, None), "ClipReward needs a bound"),
        (lambda: ClipReward(2, 1), "low no more than high, got 2 and 1"),
        (lambda: ScaleReward(math.nan), "finite numbers, got scale nan"),
        (lambda: NormalizeReward(1.5), "a discount from 0 to 1 and epsilon above 0, got 1.5"),
        (lambda: Linearize([math.inf]), r"a finite number for each reward, got \[inf\]"),
    ):
        with pytest.raises(BadInput, match=message):
            wrong()
