"""Hindsight relabelling against plain lists of episodes: where goals come from, and what is recomputed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from whorl import batch
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.lookup import relabel
from whorl.buffers.lookup.n_step import NStep
from whorl.buffers.lookup.relabel import STRATEGIES, Hindsight
from whorl.buffers.sample_uniform import Uniform
from whorl.buffers.storage_memory import Memory
from whorl.collectors.serial import SerialCollector
from whorl.envs.native import make
from whorl.errors import BadInput, BatchError
from whorl.policies.random import Random


def reward(achieved, desired):
    return 0.0 - (achieved - desired).abs().sum(-1).clip(0, 1)


def reached(achieved, desired):
    return (achieved == desired).all(-1)


class Played:
    """Random episodes in a storage. The goal reached in row k of lane e is (e, k), so a goal tells where it came from."""

    def __init__(self, storage, seed=0, ends=0.15, flags=True, mask=False):
        self.storage, self.rng, self.ends, self.flags, self.mask = (
            storage,
            np.random.default_rng(seed),
            ends,
            flags,
            mask,
        )
        self.lanes = [[] for _ in range(storage.lanes)]  # per row: the number of its episode
        self.episode, self.first = np.zeros(storage.lanes, int), np.ones(storage.lanes, bool)

    def write(self, steps: int) -> None:
        rng, shape = self.rng, (steps, self.storage.lanes)
        terminated, truncated = rng.random(shape) < self.ends / 2, rng.random(shape) < self.ends / 2
        if not self.flags:  # episodes are given up: only is_first tells
            given_up, terminated, truncated = terminated, np.zeros(shape, bool), np.zeros(shape, bool)
        mask = rng.random(shape) < 0.8 if self.mask else np.ones(shape, bool)
        first, achieved = np.zeros(shape, bool), np.zeros((*shape, 2), np.float32)
        for t, e in np.ndindex(shape):
            if not mask[t, e]:
                continue
            achieved[t, e] = e, len(self.lanes[e])
            first[t, e] = self.first[e]
            self.lanes[e].append(self.episode[e])
            self.first[e] = terminated[t, e] | truncated[t, e] if self.flags else given_up[t, e]
            self.episode[e] += self.first[e]
        goal = np.full((*shape, 2), -1, np.float32)
        following = {"observation": {"achieved_goal": achieved, "desired_goal": goal}}
        following |= {"reward": np.full(shape, -5, np.float32), "terminated": terminated, "truncated": truncated}
        rollout = {
            "observation": {"achieved_goal": goal - 1, "desired_goal": goal},
            "is_first": first,
            "next": following,
        }
        self.storage.write(batch.make(tensors(rollout | ({"mask": mask} if self.mask else {})), shape))

    def allowed(self, strategy: str, k: int, lane: int) -> set:
        """The (lane, k) whose achieved goal row k may get, by its definition."""
        low, high = self.storage.live()
        if strategy == "random":
            return {(e, j) for e in range(self.storage.lanes) for j in range(low[e], high[e])}
        rows = self.lanes[lane]
        same = [j for j in range(low[lane], high[lane]) if rows[j] == rows[k]]
        chosen = {"future": [j for j in same if j >= k], "final": same[-1:], "episode": same}[strategy]
        return {(lane, j) for j in chosen}

    def live(self) -> torch.Tensor:
        low, high = self.storage.live()
        lanes = self.storage.lanes
        return torch.tensor([k * lanes + e for e in range(lanes) for k in range(low[e], high[e])])


def tensors(tree):
    return {key: tensors(value) if isinstance(value, dict) else torch.from_numpy(value) for key, value in tree.items()}


def goals(got) -> list[tuple[int, int]]:
    return [tuple(int(x) for x in row) for row in got["observation"]["desired_goal"]]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("lanes, mask, flags", [(1, False, True), (3, False, True), (3, True, True), (2, False, False)])
def test_goals_come_from_where_the_strategy_says_while_the_ring_wraps(strategy, lanes, mask, flags, monkeypatch):
    monkeypatch.setattr(relabel, "LOOK", 7)  # in several pieces
    played = Played(Memory(25 * lanes, lanes, slack=4), seed=lanes, mask=mask, flags=flags)
    hindsight = Hindsight(reward, strategy, fraction=1.0, seed=1)
    for _ in range(25):
        played.write(int(played.rng.integers(1, 12)))
        index = played.live()
        got = hindsight(played.storage, index, played.storage.read(index))
        for i, goal in zip(index.tolist(), goals(got)):
            assert goal in played.allowed(strategy, *divmod(i, lanes))
        assert torch.equal(got["next"]["observation"]["desired_goal"], got["observation"]["desired_goal"])
    assert played.storage.count.min() > 3 * played.storage.ring


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_allowed_row_is_as_likely_as_the_others(strategy):
    played = Played(Memory(40, 2), ends=0.2)
    played.write(70)
    hindsight, lanes = Hindsight(reward, strategy, fraction=1.0), 2
    low, _ = played.storage.live()
    for k in range(low[1], low[1] + 5):
        index = torch.full((20_000,), k * lanes + 1)
        found = goals(hindsight(played.storage, index, played.storage.read(index)))
        allowed = played.allowed(strategy, k, 1)
        share = np.array([found.count(goal) for goal in allowed]) / len(found)
        np.testing.assert_allclose(share, 1 / len(allowed), atol=5 * (1 / len(allowed) / len(found)) ** 0.5)


def test_the_fraction_is_relabelled_and_all_else_stays():
    played = Played(Memory(200, 2), ends=0.1)
    played.write(90)
    index = played.live().repeat(60)
    before = played.storage.read(index).clone()
    got = Hindsight(reward, fraction=0.3, terminated=reached)(played.storage, index, played.storage.read(index))
    chosen = got["relabelled"]
    assert abs(chosen.float().mean() - 0.3) < 0.02
    changed = (got["observation"]["desired_goal"] != before["observation"]["desired_goal"]).any(-1)
    assert torch.equal(changed, chosen)
    for key in ("reward", "terminated", "truncated"):
        assert torch.equal(got["next"][key][~chosen], before["next"][key][~chosen])
    for part in (lambda b: b["observation"]["achieved_goal"], lambda b: b["next"]["observation"]["achieved_goal"]):
        assert torch.equal(part(got), part(before))
    assert torch.equal(got["next"]["truncated"], before["next"]["truncated"])
    own = torch.tensor([goal == (i % 2, i // 2) for i, goal in zip(index.tolist(), goals(got))])
    assert (own & chosen).sum() > 100  # a row's own successor is a goal of the future
    assert torch.equal(got["next"]["reward"][chosen], own[chosen].float() - 1)
    assert torch.equal(got["next"]["terminated"][chosen], own[chosen])
    assert got["next"]["reward"].dtype == torch.float32 and got["next"]["terminated"].dtype == torch.bool


def test_without_a_terminated_function_the_flags_stay():
    played = Played(Memory(200, 1))
    played.write(150)
    index = played.live()
    before = played.storage.read(index).clone()
    got = Hindsight(reward, fraction=1.0)(played.storage, index, played.storage.read(index))
    assert torch.equal(got["next"]["terminated"], before["next"]["terminated"])
    for fraction, relabelled in ((0.0, 0), (1.0, 150)):
        got = Hindsight(reward, fraction=fraction)(played.storage, index, played.storage.read(index))
        assert got["relabelled"].sum() == relabelled
    assert torch.equal(played.storage.read(index)["observation"]["desired_goal"], before["observation"]["desired_goal"])


def test_an_episode_longer_than_the_buffer_is_followed_inside_it():
    played = Played(Memory(20, 1), ends=0.0)
    hindsight = Hindsight(reward, "episode", fraction=1.0)
    for _ in range(30):
        played.write(7)
        index = played.live()
        for goal in goals(hindsight(played.storage, index, played.storage.read(index))):
            assert goal in played.allowed("episode", index[0].item(), 0)
    played.ends = 2.0
    played.write(1)  # its end closes the episode for all rows that are left
    index = played.live()
    got = Hindsight(reward, "final", fraction=1.0)(played.storage, index, played.storage.read(index))
    assert set(goals(got)) == {(0, 210)}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_saved_and_loaded_buffer_goes_on_to_the_same_goals(strategy):
    played = Played(Memory(60, 3, slack=10))
    hindsight, other = Hindsight(reward, strategy, seed=4), Hindsight(reward, strategy, seed=4)
    for _ in range(12):
        played.write(6)
        index = played.live()[:40]
        hindsight(played.storage, index, played.storage.read(index))
    other.load_state(*hindsight.state())  # knows nothing of the rows: it finds the episodes in the flags
    for _ in range(12):
        index = played.live()[:40]
        ours = goals(hindsight(played.storage, index, played.storage.read(index)))
        assert ours == goals(other(played.storage, index, played.storage.read(index)))
        played.write(6)


def test_rows_taken_back_by_a_resumed_run_are_forgotten(tmp_path):
    played = Played(Memory(60, 1, slack=10, folder=tmp_path), ends=0.0)
    played.write(30)
    storage, index, hindsight = played.storage, torch.arange(30), Hindsight(reward, "final", fraction=1.0)
    storage.flush()
    state = storage.state()
    played.write(5)
    assert set(goals(hindsight(storage, index, storage.read(index)))) == {(0, 34)}
    storage.load_state(*state)
    assert set(goals(hindsight(storage, index, storage.read(index)))) == {(0, 29)}


@pytest.mark.parametrize("way", ["state", "save"])
def test_a_resumed_buffer_draws_the_same_goals(way, tmp_path):
    def start():
        hindsight = Hindsight(reward, "episode", seed=1)
        return ReplayBuffer(
            Memory(60, 2, slack=5, folder=tmp_path / "rows"), Uniform(seed=1), [hindsight], batch_size=30
        )

    buffer = start()
    played = Played(buffer.storage)
    for _ in range(10):
        played.write(5)
        buffer.sample()
    buffer.added = len(buffer)  # they did not come through `add`
    other = start()
    if way == "save":
        buffer.save(tmp_path / "saved")
        other.load(tmp_path / "saved")
    else:
        other.load_state(*buffer.state())
    for _ in range(3):
        assert goals(buffer.sample()) == goals(other.sample())


def test_it_relabels_what_a_collector_plays_in_the_bit_flipping_world():
    env = make("BitFlipping8-v0", 4, seed=0)
    collector = SerialCollector(env, Random(env.action_space), steps=16)
    hindsight = Hindsight(env.goal.reward, "future", 0.8, terminated=env.goal.terminated)
    buffer = ReplayBuffer(Memory(256, 4), Uniform(seed=0), [hindsight], batch_size=500)
    for _ in range(10):
        buffer.add(collector.collect())
    got = buffer.sample()
    there, chosen = got["next"]["observation"], got["relabelled"]
    assert torch.equal(env.goal.reward(there["achieved_goal"], there["desired_goal"]), got["next"]["reward"])
    assert torch.equal(got["next"]["terminated"], got["next"]["reward"] == 0)
    assert (
        got["next"]["terminated"][chosen].float().mean()
        > 0.15
        > 0.05
        > got["next"]["terminated"][~chosen].float().mean()
    )


def test_bad_input_is_named():
    with pytest.raises(BadInput, match="strategy must be one of future, final, episode, random, got 'past'"):
        Hindsight(reward, "past")
    with pytest.raises(BadInput, match=r"fraction must lie in \[0, 1\], got -0.1"):
        Hindsight(reward, fraction=-0.1)
    played = Played(Memory(50, 1))
    played.write(20)
    storage, index = played.storage, torch.arange(10)
    with pytest.raises(BadInput, match="takes single rows: a sequence"):
        Hindsight(reward)(storage, index.view(5, 2), storage.read(index.view(5, 2)))
    with pytest.raises(
        BadInput, match=r"the reward function of hindsight relabelling gave shape \[10, 2\], expected \[10\]"
    ):
        Hindsight(lambda achieved, desired: achieved - desired)(storage, index, storage.read(index))
    with pytest.raises(BadInput, match="an n-step return sums those of several under the old goal: use n_step = 1"):
        ReplayBuffer(storage, Uniform(), [NStep(3, 0.9), Hindsight(reward)]).sample(4)
    with pytest.raises(
        BadInput, match="n-step returns sum stored rewards, hindsight relabelling recomputes them: use n = 1"
    ):
        ReplayBuffer(storage, Uniform(), [Hindsight(reward), NStep(3, 0.9)]).sample(4)


def test_missing_goals_are_named():
    storage, flag = Memory(10, 1), torch.zeros(5, 1, dtype=torch.bool)
    following = {"observation": {"achieved_goal": torch.zeros(5, 1, 2)}, "reward": torch.zeros(5, 1)}
    following |= {"terminated": flag, "truncated": flag}
    storage.write(batch.make({"observation": {"x": torch.zeros(5, 1, 2)}, "next": following}, (5, 1)))
    with pytest.raises(BatchError, match="has no observation.desired_goal, next.observation.desired_goal: it takes"):
        Hindsight(reward)(storage, torch.arange(4), storage.read(torch.arange(4)))
