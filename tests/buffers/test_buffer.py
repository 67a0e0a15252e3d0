"""The replay buffer: how many batches are due, prefetching, saving, and what it refuses."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import wait

import pytest
import torch

from whorl import batch
from whorl.buffers import saved
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.lookup.lookup import Lookup
from whorl.buffers.rollout import RolloutBuffer
from whorl.buffers.sample_prioritized import Prioritized
from whorl.buffers.sample_sequence import Sequences
from whorl.buffers.sample_uniform import Uniform, WithoutReplacement
from whorl.buffers.storage_memmap import Memmap
from whorl.buffers.storage_memory import Memory
from whorl.buffers.stream import StreamBuffer
from whorl.buffers.transfer import Transfer
from whorl.errors import BadInput, Damaged
from whorl.feeds import Rollouts


def rollout(steps, lanes=2, start=0):
    number = (start + torch.arange(steps)).view(-1, 1).expand(steps, lanes)
    entries = {"observation": number[..., None].float() + torch.arange(3), "next": {"reward": number.float()}}
    return batch.make(entries, (steps, lanes))


def filled(steps=20, **options):
    options = {"batch_size": 8, **options}
    buffer = ReplayBuffer(Memory(100, 2), options.pop("sampler", None) or Uniform(0), **options)
    buffer.add(rollout(steps))
    return buffer


@pytest.mark.parametrize(
    ("ratio", "warmup", "steps"), [(1.0, 10, 1), (0.29, 0, 1), (1 / 3, 7, 1), (4.0, 50, 3), (0.1, 100, 8), (2.5, 3, 1)]
)
def test_batches_due_follow_the_ratio_exactly_and_the_warm_up_is_not_caught_up(ratio, warmup, steps):
    buffer = ReplayBuffer(Memory(100, 2), Uniform(0), batch_size=1, replay_ratio=ratio, warmup=warmup)
    drawn, rows = 0, 0
    for _ in range(150):
        buffer.add(rollout(steps))
        rows += 2 * steps
        drawn += len(list(buffer.batches()))
        assert drawn == max(int(round(ratio * max(rows - warmup, 0), 6)), 0)
    assert len(list(buffer.batches())) == 0
    assert len(list(buffer.batches(3))) == 3  # asked for: not taken from what is due
    buffer.add(rollout(100))
    rows += 200
    assert drawn + len(list(buffer.batches())) == int(round(ratio * (rows - warmup), 6))


def test_batches_that_were_not_taken_stay_due():
    buffer = filled(steps=5, replay_ratio=1.0)
    for _ in buffer.batches():
        break
    assert len(list(buffer.batches())) == 9


def test_masked_rows_do_not_count():
    buffer = ReplayBuffer(Memory(100, 2), Uniform(0), replay_ratio=1.0, batch_size=1)
    rows = rollout(4)
    rows["mask"] = torch.tensor([[True, False]]).expand(4, 2)
    buffer.add(rows)
    assert len(buffer) == buffer.added == 4 and len(list(buffer.batches())) == 4


@pytest.mark.parametrize("ahead", [1, 3])
def test_prefetching_changes_no_row(ahead):
    plain, early = filled(), filled(prefetch=ahead)
    for part in range(4):
        for count in (0, 1, 2, 9):
            seen = 0
            for one, other in zip(plain.batches(count), early.batches(count)):
                assert torch.equal(one["index"], other["index"])
                assert torch.equal(other["observation"][:, 1], other["index"] // 2 + 1.0)  # and nobody writes over it
                seen += 1
            assert seen == count
        plain.add(rollout(5, start=20 + 5 * part))
        early.add(rollout(5, start=20 + 5 * part))
    assert plain.state() == early.state()


def test_prefetching_with_priorities_has_one_order():
    """The batch that was drawn ahead does not see the feedback of the one before it, whoever is faster."""

    class Slow(Prioritized):
        def draw(self, storage, size):
            if self.pause:
                threading.Event().wait(self.pause)
            return super().draw(storage, size)

    results = []
    for pause in (0.0, 0.02):
        sampler = Slow(0)
        sampler.pause = pause
        buffer, drawn = filled(sampler=sampler, prefetch=1), []
        for rows in buffer.batches(12):
            drawn.append(rows["index"].clone())
            buffer.feedback(rows["index"], (rows["index"] % 7).float() ** 3)
        results.append(torch.stack(drawn))
    assert torch.equal(*results)


def test_an_exception_in_the_thread_arrives():
    class Broken(Lookup):
        def __call__(self, storage, index, rows):
            raise RuntimeError("broken lookup")

    buffer = filled(prefetch=2, lookups=[Broken()])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken lookup"):
            next(buffer.batches(3))


def test_leaving_a_loop_early_and_sampling_in_between():
    """What is sampled in between takes the memory of no batch that was drawn ahead: with memory for all there are the same batches."""

    def run(memories):
        buffer, seen = filled(prefetch=2), []
        buffer.storage.keep(memories)
        for _ in range(3):
            for i, rows in enumerate(buffer.batches(10)):
                wait(buffer._ahead)
                seen += [rows.clone(), buffer.sample(8).clone()]
                buffer.add(rollout(1, start=20))
                if i == 4:
                    break
        return torch.stack(seen)

    assert bool((run(3) == run(100)).all())


def test_lookups_see_storage_index_and_batch_in_turn():
    class Double(Lookup):
        def __call__(self, storage, index, rows):
            assert torch.equal(rows["index"], index) and storage.lanes == 2
            rows["next"]["reward"].mul_(2)
            return rows

    buffer = filled(lookups=[Double(), Double()])
    for _ in range(3):
        rows = buffer.sample(5)
        assert torch.equal(rows["next"]["reward"], (rows["index"] // 2 * 4).float())


def test_a_transfer_hands_out_equal_batches_in_memory_of_its_own():
    """On the CPU, where it can be read; a device only adds pinned memory and an event."""
    move = Transfer("cpu", alive=2)
    buffer = filled()
    results = []
    for _ in range(2):
        rows = buffer.sample()
        results.append((move(rows), rows.clone()))
    for moved, rows in results:
        assert bool((moved == rows).all()) and moved["observation"].is_contiguous()
        assert moved["next"]["reward"].dtype == torch.float32 and moved.batch_size == rows.batch_size
    assert move(buffer.sample()) is results[0][0]
    assert move(buffer.sample(3)).batch_size == (3,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("side", ["cpu", "cuda"])
def test_batches_on_a_gpu(side, prefetch):
    plain = filled()
    buffer = ReplayBuffer(Memory(100, 2, device=side), Uniform(0), batch_size=8, prefetch=prefetch, device="cuda")
    buffer.add(rollout(20).to(side))
    for one, other in zip(plain.batches(200), buffer.batches(200)):
        assert other["observation"].is_cuda and other["index"].is_cuda
        assert bool((other.cpu() == one).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReplayBuffer(Memory(4, 2), Uniform()).sample(), "the replay buffer is empty: add rollouts before sampling"),
        (lambda: next(ReplayBuffer(Memory(4, 2), Uniform()).batches(1)), "the replay buffer is empty"),
        (lambda: ReplayBuffer(Memory(4, 2), Uniform()).add(rollout(2, lanes=1)), r"keeps rollouts \[T, 2\].*; \[2, 1\] came"),
        (lambda: ReplayBuffer(Memory(4, 2), Uniform()).add(rollout(2)[0]), r"\[2\] came"),
        (lambda: ReplayBuffer(Memory(4, 2), Uniform(), batch_size=0), "batch_size >= 1"),
        (lambda: ReplayBuffer(Memory(4, 2), Uniform(), replay_ratio=0.0), "replay_ratio must be at least 0.000001, got 0.0"),
        (lambda: filled().load("nowhere"), "there is no saved replay buffer in nowhere"),
    ],
)  # fmt: skip
def test_bad_input(make, message):
    with pytest.raises(BadInput, match=message):
        make()


# ------------------------------------------------------------------------------------------------ keeping it


@pytest.mark.parametrize("sampler", [Uniform, Prioritized])
@pytest.mark.parametrize("kind", ["memory", "memmap"])
def test_a_resumed_buffer_goes_on_with_the_same_bits(kind, sampler, tmp_path):
    def make():
        storage = Memory(40, 2, 10, folder=tmp_path) if kind == "memory" else Memmap(tmp_path, 40, 2, 10)
        return ReplayBuffer(storage, sampler(0), batch_size=4, replay_ratio=0.7, warmup=9)

    def run(buffer, start, until):
        drawn = []
        for k in range(start, until):
            buffer.add(rollout(2, start=2 * k))
            for rows in buffer.batches():
                drawn.append(rows.clone())
                if sampler is Prioritized:
                    buffer.feedback(rows["index"], rows["next"]["reward"])
        return torch.stack(drawn)

    buffer = make()
    run(buffer, 0, 25)
    arrays, numbers = buffer.state()
    numbers = json.loads(json.dumps(numbers))
    arrays = {name: x.clone() for name, x in arrays.items()}
    assert sum(x.nbytes for x in arrays.values()) < 4000
    uninterrupted = run(buffer, 25, 29)  # within the slack
    if kind == "memory":
        buffer.storage.flush()
    other = make()
    assert other.load_state(arrays, numbers) is True
    assert bool((run(other, 25, 29) == uninterrupted).all())


@pytest.mark.parametrize("sampler", [Uniform, Prioritized])
def test_save_and_load_keep_everything(sampler, tmp_path):
    buffer = ReplayBuffer(Memory(40, 2), sampler(0), batch_size=4)
    for k in range(30):
        buffer.add(rollout(1, start=k))
    list(buffer.batches(3))
    if sampler is Prioritized:
        buffer.feedback(torch.arange(40, 60), torch.arange(20.0))
    for folder in (tmp_path / "saved", tmp_path / "saved"):  # the second replaces the first
        assert buffer.save(folder) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    other = ReplayBuffer(Memmap(tmp_path / "rows", 40, 2, 0), sampler(0), batch_size=4)
    other.load(tmp_path / "saved")
    assert len(other) == len(buffer) and other.added == buffer.added == 60
    for _ in range(10):
        assert bool((other.sample() == buffer.sample()).all())
    with pytest.raises(BadInput, match="the state has 2 lanes of 20 rows, this buffer 2 of 25"):
        ReplayBuffer(Memory(50, 2), sampler(0)).load(tmp_path / "saved")
    os.makedirs(tmp_path / "mine")
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(BadInput, match="holds something else than a saved replay buffer"):
        buffer.save(tmp_path / "mine")


class Counting(Lookup):
    """Counts how often each row was drawn: a lookup with arrays and numbers of its own."""

    def __init__(self):
        self.times, self.calls = torch.zeros(100, dtype=torch.int64), 0

    def __call__(self, storage, index, rows):
        self.times += index.flatten().bincount(minlength=100)
        self.calls += 1
        rows["times"] = self.times[index]
        return rows

    def state(self):
        return {"times": self.times}, {"calls": self.calls}

    def load_state(self, arrays, numbers):
        self.times[:], self.calls = arrays["times"], numbers["calls"]
        return True


@pytest.mark.parametrize("way", ["state", "save"])
def test_lookups_come_back_with_their_arrays(way, tmp_path):
    """Those with a state; the others may come and go: rows that were kept are read with n-step returns as well as without."""

    def make(*others):
        storage = Memory(100, 2, folder=tmp_path / "rows" if way == "state" else None)
        return ReplayBuffer(storage, Uniform(0), [Counting(), *others], batch_size=8)

    buffer, other = make(), make(Same())
    buffer.add(rollout(20))
    for _ in range(5):
        buffer.sample()
    if way == "state":
        arrays, numbers = buffer.state()
        assert set(arrays) == {"lookup0.times"} and set(numbers) == {"storage", "sampler", "lookup0", "added", "left"}
        assert other.load_state({name: x.clone() for name, x in arrays.items()}, json.loads(json.dumps(numbers)))
    else:
        buffer.save(tmp_path / "saved")
        other.load(tmp_path / "saved")
    assert other.lookups[0].calls == 5 and other.lookups[0].times.sum() == 40
    for _ in range(3):
        assert bool((buffer.sample() == other.sample()).all())


class Same(Lookup):
    def __call__(self, storage, index, rows):
        return rows


@pytest.mark.parametrize(
    "sampler", [Uniform, WithoutReplacement, Prioritized, lambda seed: Sequences(seed, 3, overlap=2)]
)
def test_recorded_data_is_no_part_of_the_state(sampler):
    """The sampler goes on where it was; the rows are the data's own, and nobody adds to them."""

    def make(steps=20):
        storage = Memory(100, 2, writer="once")
        storage.write(rollout_with_flags(steps))
        return ReplayBuffer(storage, sampler(0), [Counting()], batch_size=8, recorded=True)

    def draw(buffer, count):
        drawn = []
        for rows in buffer.batches(count):
            drawn.append(rows.clone())
            if sampler is Prioritized:
                buffer.feedback(rows["index"], (rows["index"] % 7).float())
        return drawn

    buffer, other = make(), make()
    assert list(buffer.batches()) == []  # none is due: an offline run asks for as many as it wants
    draw(buffer, 9)
    arrays, numbers = buffer.state()
    assert numbers["rows"] == 40 and "storage" not in numbers
    assert other.load_state({name: x.clone() for name, x in arrays.items()}, json.loads(json.dumps(numbers))) is True
    for one, two in zip(draw(buffer, 9), draw(other, 9), strict=True):
        assert bool((one == two).all())
    with pytest.raises(BadInput, match="the recorded data has 38 rows, it had 40 when this state was saved"):
        make(19).load_state(arrays, numbers)
    with pytest.raises(BadInput, match="this buffer holds recorded data: no rows are added to it"):
        buffer.add(rollout_with_flags(1))


