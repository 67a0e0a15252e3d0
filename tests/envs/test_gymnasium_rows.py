"""Single rows of Gymnasium's environments restart and step while the others stand, and nothing that was handed out changes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from tests.envs.test_gymnasium import Toy, counting, leaves, toys
from whorl.collectors.tally import Tally
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.guard import Guard
from whorl.envs.make import EnvKind
from whorl.errors import BadInput, EnvError, Incompatible

DISABLED = AutoresetMode.DISABLED


class Batch(VectorEnv):
    """An engine of the user's: one array that everything is written into; rows restart by the mask."""

    metadata = {"autoreset_mode": DISABLED}
    single_observation_space, single_action_space = spaces.Box(-1, 1e6, (2,), np.float32), spaces.Discrete(3)

    def __init__(self, num_envs: int = 5):
        self.num_envs = num_envs
        self.where, self.ended = np.zeros((num_envs, 2), np.float32), np.zeros(num_envs, bool)
        self.paid = np.zeros(num_envs, np.float32)

    def reset(self, *, seed=None, options=None):
        rows = options["reset_mask"] if options else np.ones(self.num_envs, bool)
        if seed is not None:
            self.where[:, 0] = -1
        self.where[rows, 0] += 1
        self.where[rows, 1], self.ended[rows], self.paid[rows] = 0, False, -9
        return self.where, {}

    def step(self, action):
        self.where[:, 1] += 1
        self.paid[:] = action
        self.ended[:] = self.where[:, 1] >= 3 + np.arange(self.num_envs) % 2
        return self.where, self.paid, self.ended, np.zeros(self.num_envs, bool), {}


def disabled(n: int, copy: bool = True, **options: Any) -> Gymnasium:
    return toys(n, DISABLED, copy, **options)


def made_here(n: int, **options: Any) -> Gymnasium:
    return Gymnasium(counting(**options), n)


def asynchronous(n: int) -> Gymnasium:
    return Gymnasium(AsyncVectorEnv([lambda i=i: Toy(i) for i in range(n)], copy=False, autoreset_mode=DISABLED))


STEPPED = {
    "made here": made_here,
    "made here, Dict and masks": lambda n: made_here(n, kind="dict", masked=True, reuse=True),
    "made here, Tuple": lambda n: made_here(n, kind="tuple", reuse=True),
    "SyncVectorEnv": disabled,
    "SyncVectorEnv in place": lambda n: disabled(n, copy=False, masked=True, reuse=True),
}
RESTARTED = STEPPED | {"AsyncVectorEnv": asynchronous, "an engine of the user's": lambda n: Gymnasium(Batch(n))}


def kept(tree: Any) -> list[np.ndarray]:
    return [np.array(leaf) for leaf in leaves(tree)]


def same(one: list, other: Any, rows: np.ndarray | slice = slice(None)) -> bool:
    return all(np.array_equal(a[rows], b[rows]) for a, b in zip(one, leaves(other), strict=True))


def allowed(env: Gymnasium, rng: np.random.Generator) -> np.ndarray:
    chance = rng.random((env.num_envs, 3))
    return (chance if env.action_mask is None else chance * env.action_mask).argmax(-1)


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", STEPPED)
def test_two_halves_are_the_whole(name, n):
    whole, parts, rng = STEPPED[name](n), STEPPED[name](n), np.random.default_rng(0)
    parts_, ended = Guard(parts), 0
    assert same(kept(whole.reset(3)), parts_.reset(3))
    for _ in range(40):
        action, rows = allowed(whole, rng), rng.random(n) < 0.5
        stood, mask = kept(parts._standing), parts.action_mask
        first = parts_.step(action, rows)
        assert same(stood, first.observation, ~rows) and same(stood, first.next_observation, ~rows)
        assert mask is None or (parts.action_mask[~rows] == mask[~rows]).all()
        assert (first.valid == rows).all()
        assert not (first.reward.any(where=~rows) or (first.terminated | first.truncated)[~rows].any())
        if not (first.terminated | first.truncated).any():
            assert first.next_observation is first.observation
        first = first._replace(next_observation=kept(first.next_observation))
        second, one = parts_.step(action, ~rows), whole.step(action)
        assert same(kept(one.observation), second.observation)
        assert same(kept(one.next_observation), second.next_observation, ~rows)
        assert all(
            np.array_equal(a[rows], b[rows]) for a, b in zip(first.next_observation, leaves(one.next_observation))
        )
        for k in (1, 2, 3):  # reward and flags
            assert (np.where(rows, first[k], second[k]) == one[k]).all()
        assert whole.action_mask is None or (whole.action_mask == parts.action_mask).all()
        ended += int((one.terminated | one.truncated).sum())
    assert ended > 3


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", RESTARTED)
def test_rows_restart_and_the_others_stand(name, n):
    env, rng = RESTARTED[name](n), np.random.default_rng(1)
    world, ended = Guard(env), 0
    world.reset(3)
    for _ in range(30):
        step = world.step(allowed(env, rng))
        before, mask = [kept(part) for part in step[:5]], env.action_mask
        rows = rng.random(n) < 0.4
        here = world.restart(rows)
        assert all(same(a, b) for a, b in zip(before, step[:5]))  # true successors, rewards and flags survive
        assert same(before[0], here, ~rows)
        assert mask is None or (env.action_mask[~rows] == mask[~rows]).all()
        where = next(iter(leaves(here)))  # (index, episode, step), or (episode, step)
        assert (where[rows, -1] == 0).all() and (where[rows, -2] == before[0][0][rows, -2] + 1).all()
        stood = kept(here)
        world.restart(np.roll(rows, 1))
        assert same(stood, here)
        ended += int((step.terminated | step.truncated).sum())
    assert ended
    env.close()


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("limit", [20, 1000])
def test_rows_that_stepped_at_different_times_are_played_again(n, limit):
    """One environment goes on all the time, and one is taken down and played again every ten steps."""
    whole, rng = EnvKind(Walk).make(n), np.random.default_rng(2)
    whole.replay_steps, longest, loaded = limit, 0, 0
    whole.reset(7)
    begun, cut = np.zeros(n, int), whole
    for t in range(600):
        action, rows = rng.uniform(-1, 1, (n, 2)).astype(np.float32), rng.random(n) < 0.6 if t % 3 == 0 else None
        restarted = (rng.random(n) < 0.1) & (t % 7 == 0)
        for env in dict.fromkeys((whole, cut)):  # the one that was cut comes last
            step = env.step(action, rows)
            here = env.restart(restarted)
            if env is whole:
                begun += step.truncated.astype(int) + restarted
                standing = here.copy()
        assert (here == standing).all()
        state = whole.state()
        assert (state["length"] == standing[:, 1]).all() and (state["episode"] == begun).all()
        longest = max(longest, state["length"].max())
        if t % 10 == 9 and state["length"].max() <= limit:
            cut, loaded = EnvKind(Walk).make(n), loaded + 1
            cut.replay_steps = limit
            assert (cut.load_state(state) == standing).all()
            assert all(np.array_equal(array, state[key]) for key, array in cut.state().items())
    assert longest > 40 and loaded > 3


