"""Episodes that nobody saw the end of, because what stepped them died: they join nothing, and no statistics hold them."""

import gymnasium
import numpy as np
import pytest
import torch

from whorl.agents.a2c import A2C, A2CConfig
from whorl.agents.cem import CEM, CEMConfig
from whorl.batch import get
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.lookup.n_step import NStep
from whorl.buffers.sample_uniform import Uniform
from whorl.buffers.storage_memory import Memory
from whorl.collectors.serial import SerialCollector
from whorl.collectors.stream import StreamCollector
from whorl.collectors.tally import Tally
from whorl.envs.check_calls import Calls
from whorl.envs.env import Env, Step
from whorl.errors import EnvError
from whorl.feeds import Rollouts
from whorl.nets.linear_q import LinearQ
from whorl.nets.tile_coding import Raw
from whorl.policies.greedy import Greedy
from whorl.policies.stochastic import Stochastic
from whorl.training.evaluate import evaluate
from whorl.transforms.chain import chain

LENGTH = 6


class Dying(Env):
    """Each row counts its steps, is paid 1 for each, and its episode ends after LENGTH. In the steps `deaths` (step: row) a row is lost,
    and is back `away` steps later; until then its rows are invented."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    id = "Dying"
    partial = frozenset({"restart", "rows"})

    def __init__(self, deaths, num_envs=2, away=2):
        self.deaths, self.num_envs, self.away = deaths, num_envs, away

    def reset(self, seed=None):
        self.steps = 0
        self.count, self.gone = np.zeros(self.num_envs, int), np.zeros(self.num_envs, int)
        return self.observation()

    def observation(self):
        return self.count[:, None].astype(np.float32)

    def step(self, action, rows=None):
        lost = np.zeros(self.num_envs, bool)
        if self.steps in self.deaths:
            lost[self.deaths[self.steps]] = True
        self.steps += 1
        self.gone[lost] = self.away
        valid = (self.gone == 0) & (True if rows is None else rows)
        self.count += valid
        back = self.gone == 1
        self.gone = np.maximum(self.gone - 1, 0)
        ended = (self.count == LENGTH) & valid
        self.count[back & ~lost] = 0
        here = successor = self.observation()
        if (ended | (back & lost)).any():
            self.count[ended | back] = 0
            here = self.observation()
        reward = valid.astype(np.float32)
        return Step(here, reward, ended, lost, successor, None if valid.all() else valid)


def policy(env):
    return Stochastic.build(env.observation_space, env.action_space)


def test_a_lost_episode_is_counted_as_lost_and_in_no_statistics():
    env = Dying({3: 0})
    collector = SerialCollector(env, policy(env), 16)
    rollout = collector.collect()
    # row 0: 3 steps, lost, 2 invented rows, then two whole episodes would need 12 steps: one fits
    assert [(e.env, e.ret, e.length) for e in collector.episodes] == [(1, 6.0, 6), (0, 6.0, 6), (1, 6.0, 6)]
    assert collector.lost == 1 and collector.steps == 16 + 14
    mask, truncated = rollout["mask"][:, 0], rollout["next", "truncated"][:, 0]
    assert (~mask).nonzero().flatten().tolist() == [3, 4] and truncated.nonzero().flatten().tolist() == [3]
    assert rollout["next", "reward"][3, 0] == 0 and not rollout["next", "terminated"][3, 0]
    assert torch.equal(rollout["next", "observation"][3, 0], rollout["observation"][3, 0])
    assert rollout["is_first"][4:6, 0].all() and rollout["observation"][5, 0] == 0


def test_lost_is_kept_with_the_run():
    env = Dying({3: 0, 9: [0, 1]})
    first = SerialCollector(env, policy(env), 16)
    first.collect()
    assert first.lost == 3
    second = SerialCollector(Dying({}), policy(env), 16)
    second.load_state(*first.state())
    assert second.lost == 3


def test_the_online_collector_does_the_same():
    env = Dying({3: 0})
    q = LinearQ(Raw(env.observation_space), 2)
    collector = StreamCollector(env, Greedy(q, env.action_space, epsilon=0.0))
    episodes, rows = [], []
    for _ in range(16):
        rollout = collector.collect()
        rows.append((rollout["is_first"][0, 0].item(), rollout["mask"][0, 0].item()))
        episodes += collector.episodes
    assert [(e.env, e.ret, e.length) for e in episodes] == [(1, 6.0, 6), (0, 6.0, 6), (1, 6.0, 6)]
    assert collector.lost == 1 and collector.steps == 30
    assert rows[3:6] == [(False, False), (True, False), (True, True)]


def test_what_the_run_asked_of_info_is_dropped_with_the_episode():
    env = Dying({3: 0})
    collector = SerialCollector(env, policy(env), 16)
    collector.recorder.tally = Tally({"nonzero_rewards": "sum"}, 2)
    collector.collect()
    assert [e.info for e in collector.episodes] == [(6.0,)] * 3


def test_no_advantage_joins_two_episodes():
    """Where an episode was lost, its last state is worth what the critic says: A_{t-1} is that of a time limit there, exactly."""
    env = Dying({3: 0})
    config = A2CConfig(discount=0.9, trace_decay=0.8, feed=Rollouts(steps=16))
    agent = A2C.build(env.observation_space, env.action_space, config)
    rollout = SerialCollector(env, agent.policy, 16).collect()
    value = agent.value(rollout["observation"]).detach()[:, 0]
    advantage = agent.prepare(rollout)["advantage"][:, 0]
    delta = [1 + 0.9 * value[t + 1] - value[t] for t in range(3)]
    expected = delta[2]
    torch.testing.assert_close(advantage[2], expected)
    torch.testing.assert_close(advantage[1], delta[1] + 0.9 * 0.8 * expected)
    assert advantage[3] == 0


def test_no_n_step_return_joins_two_episodes():
    env = Dying({3: 0})
    buffer = ReplayBuffer(Memory(40, 2), Uniform(0), [NStep(3, 0.5)])
    buffer.add(SerialCollector(env, policy(env), 16).collect())
    rows = buffer.sample(400)
    of_lost = (rows["index"] % 2 == 0) & (rows["index"] < 6)  # the three rows of row 0 before it was lost
    sums = {
        int(x): float(y) for x, y in zip(rows["observation"][of_lost], rows["next", "reward"][of_lost], strict=True)
    }
    assert sums == {0: 1.75, 1: 1.5, 2: 1.0}
    assert (rows["next", "observation"][of_lost] == 3).all() and not rows["next", "terminated"][of_lost].any()


def test_a_population_is_not_judged_by_what_was_lost():
    env = Dying({3: 0}, num_envs=4)
    config = CEMConfig(feed=Rollouts(steps=8, unit="episode"))
    agent = CEM.build(env.observation_space, env.action_space, config)
    rollout = SerialCollector(env, agent.policy, 8, whole_episodes=True).collect()
    assert get(rollout, "mask") is not None
    assert (agent.prepare(rollout)["return"] == LENGTH).all()


def test_evaluation_plays_another_episode():
    env = Dying({3: 0, 20: 1})
    result = evaluate(policy(env), env, 6, 0)
    assert result.returns.tolist() == [6.0] * 6 and result.lengths.tolist() == [6] * 6 and result.cut == 0


@pytest.mark.parametrize("away", [1, 2, 5])
@pytest.mark.parametrize("spec", [{"name": "repeat", "count": 2}, {"name": "stack_frames", "count": 3}, "step_count"])
def test_through_transforms(spec, away):
    env = chain([spec]).around(Dying({3: 0}, away=away), training=True)
    collector = SerialCollector(env, policy(env), 12)
    rollout = collector.collect()
    lost = (rollout["next", "truncated"] & ~rollout["mask"])[:, 0]
    assert collector.lost == lost.sum() == 1
    t = int(lost.nonzero())
    assert (rollout["next", "observation"][t, 0] == rollout["observation"][t, 0]).all()
    assert rollout["next", "reward"][t, 0] == 0
    assert {e.ret for e in collector.episodes} == {6.0}
    first = int(rollout["mask"][t:, 0].nonzero()[0]) + t
    assert rollout["is_first"][first, 0] and (rollout["observation"][first, 0] == rollout["observation"][0, 0]).all()


def test_flags_of_invented_rows_are_held_to_the_contract():
    class Wrong(Dying):
        def step(self, action, rows=None):
            step = super().step(action)
            return step._replace(terminated=step.truncated, truncated=step.truncated & False)

    calls = Calls(Wrong({1: 0}), 0)
    calls.reset(0)
    calls.step(calls.sample())
    with pytest.raises(EnvError, match="no flag set but truncated, where an episode was lost"):
        calls.step(calls.sample())
    calls = Calls(Dying({1: 0}), 0)
    calls.reset(0)
    for _ in range(12):
        calls.step(calls.sample())
    assert calls.cut_after == []  # lost is no time limit


def test_two_halves_of_a_step():
    env, other = Dying({3: 0}), Dying({3: 0})
    env.reset(), other.reset()
    for _ in range(8):
        action = np.zeros(2, int)
        env.send(action)
        one, two = env.receive(), other.step(action)
        assert np.array_equal(one.observation, two.observation) and np.array_equal(one.truncated, two.truncated)


class Lives(Dying):
    """A game is two of its episodes."""

    def reset(self, seed=None):
        self.ends = np.zeros(self.num_envs, int)
        return super().reset(seed)

    def step(self, action, rows=None):
        step = super().step(action, rows)
        self.ends += step.terminated
        return step._replace(info={"game_over": step.terminated & (self.ends % 2 == 0)})


def test_statistics_are_of_whole_games():
    env = Lives({})
    collector = SerialCollector(env, policy(env), 25)
    collector.recorder.tally = Tally({"nonzero_rewards": "sum"}, 2)
    rollout = collector.collect()
    assert rollout["next", "terminated"].sum() == 8 and rollout["is_first"].sum() == 2 + 8
    assert [(e.ret, e.length, e.info) for e in collector.episodes] == [(12.0, 12, (12.0,))] * 4
    assert "game_over" not in rollout.keys()  # noqa: SIM118
    assert evaluate(policy(env), env, 4, 0).returns.tolist() == [12.0] * 4
    online = StreamCollector(Lives({}), Greedy(LinearQ(Raw(env.observation_space), 2), env.action_space, epsilon=0.0))
    games = []
    for _ in range(25):
        online.collect()
        games += online.episodes
    assert [(e.ret, e.length) for e in games] == [(12.0, 12)] * 4