def rollout_with_flags(steps):
    rows = rollout(steps)
    flags = {name: torch.zeros(steps, 2, dtype=torch.bool) for name in ("terminated", "truncated")}
    rows["next"] = batch.make({**rows["next"], **flags}, (steps, 2))
    return rows


@pytest.mark.parametrize("make", [lambda: RolloutBuffer(Rollouts()), StreamBuffer, filled])
def test_every_buffer_refuses_priorities_that_it_has_no_use_for(make):
    buffer = make()
    with pytest.raises(BadInput, match="ha(s|ve) no priorities"):
        buffer.feedback(torch.arange(3), torch.ones(3))
    if make is not filled:
        assert buffer.load_state(*buffer.state()) is True


def test_a_save_that_was_killed_leaves_the_one_before(tmp_path, monkeypatch):
    """Whatever the moment: only the replacement of buffer.json publishes, and the next save clears what is left over."""
    folder, old = tmp_path / "saved", filled()
    old.save(folder)
    monkeypatch.setattr(saved, "write_json", lambda *_: os._exit(9))
    for _ in range(2):
        child = os.fork()
        if child == 0:
            try:
                filled(steps=3).save(folder)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    monkeypatch.undo()
    assert len(list(folder.glob("save-*"))) == 3
    found = filled(steps=3)
    found.load(folder)
    assert len(found) == len(old)
    filled(steps=3).save(folder)
    assert len(list(folder.glob("save-*"))) == 1
    found.load(folder)
    assert len(found) == 6


