"""The frame storage against plain rows: bit for bit the same, in a fifth of the memory."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import FrameStackObservation, TimeLimit

from whorl import batch
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.layout import Layout
from whorl.buffers.lookup.n_step import NStep
from whorl.buffers.sample_prioritized import Prioritized
from whorl.buffers.sample_uniform import Uniform
from whorl.buffers.storage_frames import Frames
from whorl.buffers.storage_memory import Memory
from whorl.collectors.serial import SerialCollector
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.errors import BadInput, BatchError
from whorl.policies.random import Random

SIZE = (6, 5)


class Player:
    """Random episodes of random frames, stacked by the definition; padded at the start with what `padding` says."""

    def __init__(self, lanes, seed=0, ends=0.1, padding="reset", mask=False, stack=4, size=SIZE):
        self.rng, self.ends, self.padding, self.mask = np.random.default_rng(seed), ends, padding, mask
        self.lanes, self.stack, self.size, self.now = lanes, stack, size, [None] * lanes

    def frame(self):
        return self.rng.integers(0, 256, (1, *self.size), dtype=np.uint8)

    def rollout(self, steps, ends=None):
        shape, c = (steps, self.lanes), self.stack
        here, there = (np.empty((*shape, c, *self.size), np.uint8) for _ in range(2))
        first, mask = np.zeros(shape, bool), np.ones(shape, bool)
        terminated, truncated = (self.rng.random(shape) < (ends or self.ends) / 2 for _ in range(2))
        for t, e in np.ndindex(shape):
            if self.mask and self.now[e] is None and self.rng.random() < 0.5:  # a step that the engine invented
                here[t, e], there[t, e], mask[t, e], terminated[t, e], truncated[t, e] = 7, 8, False, False, False
                continue
            if self.now[e] is None:
                first[t, e], frame = True, self.frame()
                padding = {"reset": frame, "zero": np.zeros_like(frame), "random": self.frame()}[self.padding]
                self.now[e] = np.concatenate([padding] * (c - 1) + [frame])
            here[t, e] = self.now[e]
            there[t, e] = self.now[e] = np.concatenate([self.now[e][1:], self.frame()])
            if terminated[t, e] or truncated[t, e]:
                self.now[e] = None
        reward = self.rng.normal(size=shape).astype(np.float32)
        following = {"observation": there, "reward": reward, "terminated": terminated, "truncated": truncated}
        action = self.rng.integers(0, 4, shape)
        rollout = {"observation": here, "is_first": first, "action": action, "next": following}
        return batch.make(tensors(rollout | ({"mask": mask} if self.mask else {})), shape)


def tensors(tree):
    return {key: tensors(value) if isinstance(value, dict) else torch.from_numpy(value) for key, value in tree.items()}


def live(storage) -> torch.Tensor:
    low, high = storage.live()
    return torch.tensor([k * storage.lanes + e for e in range(storage.lanes) for k in range(low[e], high[e])])


def equal(one, other) -> bool:
    names = batch.names(one)
    return sorted(names) == sorted(batch.names(other)) and all(
        torch.equal(batch.get(one, name), batch.get(other, name)) for name in names
    )


@pytest.mark.parametrize("padding", ["reset", "zero", "random"])
@pytest.mark.parametrize(
    "lanes, mask, stack, steps", [(1, False, 4, 1), (3, False, 4, 9), (3, True, 4, 7), (2, False, 2, 60)]
)
def test_it_equals_plain_rows_bit_for_bit_while_the_rings_wrap(padding, lanes, mask, stack, steps):
    player = Player(lanes, seed=steps, ends=0.02, padding=padding, mask=mask, stack=stack)
    frames, plain = Frames(50 * lanes, lanes, stack), Memory(50 * lanes, lanes)
    for _ in range(300 // steps + 2):
        rollout = player.rollout(steps)
        kept = plain.write(rollout)
        index = frames.write(rollout)
        assert set(index.tolist()) <= set(kept.tolist())
        np.testing.assert_array_equal(frames.count, plain.count)
        index = live(frames)
        assert set(index.tolist()) <= set(live(plain).tolist()) and len(frames) == len(index)
        assert equal(frames.read(index), plain.read(index))
    assert frames.count.min() > 2 * frames.ring or mask
    assert len(frames) > 0.8 * len(plain)
    pairs = live(frames)[-8:].view(4, 2)
    assert equal(frames.read(pairs), plain.read(pairs))


@pytest.mark.parametrize("lanes", [1, 3])
def test_very_short_episodes_cost_old_rows_but_never_a_wrong_picture(lanes):
    player = Player(lanes, ends=1.2)  # one or two rows each
    frames, plain = Frames(40 * lanes, lanes), Memory(40 * lanes, lanes)
    for _ in range(60):
        rollout = player.rollout(int(player.rng.integers(1, 12)))
        plain.write(rollout)
        written = frames.write(rollout)
        index = live(frames)
        assert set(written.tolist()) <= set(index.tolist())
        assert equal(frames.read(index), plain.read(index))
    assert len(frames) < 0.5 * len(plain) and (len(frames) >= 8 * lanes)
    assert frames.window() is None
    low, high = frames.live()
    oldest = frames.column("frame")[frames.slot(torch.from_numpy(low * lanes + np.arange(lanes)))].numpy() - 3
    gone = frames.pixels.live()[0]
    assert (oldest >= gone).all() and (oldest < gone + 2 * 5).all()  # not more rows than had to go
    for _ in range(20):  # long episodes again: the window grows back
        frames.write(player.rollout(10, ends=1e-9))
    assert len(frames) == 40 * lanes and frames.window() is not None


@pytest.mark.parametrize("sampler", [Uniform, Prioritized])
def test_samplers_and_n_step_returns_work_on_it(sampler):
    player = Player(3, ends=0.5)
    both = [
        ReplayBuffer(storage, sampler(seed=2), [NStep(3, 0.9)], batch_size=16)
        for storage in (Frames(120, 3), Memory(120, 3))
    ]
    for _ in range(30):
        rollout = player.rollout(5)
        for buffer in both:
            buffer.add(rollout)
        got = both[0].sample()
        low, high = both[0].storage.live()
        k, lane = np.divmod(got["index"].numpy(), 3)
        assert (k >= low[lane]).all() and (k < high[lane]).all()
        expected = NStep(3, 0.9)(both[1].storage, got["index"], both[1].storage.read(got["index"]))
        for name in batch.names(expected):
            assert torch.equal(batch.get(got, name), batch.get(expected, name))
        if sampler is Prioritized:
            both[0].feedback(got["index"], torch.rand(16))


class Painter(gymnasium.Env):
    """A grey picture that shows the step number and the action; terminates at random."""

    observation_space = gymnasium.spaces.Box(0, 255, (36, 36), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.picture(0), {}

    def picture(self, action):
        return (self.np_random.integers(0, 60, (36, 36)) + 60 * action + self.t % 60).astype(np.uint8)

    def step(self, action):
        self.t += 1
        return self.picture(action), float(action), self.np_random.random() < 0.03, False, {}


@pytest.mark.parametrize("padding", ["reset", "zero"])
@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP"])
def test_it_keeps_what_a_frame_stacked_gymnasium_environment_plays(padding, mode):
    def make():
        return FrameStackObservation(TimeLimit(Painter(), 25), 4, padding_type=padding)

    vector = gymnasium.vector.SyncVectorEnv([make] * 3, autoreset_mode=gymnasium.vector.AutoresetMode[mode])
    env = Gymnasium(vector, seed=3)
    collector = SerialCollector(env, Random(env.action_space), steps=8)
    frames, plain = Frames(240, 3), Memory(240, 3)
    truncated = terminated = masked = 0
    for _ in range(30):
        rollout = collector.collect()
        frames.write(rollout)
        plain.write(rollout)
        index = live(frames)
        assert equal(frames.read(index), plain.read(index))
        truncated += rollout["next"]["truncated"].sum()
        terminated += rollout["next"]["terminated"].sum()
        masked += batch.get(rollout, "mask") is not None
    assert truncated > 3 and terminated > 3 and (masked > 0) == (mode == "NEXT_STEP")
    assert len(frames) > 0.9 * len(plain)


def test_observations_that_are_no_stacks_are_refused_and_nothing_is_written():
    player, storage = Player(2, ends=1e-9), Frames(100, 2)
    storage.write(player.rollout(10))
    message = 'does not stack frames, use storage="memory"'
    for key, where in (
        (("observation",), (4, 1, 0)),
        (("observation",), (4, 1, 3)),
        (("next", "observation"), (4, 1, 2)),
    ):
        rollout = player.rollout(6)
        rollout[key][where] += 1
        with pytest.raises(
            BatchError,
            match=f"of environment 1 at step [45] of the rollout is not .* moved on by one frame: .*{message}",
        ):
            storage.write(rollout)
        player.now = [None, None]
    rollout = Player(2, seed=5, ends=1e-9).rollout(6)
    rollout["is_first"][:] = False  # goes on, it says, but not from where the storage stands
    with pytest.raises(
        BatchError, match="'observation' of environment 0 at step 0 of the rollout is not 'the next.observation"
    ):
        storage.write(rollout)
    assert storage.count.tolist() == [10, 10] and storage.pixels.count.tolist() == [14, 14]


def test_written_once_it_refuses_rows_and_frames_that_do_not_fit():
    player = Player(2, ends=1e-9)
    storage = Frames(40, 2, writer="once")
    storage.write(player.rollout(15))
    with pytest.raises(BadInput, match="written once and holds 20 rows and 27 frames a lane; 21 rows with 25 frames"):
        storage.write(player.rollout(6))
    assert len(storage) == 30
    storage = Frames(40, 2, writer="once")
    with pytest.raises(BadInput, match="12 rows with .* frames came"):  # no row is given up in silence
        storage.write(Player(2, ends=2).rollout(12))
    assert len(storage) == 0


def test_bad_input_is_named():
    with pytest.raises(BadInput, match="a stack has at least 1 frame, got stack=0"):
        Frames(10, 1, stack=0)
    storage = Frames(100, 2)
    for wrong in (
        torch.zeros(3, 2, 4),
        torch.zeros(3, 2, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(3, 2, 8, 8, 4, dtype=torch.uint8),
    ):
        rollout = Player(2).rollout(3)
        rollout["observation"] = rollout["next"]["observation"] = wrong
        with pytest.raises(
            BatchError,
            match=r"keeps stacks \[4, height, width\] or \[4, numbers\], 4 frames with the oldest first; 'observation' is",
        ):
            storage.write(rollout)
    storage.write(Player(2).rollout(3))
    with pytest.raises(
        BatchError, match=r"must have one dtype and size, got torch.uint8 \[7, 5\], .*, torch.uint8 \[6, 5\]"
    ):
        storage.write(Player(2, size=(7, 5)).rollout(3))
    floats = Player(2).rollout(3)
    floats["observation"], floats["next"]["observation"] = (
        floats["observation"].float(),
        floats["next"]["observation"].float(),
    )
    with pytest.raises(BatchError, match="must have one dtype and size, got torch.float32"):
        storage.write(floats)
    with pytest.raises(BatchError, match="lanes 1 to 2 were to be written, there are 2"):
        storage.write(Player(2).rollout(3), first_lane=1)
    with pytest.raises(BatchError, match="the buffer has no 'observation'"):
        storage.column("observation")


def atari(capacity: int, lanes: int, slack: int = 0) -> tuple[Frames, int]:
    """A frame storage, and the bytes it will take for 84 x 84 x 4 and what an off-policy agent keeps beside it."""
    storage = Frames(capacity, lanes, slack=slack)
    rollout = Player(1, size=(8, 8)).rollout(2)
    rest = [(n, batch.get(rollout, n).dtype, ()) for n in batch.names(rollout) if not n.endswith("observation")]
    return storage, storage.needs(
        (84, 84), torch.uint8, Layout.pack([*rest, ("frame", torch.int64, ()), ("version", torch.int64, ())])
    )


@pytest.mark.parametrize("lanes, slack", [(1, 0), (8, 1000), (64, 150)])
def test_a_million_atari_transitions_take_less_than_8_gib(lanes, slack):
    _, bytes = atari(1_000_000, lanes, slack)
    assert 6.5 * 2**30 < bytes < 8 * 2**30


def test_the_bytes_foretold_are_the_bytes_taken_and_become_resident():
    player, storage = Player(2, size=(84, 84), ends=0.01), Frames(6000, 2)
    rollout = player.rollout(10)
    before = resident()
    storage.write(rollout)
    bytes = storage.needs((84, 84), torch.uint8, storage.transitions.layout)
    assert storage.nbytes == bytes
    assert 6000 * 84 * 84 < bytes < 1.15 * 6000 * (84 * 84 + 60)
    going_on = rollout.clone()  # one frame that stands still, so that making it costs nothing
    going_on["is_first"][:], going_on["is_first"][0] = False, True
    for key in ("terminated", "truncated"):
        going_on["next"][key][:] = False
    going_on["observation"][:] = going_on["next"]["observation"][:] = 9
    for _ in range(400):
        storage.write(going_on)
    assert resident() - before < 1.1 * bytes + 2**24  # all of it was written, and nothing else is kept


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_it_resumes_from_a_folder_to_the_same_pictures(tmp_path):
    player = Player(3, ends=0.6)
    storage, plain = Frames(60, 3, slack=12, folder=tmp_path), Memory(60, 3)
    for _ in range(20):
        rollout = player.rollout(4)
        storage.write(rollout), plain.write(rollout)
    storage.flush()
    arrays, numbers = storage.state()
    index = live(storage)
    expected = plain.read(index).clone()
    for _ in range(3):  # what a killed run wrote after its checkpoint, flushed or not
        storage.write(player.rollout(4, ends=2.0))
        storage.flush()
    again = Frames(60, 3, slack=12, folder=tmp_path)
    assert again.load_state(arrays, numbers)
    assert torch.equal(live(again), index) and equal(again.read(index), expected)
    player.now = [None] * 3
    rollout = player.rollout(6)
    again.write(rollout), plain.write(rollout)
    assert equal(again.read(live(again)), plain.read(live(again)))


def test_a_whole_buffer_is_saved_and_loaded(tmp_path):
    player = Player(2, ends=0.8)
    buffer, other = (ReplayBuffer(Frames(60, 2), Uniform(seed=1), batch_size=8) for _ in range(2))
    for _ in range(15):
        buffer.add(player.rollout(5))
    buffer.save(tmp_path / "saved")
    other.load(tmp_path / "saved")
    assert torch.equal(live(buffer.storage), live(other.storage)) and len(buffer) < 60
    for _ in range(3):
        assert equal(buffer.sample(), other.sample())


def test_rows_come_back_in_order():
    player = Player(2, ends=1e-9)
    storage, copy = Frames(60, 2), Frames(60, 2)
    rollouts = [player.rollout(7) for _ in range(9)]
    for rollout in rollouts:
        storage.write(rollout)
    expected = torch.cat(rollouts)[-30:]
    assert equal(storage.ordered(), expected)
    copy.write(storage.ordered())  # the first row is in the middle of an episode
    assert equal(copy.ordered(), expected) and len(copy) == 60
    more = player.rollout(3)
    storage.write(more[:, :1])  # one lane only: from here on they differ
    for e in range(2):
        rows = torch.cat([*rollouts, more])[: 63 + 3 * (e == 0), e]
        assert equal(storage.ordered()[:, e], rows[-30:])
