"""The collector of online agents: next.action, one memory, the same rows and episodes as the serial collector, exact state."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import whorl.collectors.stream as module
from tests.collectors.test_serial import Counter
from whorl.batch import check, get, names
from whorl.collectors.serial import SerialCollector
from whorl.collectors.stream import StreamCollector
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.make import make_env
from whorl.errors import BadInput, NotFinite
from whorl.nets.linear_q import LinearQ
from whorl.nets.tile_coding import OneHot, Raw
from whorl.policies.greedy import Greedy


def policy_for(env, epsilon=0.0):
    table = isinstance(env.observation_space, gymnasium.spaces.Discrete)
    q = LinearQ((OneHot if table else Raw)(env.observation_space), int(env.action_space.n))
    q.weight[:] = torch.randn(q.weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Greedy(q, env.action_space, epsilon=epsilon)


def collector(env, epsilon=0.0, next_action=True, seed=0):
    return StreamCollector(env, policy_for(env, epsilon), seed, next_action)


def copies(c, steps):
    """The rollouts of some steps, one below the other, [steps, N], and the episodes that ended."""
    rows, episodes = [], []
    for _ in range(steps):
        rollout = c.collect()
        rows.append({key: get(rollout, key).clone() for key in names(rollout)})
        episodes += c.episodes
    return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}, episodes


def test_writes_the_vocabulary_into_one_memory():
    c = collector(make_env("MountainCar-v0", 3), 0.5)
    first = c.collect()
    keys = ("observation", "is_first", "action", "version", "next.observation", "next.reward", "next.terminated")
    check(first, *keys, "next.truncated", "next.action", "mask")
    assert first.batch_size == (1, 3) and first["next", "action"].dtype == first["action"].dtype
    pointers = [get(first, key).data_ptr() for key in names(first)]
    second = c.collect()
    assert second is first and [get(second, key).data_ptr() for key in names(second)] == pointers
    assert c.steps == 6 and not second["is_first"].any()


@pytest.mark.parametrize("env", ["MountainCar-v0", "gymnasium"])
def test_next_action_is_the_one_really_taken_next(env):
    """At a time limit: what the policy does at the true successor, with the numbers of the next episode's first action."""
    env = make_env(env, 3, max_episode_steps=7) if env != "gymnasium" else vector("SAME_STEP")
    c = collector(env, 0.3)
    c.policy.q.weight[:] = torch.tensor(
        [[0, -1, 0], [0, 0, -1], [0, 1, 0]]
    )  # push the way it moves, left where it stands
    different = 0
    rows, _ = copies(c, 80)
    over, numbers = rows["next.truncated"] | rows["next.terminated"], torch.from_numpy(c.numbers(0))
    for t in range(79):
        now = ~over[t]
        assert torch.equal(rows["next.action"][t][now], rows["action"][t + 1][now])
        there, _ = c.policy.act(rows["next.observation"][t], None, over[t], numbers[t + 1])
        here, _ = c.policy.act(rows["observation"][t + 1], None, over[t], numbers[t + 1])
        limit = rows["next.truncated"][t]
        assert torch.equal(rows["next.action"][t][limit], there["action"][limit])
        assert torch.equal(rows["action"][t + 1], here["action"])
        different += int((there["action"] != here["action"])[limit].sum())
    assert rows["next.truncated"].sum() >= 3 and different > 0


def vector(mode, n=3):
    make = lambda: gymnasium.make("MountainCar-v0", max_episode_steps=7)  # noqa: E731
    return Gymnasium(SyncVectorEnv([make] * n, autoreset_mode=AutoresetMode[mode]), seed=3)


WORLDS = {
    "native": lambda: make_env("MountainCar-v0", 3, max_episode_steps=9),
    "terminations": lambda: make_env("CartPole-v1", 3),
    "table": lambda: make_env("RandomWalk-v0", 2),
    "counter": Counter,
    "invented steps": lambda: Counter(engine="next"),
    "SAME_STEP": lambda: vector("SAME_STEP"),
    "NEXT_STEP": lambda: vector("NEXT_STEP"),
    "DISABLED": lambda: vector("DISABLED"),
}


@pytest.mark.parametrize("world", WORLDS)
def test_rows_and_episodes_are_those_of_the_serial_collector(world):
    make = WORLDS[world]
    env = make()
    serial = SerialCollector(env, policy_for(env), 60)
    expected = serial.collect()
    c = collector(make())
    rows, episodes = copies(c, 60)
    for key in names(expected):
        if key != "version":
            assert torch.equal(rows[key], get(expected, key)), key
    if get(expected, "mask") is None:
        assert rows["mask"].all()
    assert len(episodes) == c.finished == serial.finished > 0 and c.steps == serial.steps
    assert [e[1:] for e in episodes] == [e[1:] for e in serial.episodes]  # `step` is that of each one's own rollout
    steps = np.cumsum(rows["mask"].sum(-1).numpy())
    assert {e.step for e in episodes} <= set(steps.tolist()) and episodes[-1].step <= 60 * env.num_envs