@pytest.mark.parametrize("name", ["rows.bin", "parts.safetensors", "buffer.json"])
def test_a_damaged_file_is_named_and_nothing_is_loaded(name, tmp_path):
    filled().save(tmp_path / "saved")
    (path,) = (tmp_path / "saved").rglob(name)
    data = path.read_bytes()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    buffer = filled(steps=3)
    for damaged in (changed, data[: len(data) // 2], b"[]"):
        path.write_bytes(damaged)
        with pytest.raises(Damaged, match=name):
            buffer.load(tmp_path / "saved")
    assert len(buffer) == 6 and buffer.added == 6
    path.write_bytes(data)
    buffer.load(tmp_path / "saved")
    assert len(buffer) == 40


def test_a_save_is_loaded_into_the_same_parts_only(tmp_path):
    buffer = ReplayBuffer(Memory(20, 2), Prioritized(0, alpha=0.5), batch_size=4)
    buffer.add(rollout(5))
    buffer.save(tmp_path / "saved")
    for sampler in (Uniform(0), Prioritized(0, alpha=0.6)):
        other = ReplayBuffer(Memory(20, 2), sampler, batch_size=4)
        with pytest.raises(BadInput, match="was saved by a buffer of Prioritized, alpha 0.5, this one is of"):
            other.load(tmp_path / "saved")
        assert len(other) == 0 and other.added == 0


@pytest.mark.parametrize("change", [{"left": -(2**63)}, {"left": 2**62}, {"added": 2**70}, {"added": 3}, {"added": -1}])
def test_counts_of_a_stranger_would_keep_it_busy_for_ever(change, tmp_path):
    def made():
        return ReplayBuffer(Memory(64, 2, folder=tmp_path), Uniform(0), batch_size=4)

    buffer = made()
    buffer.add(rollout(20))
    assert len(list(buffer.batches())) == 40
    arrays, numbers = buffer.state()
    with pytest.raises(Damaged, match="cannot be left to draw"):
        made().load_state(arrays, numbers | change)
    for older in ({}, {"drawn": 40}):  # states of before there was such a count
        again = made()
        assert "left" not in numbers and again.load_state(arrays, numbers | older) and not list(again.batches())
