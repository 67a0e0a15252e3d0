"""Atari games: frames and rewards are Gymnasium's, rows have streams of their own, lives end episodes for a learner and for nobody else."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import gymnasium
import numpy as np
import pytest

import whorl
from whorl.agents.dqn import DQNConfig
from whorl.agents.ppo import PPOConfig
from whorl.collectors.ledger import Episode
from whorl.envs.check import check_env
from whorl.envs.make import EnvKind, make_env
from whorl.errors import BadInput
from whorl.feeds import Replay
from whorl.presets.atari import GAMES
from whorl.training.build import build
from whorl.training.catalog import find
from whorl.training.evaluate import evaluate
from whorl.transforms.chain import chain

pytestmark = pytest.mark.atari
BREAKOUT = "ALE/Breakout-v5"
PLAIN = {"repeat_action_probability": 0.0, "noop_max": 0}
LEARNING = ("end_of_life", "clip_reward")
SEAQUEST = EnvKind("ALE/Seaquest-v5", transforms=chain(LEARNING))


@pytest.mark.parametrize("id", GAMES)
def test_frames_and_rewards_are_those_of_gymnasium(id):
    """Bit for bit through 400 steps, ends of games and the zeros before their first frames included."""
    import ale_py  # noqa: F401  # which registers the ids
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

    one = gymnasium.make(id, frameskip=1, repeat_action_probability=0.0)
    one = FrameStackObservation(AtariPreprocessing(one, noop_max=0), 4, padding_type="zero")
    rng = np.random.default_rng(2)
    with closing(make_env(id, **PLAIN)) as env:
        assert (env.reset(seed=3)[0] == one.reset(seed=3)[0]).all()
        score = 0.0
        for _ in range(400):
            action = rng.integers(0, env.action_space.n, 1)
            step, (observation, reward, terminated, truncated, _) = env.step(action), one.step(int(action[0]))
            assert (step.next_observation[0] == observation).all()
            assert (step.reward[0], step.terminated[0], step.truncated[0]) == (reward, terminated, truncated)
            score += abs(reward)
            if terminated:
                assert (step.observation[0] == one.reset()[0]).all()
            else:
                assert step.observation is step.next_observation
        assert score > 0


def test_rows_have_the_streams_of_the_whole():
    """With sticky actions and no-ops; reset(seed) begins them anew, reset() goes on."""
    with (
        closing(make_env("ALE/Seaquest-v5", 4, seed=5)) as whole,
        closing(make_env("ALE/Seaquest-v5", 2, seed=5)) as part,
    ):
        part.first = 2
        first = whole.reset().copy()
        assert (part.reset() == first[2:]).all()
        for k in range(60):
            action = np.array([1, 2, 3, 2]) if k % 2 else np.array([1, 3, 2, 3])
            there, here = whole.step(action), part.step(action[2:])
            assert (here.observation == there.observation[2:]).all() and (here.reward == there.reward[2:]).all()
        assert len({row.tobytes() for row in there.observation}) == 4
        second = whole.reset().copy()
        assert (second != first).any() and (whole.reset(5) == first).all()


def test_the_contract():
    with closing(make_env(BREAKOUT, 3, seed=1, max_episode_steps=20)) as env:
        check_env(env, steps=60)
        assert (env.origin, env.max_episode_steps, env.state()) == ("ale", 20, None)
        assert env.render().shape == (84, 84, 3)
    with closing(make_env(BREAKOUT, frameskip=2)) as env:
        assert env.max_episode_steps == 54_000


def test_sending_and_receiving_is_a_step():
    with closing(make_env(BREAKOUT, 2, seed=1)) as env, closing(make_env(BREAKOUT, 2, seed=1)) as other:
        env.reset(), other.reset()
        env.send(np.array([1, 0]))
        assert (env.receive().observation == other.step(np.array([1, 0])).observation).all()


def test_lives_and_clipped_rewards_are_for_learning():
    """A lost life is an end for the learner alone: the game goes on, statistics and evaluation know whole games and the score."""
    whole = make_env("ALE/Seaquest-v5", 2, seed=4, **PLAIN)
    kind = replace(SEAQUEST, kwargs=PLAIN)
    learner = kind.make(2, seed=4, training=True)
    whole.reset(), learner.reset()
    rng, lives, games, paid = np.random.default_rng(0), 0, 0, set()
    with closing(whole), closing(learner):
        for _ in range(500):
            action = rng.integers(0, 18, 2)
            game, step = whole.step(action), learner.step(action)
            assert (step.observation == game.observation).all() and (learner.raw_reward == game.reward).all()
            assert (step.info["game_over"] == game.terminated).all() and (step.terminated >= game.terminated).all()
            assert (step.reward == np.clip(game.reward, -1, 1)).all()
            lives, games = lives + step.terminated.sum(), games + game.terminated.sum()
            paid |= {*game.reward.tolist()}
    assert lives >= 2 * games > 0 and max(paid) > 1
    with closing(kind.make(1, seed=4)) as env:
        assert env.origin == "ale" and env.raw_reward is None


def test_statistics_count_whole_games():
    """Those of both collectors and of an evaluation, of what a learner sees end with each life."""
    tiny = replace(SEAQUEST, kwargs={"img_height": 8, "img_width": 8})  # no images, and networks that take no time
    for agent, config in (("ppo", PPOConfig(hidden=(8,))), ("dqn", DQNConfig(epsilon_min=1.0))):
        parts = build(agent, tiny, config, num_envs=2, seed=1)
        ends, episodes = 0, list[Episode]()
        with closing(parts.env):
            while len(episodes) < 3:
                ends += int(parts.collector.collect()["next", "terminated"].sum())
                episodes += parts.collector.episodes
        assert ends > len(episodes)
        assert all(each.length > 100 and each.ret % 20 == 0 for each in episodes)
        assert sum(each.ret for each in episodes) > 0
    with closing(tiny.make(2, training=True)) as env:
        result = evaluate(build("random", tiny).agent.policy, env, episodes=2, seed=0)
        assert (result.lengths > 100).all() and (result.returns % 20 == 0).all() and not result.cut


def test_a_learner_has_these_transforms_where_no_preset_says_which():
    assert find("c51", "ALE/Asterix-v5").transforms == find("ppo", BREAKOUT).transforms == LEARNING
    assert find("c51", "CartPole-v0").transforms == ()


def test_replay_keeps_each_frame_once():
    """Lives that end where the game goes on are stacks like any other: what comes back equals what plain rows hold."""
    small, found = replace(SEAQUEST, kwargs={"img_height": 8, "img_width": 8}), []
    for storage in ("memory", "frames"):
        feed = Replay(capacity=800, warmup=300, batch_size=600, storage=storage)
        parts = build("dqn", small, DQNConfig(hidden=(8,), epsilon_min=1.0, feed=feed), num_envs=2, seed=2)
        with closing(parts.env):
            for _ in range(400):
                parts.buffer.add(parts.agent.prepare(parts.collector.collect()))
            found.append(next(iter(parts.buffer.batches(1))))
    plain, frames = found
    assert plain["next", "terminated"].any()
    for key in ("observation", ("next", "observation"), "action", ("next", "reward"), ("next", "terminated")):
        assert (plain[key] == frames[key]).all(), key


def test_gymnasium_steps_what_the_engine_cannot():
    for options in ({"prefer": "gymnasium"}, {"wrappers": [lambda env: env]}, {"obs_type": "ram"}):
        with closing(make_env("ALE/Pong-v5", **options)) as env:
            assert env.origin == "gymnasium" and env.observation_space.shape in ((210, 160, 3), (128,))


def test_bad_input():
    with pytest.raises(BadInput, match="no environment is called 'ALE/Pog-v5'; near matches: ALE/Pong-v5, "):
        make_env("ALE/Pog-v5")
    with pytest.raises(BadInput, match="frameskip must be at least 1, got 0"):
        make_env(BREAKOUT, frameskip=0)
    with pytest.raises(
        BadInput, match="episodic_life is no option of .*Breakout-v5 but the transform end_of_life, for training"
    ):
        make_env(BREAKOUT, episodic_life=True)
    with pytest.raises(
        BadInput, match="draws with render_mode='rgb_array', and max_episode_steps is at least 1; got 'human' and 27000"
    ):
        make_env(BREAKOUT, render_mode="human")
    with pytest.raises(BadInput, match="Breakout-v5 is stepped by gymnasium on the CPU, got device='cuda'"):
        make_env(BREAKOUT, device="cuda")
    with closing(make_env(BREAKOUT, 2)) as env:
        env.reset()
        with pytest.raises(BadInput, match=r"Breakout-v5: an action is a whole number from 0 to 3, got \[0, 4\]"):
            env.step(np.array([0, 4]))


def test_a_run_records_what_lies_between(tmp_path):
    options = {"feed": {"steps": 8, "minibatches": 1, "epochs": 1}, "num_envs": 2, "total_steps": 32}
    run = whorl.train("ppo", BREAKOUT, runs=tmp_path, name="x", eval_every=0, quiet=True, logger="none", **options)
    assert run.settings.transforms == LEARNING