class Walk(gymnasium.Env):
    """Noise of the seed; the observation says (position, step)."""

    def __init__(self):
        self.observation_space, self.action_space = spaces.Box(-99, 999, (2,)), spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.x = 0, float(self.np_random.normal())
        return np.array([self.x, self.t], np.float32), {}

    def step(self, action):
        self.t, self.x = self.t + 1, 0.9 * self.x + float(action.sum()) + float(self.np_random.normal())
        return np.array([self.x, self.t], np.float32), self.x, False, self.t >= 61, {}


def test_what_cannot_restart_says_what_can():
    engine = toys(2, AutoresetMode.NEXT_STEP)
    assert not engine.partial and not toys(2, AutoresetMode.SAME_STEP).partial
    engine.reset()
    with pytest.raises(
        Incompatible, match="cannot be restarted: give one in mode AutoresetMode.DISABLED, or what makes one env"
    ):
        engine.restart(np.ones(2, bool))
    wrapped = Gymnasium(
        gymnasium.wrappers.vector.RecordEpisodeStatistics(SyncVectorEnv([Toy], autoreset_mode=DISABLED))
    )
    assert wrapped.partial == {"restart"}  # a wrapper around all would miss the steps of one
    wrapped.reset()
    with pytest.raises(Incompatible, match="cannot be stepped: give a SyncVectorEnv in mode AutoresetMode.DISABLED"):
        wrapped.step([0], np.ones(1, bool))
    with pytest.raises(BadInput, match=r"call reset\(\) once before single environments restart or step"):
        made_here(2).restart(np.ones(2, bool))


def test_an_error_names_the_row_that_stepped():
    class Bad(Toy):
        def step(self, action):
            observation, *rest = super().step(action)
            return (observation[:2] if self.index == 2 else observation), *rest

    made = iter(range(4))
    env = Gymnasium(lambda: Bad(next(made)), 4)
    env.reset(0)
    env.step([0] * 4, np.array([False, True, False, True]))
    with pytest.raises(EnvError, match="environment 2: an observation does not fit"):
        env.step([0] * 4, np.array([False, False, True, False]))


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_row_without_masks_ends_beside_one_with_them(mode):
    class Uneven(Toy):
        def look(self):
            observation, info = super().look()
            return observation, info if self.index else {}

    env = Gymnasium(SyncVectorEnv([lambda i=i: Uneven(i, masked=True) for i in range(2)], autoreset_mode=mode))
    world = Guard(env)  # a mask that goes is a breach
    world.reset(0)
    for _ in range(30):
        world.step(env.action_mask.argmax(-1))
        assert env.action_mask[0].all()


@pytest.mark.parametrize("mode", AutoresetMode)
def test_the_last_step_s_info_counts_where_an_episode_ends(mode):
    class Telling(Toy):
        def look(self):
            return super().look()[0], {"step": float(self.t)}

    env = Gymnasium(SyncVectorEnv([lambda i=i: Telling(i) for i in range(2)], autoreset_mode=mode))
    env.reset(0)
    tally, ends = Tally({"step": "last"}, 2), 0
    for _ in range(30):
        step = env.step([0, 0])
        ended = step.terminated | step.truncated
        said = tally.read(step.info, ended)["step"]
        assert (said[ended] == step.next_observation[ended, 2]).all()
        ends += ended.sum()
    assert ends > 5
