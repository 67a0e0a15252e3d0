"""The serial collector: what it writes, whole episodes, finished episodes, loud numbers, exact state."""

import gymnasium
import numpy as np
import pytest
import torch

from whorl.batch import check, ended, get
from whorl.collectors.serial import SerialCollector
from whorl.envs.env import Env, Step
from whorl.envs.make import make_env
from whorl.errors import NotFinite
from whorl.policies.random import Random
from whorl.policies.stochastic import Stochastic


class Counter(Env):
    """Environment i counts its steps; its episode ends at i + 2 steps, by termination if i is even, else truncation. No auto-reset tricks:
    the engine resets at once (engine="same") or one step later, inventing a step (engine="next")."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    id = "Counter"

    def __init__(self, num_envs=3, engine="same", bad=None):
        self.num_envs, self.engine, self.bad = num_envs, engine, bad
        self.limit = np.arange(num_envs) + 2

    def reset(self, seed=None):
        self.count, self.pending = np.zeros(self.num_envs, int), np.zeros(self.num_envs, bool)
        return self.observation()

    def observation(self):
        return self.count[:, None].astype(np.float32)

    def step(self, action):
        invented = self.pending.copy()
        self.count = np.where(invented, 0, self.count + 1)
        reward = np.where(invented, 0, self.count).astype(np.float32)
        done = (self.count >= self.limit) & ~invented
        successor = self.observation()
        if self.bad and self.bad[0] == "reward":
            reward[self.bad[1]] = self.bad[2]
        if self.bad and self.bad[0] == "observation":
            successor[self.bad[1]] = self.bad[2]
        if self.engine == "same":
            self.count[done] = 0
        else:
            self.pending = done
        even = np.arange(self.num_envs) % 2 == 0
        valid = None if not invented.any() else ~invented
        return Step(
            self.observation() if done.any() else successor, reward, done & even, done & ~even, successor, valid
        )


def collector(env, steps=8, policy=None, **options):
    return SerialCollector(env, policy or Stochastic.build(env.observation_space, env.action_space), steps, **options)


def test_writes_the_vocabulary_with_true_successors():
    c = collector(Counter())
    r = c.collect()
    check(
        r,
        "observation",
        "is_first",
        "action",
        "log_prob",
        "version",
        "next.observation",
        "next.reward",
        "next.terminated",
        "next.truncated",
    )
    assert get(r, "mask") is None
    # environment 0: episodes of 2 steps: 0 -> 1 -> 2, and the successor at the end is 2, never the reset observation 0
    assert r["observation"][:4, 0, 0].tolist() == [0, 1, 0, 1]
    assert r["next", "observation"][:4, 0, 0].tolist() == [1, 2, 1, 2]
    assert r["is_first"][:4, 0].tolist() == [True, False, True, False]
    assert r["next", "terminated"][:4, 0].tolist() == [False, True, False, True]
    assert r["next", "truncated"][:6, 1].tolist() == [False, False, True, False, False, True]
    assert c.steps == 24


def test_invented_steps_are_masked_and_not_counted():
    c = collector(Counter(engine="next"), steps=9)
    r = c.collect()
    assert r["mask"][:6, 0].tolist() == [True, True, False, True, True, False]
    assert r["is_first"][:6, 0].tolist() == [True, False, True, True, False, True]
    assert c.steps == int(r["mask"].sum()) < 27
    same = collector(Counter(engine="same"), steps=9).collect()
    for key in (
        ("observation",),
        ("next", "observation"),
        ("next", "reward"),
        ("next", "terminated"),
        ("next", "truncated"),
    ):
        for i in range(3):
            valid = r[key][:, i][r["mask"][:, i]]
            assert torch.equal(valid, same[key][: len(valid), i]), (key, i)


@pytest.mark.parametrize("engine", ["same", "next"])
def test_episodes_across_rollouts(engine):
    c = collector(Counter(engine=engine), steps=5)
    episodes = []
    for _ in range(20):
        c.collect()
        episodes += [(e.env, e.ret, e.length) for e in c.episodes]
    for i in range(3):
        mine = [e for e in episodes if e[0] == i]
        n = i + 2
        assert len(mine) >= 100 // (n + 1) - 1
        assert set(mine) == {(i, float(sum(range(1, n + 1))), n)}


def test_rollout_memory_is_allocated_once():
    c = collector(make_env("CartPole-v1", 4))
    first, second = c.collect(), c.collect()
    assert first["observation"].data_ptr() == second["observation"].data_ptr()
    assert first["next", "reward"].data_ptr() == second["next", "reward"].data_ptr()


def test_whole_episodes_begin_with_a_reset_and_end_with_an_end():
    env = make_env("CartPole-v1", 4)
    c = collector(env, steps=30, whole_episodes=True)
    for _ in range(5):
        r = c.collect()
        mask, over = r["mask"], ended(r)
        assert r["is_first"][0].all()
        for i in range(4):
            rows = int(mask[:, i].sum())
            assert rows >= 30
            assert mask[:rows, i].all() and not mask[rows:, i].any()
            assert over[rows - 1, i]
        counted = sum(e.length for e in c.episodes)
        assert counted == int(mask.sum())
    assert c.steps > 5 * 120


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["reward", "observation"])
def test_not_finite_names_environment_and_field(field, value):
    c = collector(Counter(bad=(field, 1, value)))
    with pytest.raises(
        NotFinite,
        match=rf"{field} of environment 1 \(seed 0, episode 0, step 1, last action [01]\) of Counter .* became .*(nan|inf).*; nothing was",
    ):
        c.collect()


def test_state_goes_on_to_the_same_bits():
    def make():
        torch.manual_seed(0)
        env = make_env("CartPole-v1", 3, seed=5)
        return collector(env, steps=16, seed=5)

    a = make()
    for _ in range(3):
        a.collect()
    arrays, numbers = a.state()
    arrays = {key: value.clone() for key, value in arrays.items()}
    expected = [a.collect().clone() for _ in range(3)]
    b = make()
    assert b.load_state(arrays, numbers)
    for rollout in expected:
        ours = b.collect()
        assert all(
            torch.equal(get(ours, k), get(rollout, k))
            for k in ("observation", "action", "log_prob", "next.observation", "next.reward")
        )
    assert [e.ret for e in a.episodes] == [e.ret for e in b.episodes] and a.steps == b.steps


def test_an_environment_without_state_begins_fresh_episodes():
    c = collector(Counter(), steps=4)
    c.collect()
    arrays, numbers = c.state()
    d = collector(Counter(), steps=4)
    assert not d.load_state(arrays, numbers)
    assert d.steps == 12 and d.collect()["is_first"][0].all()
    saved, lost = (collector(make_env("CartPole-v1", 3, prefer=prefer), steps=4) for prefer in ("native", "gymnasium"))
    saved.collect()  # a server that is started anew may have other environments behind its ids
    assert not lost.load_state(*saved.state())
    assert lost.steps == 12 and lost.collect()["is_first"][0].all()


def test_same_seed_same_bits_and_no_global_stream():
    runs = []
    for seed in (1, 1, 2):
        env = make_env("MountainCar-v0", 3, seed=seed)
        c = collector(env, policy=Random(env.action_space), seed=seed)
        torch.manual_seed(len(runs))  # whatever the global stream does, the collector neither reads nor moves it
        before = torch.random.get_rng_state()
        runs.append(torch.cat([c.collect()["observation"].clone() for _ in range(3)]))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_action_masks_are_recorded_and_obeyed():
    env = make_env("GridWorld-v0", 4, seed=0)
    c = collector(env, steps=64, policy=Random(env.action_space))
    r = c.collect()
    check(r, "action_mask")
    assert r["action_mask"].gather(-1, r["action"].unsqueeze(-1)).all()
    assert not r["action_mask"].all()


def test_whole_episodes_without_an_end_are_an_error(monkeypatch):
    import whorl.collectors.serial as module
    from whorl.errors import EnvError

    monkeypatch.setattr(module, "LONGEST", 100)
    env = Counter()
    env.limit = np.full(3, 10**9)
    with pytest.raises(
        EnvError, match="an episode of Counter .* did not end within 100 steps, .* give the environment a time limit"
    ):
        collector(env, whole_episodes=True).collect()