@pytest.mark.parametrize("world", ["invented steps", "NEXT_STEP"])
def test_next_action_where_an_engine_invents_steps(world):
    rows, _ = copies(collector(WORLDS[world](), 0.5), 40)
    assert not rows["mask"].all() and rows["mask"][-5:].any()
    assert torch.equal(
        rows["next.action"][:-1], rows["action"][1:]
    )  # after an end the engine waits one step at the true successor


def test_it_can_do_without_next_action():
    c = collector(make_env("MountainCar-v0", 2), next_action=False)
    first = c.collect()
    assert "next.action" not in names(first)
    for best in (0, 2, 1):  # what is learned from a step decides the next one
        c.policy.q.weight[:] = 0
        c.policy.q.weight[best, -1] = 1
        assert (c.collect()["action"] == best).all()
    with_it = collector(make_env("MountainCar-v0", 2))
    with_it.collect()
    before = with_it.collect()["next", "action"].clone()
    with_it.policy.q.weight[:] *= -1
    assert torch.equal(with_it.collect()["action"], before)  # Sarsa: chosen before the update, taken after it


def test_masks_are_recorded_and_obeyed():
    c = collector(make_env("GridWorld-v0", 4, max_episode_steps=15), 0.7)
    rows, _ = copies(c, 200)
    assert rows["action_mask"].gather(-1, rows["action"].unsqueeze(-1)).all() and not rows["action_mask"].all()
    went_on = ~(rows["next.terminated"] | rows["next.truncated"])[:-1]
    assert torch.equal(rows["next.action_mask"][:-1][went_on], rows["action_mask"][1:][went_on])
    assert rows["next.action_mask"].gather(-1, rows["next.action"].unsqueeze(-1)).all()
    assert rows["next.action_mask"][rows["next.truncated"]].all() and rows["next.truncated"].any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["reward", "observation"])
def test_not_finite_names_environment_and_field(field, value):
    c = collector(Counter())
    for _ in range(3):
        c.collect()
    c.env.bad = (field, 1, value)
    pattern = rf"{field} of environment 1 \(seed 0, episode 1, step 1, .*\) of Counter .* became .*(nan|inf).*; nothing was learned"
    with pytest.raises(NotFinite, match=pattern):
        c.collect()


@pytest.mark.filterwarnings("error")
def test_large_but_finite_observations_are_fine():
    c = collector(Counter(bad=("observation", 1, 1e30)))
    assert c.collect()["next", "observation"].max() == np.float32(1e30)


@pytest.mark.parametrize("env", ["MountainCar-v0", "GridWorld-v0"])
def test_state_goes_on_to_the_same_bits(env, monkeypatch):
    monkeypatch.setattr(module, "NOISE", 16)  # crosses into other blocks of random numbers
    make = lambda: collector(make_env(env, 3, seed=5, max_episode_steps=13), 0.5, seed=5)  # noqa: E731
    a = make()
    for saved_at in (20, 12, 16, 1):
        copies(a, saved_at)
        a.policy.q.weight.neg_()  # learned after the next action was chosen: it is part of the state
        arrays, numbers = a.state()
        arrays = {key: value.clone() for key, value in arrays.items()}
        expected, episodes = copies(a, 30)
        b = make()
        b.policy.load_state_dict(a.policy.state_dict())
        assert b.load_state(arrays, numbers)
        ours, same = copies(b, 30)
        assert all(torch.equal(ours[key], expected[key]) for key in expected)
        assert same == episodes and (b.steps, b.finished, b.rollouts) == (a.steps, a.finished, a.rollouts)


def test_a_fresh_state_and_an_environment_without_state():
    a, b = collector(make_env("MountainCar-v0", 2), 0.5), collector(make_env("MountainCar-v0", 2), 0.5)
    assert b.load_state(*a.state())  # not begun
    assert all(torch.equal(x, y) for x, y in zip(copies(a, 5)[0].values(), copies(b, 5)[0].values(), strict=True))
    c, d = collector(Counter()), collector(Counter())
    c.collect()
    assert not d.load_state(*c.state())
    assert d.steps == 3 and d.collect()["is_first"].all()


def test_same_seed_same_bits_and_no_global_stream():
    runs = []
    for seed in (1, 1, 2):
        c = collector(make_env("MountainCar-v0", 3, seed=seed), 0.5, seed=seed)
        torch.manual_seed(len(runs))
        before = torch.random.get_rng_state()
        runs.append(copies(c, 40)[0]["action"])
        assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_environments_on_a_device_are_refused():
    env = Counter()
    env.device = "cuda"
    with pytest.raises(BadInput, match="online agents step environments on the CPU, got Counter"):
        collector(env)
