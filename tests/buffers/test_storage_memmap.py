"""Rows on disk: reopened, shared between processes, refused where they do not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from whorl import batch
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.sample_uniform import Uniform
from whorl.buffers.storage_memmap import Memmap
from whorl.errors import BadInput, Damaged

WRITERS, SAMPLES = 2, 20_000
GRAIN = 7919  # a row's numbers are its own number times this, so that a torn row shows


def rollout(steps, envs=2, start=0, width=3):
    number = (start + torch.arange(steps)).view(-1, 1).expand(steps, envs)
    return batch.make(
        {
            "number": number.contiguous(),
            "lane": torch.arange(envs).expand(steps, envs).contiguous(),
            "observation": (number * GRAIN).view(steps, envs, 1).expand(steps, envs, width).contiguous(),
            "next": {"reward": number.double()},
        },
        (steps, envs),
    )


def test_an_opened_folder_holds_what_was_written(tmp_path):
    storage = Memmap(tmp_path / "rows", capacity=10, lanes=2, slack=3)
    assert not (tmp_path / "rows").exists() and len(storage) == 0
    for start in range(0, 28, 4):
        storage.write(rollout(4, start=start))
    other = Memmap.open(tmp_path / "rows")
    assert (other.rows, other.ring, other.lanes) == (5, 8, 2) and other.count.tolist() == [28, 28]
    assert bool((other.ordered() == storage.ordered()).all()) and other.window() == storage.window() == (23, 28)
    storage.write(rollout(1, start=28))  # both see it
    assert other.ordered()["number"][:, 0].tolist() == [24, 25, 26, 27, 28]
    assert other.window() == (24, 29)
    width = storage.layout.row_bytes
    assert (tmp_path / "rows" / "rows.bin").stat().st_blocks * 512 >= 16 * width  # no hole for a full disk to hit later
    storage.flush()


def test_who_comes_before_the_first_row_sees_it_later(tmp_path):
    reader, writer = Memmap(tmp_path / "rows", 10, 2), Memmap(tmp_path / "rows", 10, 2)
    assert len(reader) == 0 and reader.window() == (0, 0)
    writer.write(rollout(2))
    assert len(reader) == 4 and reader.read(torch.tensor([3]))["number"].tolist() == [1]
    third = Memmap(tmp_path / "rows", 10, 2)
    third.write(rollout(1, envs=1, start=2), first_lane=1)
    assert reader.count.tolist() == [2, 3] and reader.window() is None


def test_rows_that_are_being_overwritten_are_not_live_and_not_intact(tmp_path):
    storage = Memmap(tmp_path, capacity=10, lanes=2, slack=3)
    storage.write(rollout(12))
    assert storage.live()[0].tolist() == [7, 7]
    storage._begun[1] = 12 + 5  # another process begins to write five rows to lane 1, and is not done or is dead
    assert storage.live()[0].tolist() == [7, 9]
    assert storage.intact(torch.tensor([7 * 2, 9 * 2 + 1])) and not storage.intact(torch.tensor([8 * 2 + 1]))
    again = Memmap.open(tmp_path)
    assert again.live()[0].tolist() == [7, 9] and again.live()[1].tolist() == [12, 12]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: Memmap(path, 11, 2, 3), "has capacity=10, 11 was asked for: use the same, or another folder"),
        (lambda path: Memmap(path, 10, 1, 3), "has lanes=2, 1 was asked for"),
        (lambda path: Memmap(path, 10, 2, 4), "has slack=3, 4 was asked for"),
        (lambda path: Memmap.open(path / "other"), "there is no replay buffer in"),
        (lambda path: Memmap(path, 1, 2), "capacity=1 rows is less than one row for each of the 2 lanes"),
    ],
)
def test_other_sizes_are_refused(make, message, tmp_path):
    Memmap(tmp_path, 10, 2, 3).write(rollout(1))
    with pytest.raises(BadInput, match=message):
        make(tmp_path)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_made(tmp_path):
    storage = Memmap(tmp_path / "rows", capacity=10**13, lanes=2)
    with pytest.raises(BadInput, match=r"needs [\d,]+ bytes .* free. Use a smaller capacity, or another folder"):
        storage.write(rollout(1))
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rows.bin", lambda data: data[:-1], "bytes, .* were expected"),
        ("rows.bin", None, "rows.bin is missing"),
        ("counters.bin", lambda data: data + b"0", "has 49 bytes, 48 were expected"),
        ("counters.bin", lambda data: b"\xff" * 48, "does not hold counters"),
        ("layout.json", lambda data: data[:30], "is not valid JSON"),
        ("layout.json", lambda data: data.replace(b"float64", b"float65"), "not the layout of a replay buffer"),
        ("layout.json", lambda data: data.replace(b'"lanes": 2', b'"lanes": "2"'), "was not written by whorl"),
    ],
)
def test_damaged_files(name, change, message, tmp_path):
    Memmap(tmp_path, 10, 2, 3).write(rollout(1))
    path = tmp_path / name
    if change:
        path.write_bytes(change(path.read_bytes()))
    else:
        path.unlink()
    with pytest.raises(Damaged, match=message):
        Memmap.open(tmp_path)


def test_resuming_from_a_checkpoint_takes_later_rows_back(tmp_path):
    storage = Memmap(tmp_path, 10, 2, slack=4)
    storage.write(rollout(12))
    state, rows = json.loads(json.dumps(storage.state())), storage.ordered()
    storage.write(rollout(4, start=12))
    late = storage.state()
    other = Memmap.open(tmp_path)
    assert other.load_state(*state) is True and other.count.tolist() == [12, 12]
    assert bool((other.ordered() == rows).all())
    other.write(rollout(3, start=100))
    assert Memmap.open(tmp_path).ordered()["number"][:, 0].tolist() == [10, 11, 100, 101, 102]
    assert Memmap.open(tmp_path).load_state(*late) is False  # its last rows are another's now
    storage = Memmap(tmp_path / "2", 10, 2, slack=4)
    storage.write(rollout(12))
    state = storage.state()
    storage.write(rollout(5, start=12))
    assert storage.load_state(*state) is False
    assert storage.ordered()["number"][:, 0].tolist() == [8, 9, 10, 11]
    with pytest.raises(Damaged, match="there is none"):
        Memmap(tmp_path / "3", 10, 2, slack=4).load_state(*state)


def writer(folder: str, lane: int) -> None:
    """A process that writes its own lane until the file `stop` appears."""
    torch.set_num_threads(1)
    storage = Memmap(folder, capacity=200, lanes=WRITERS, slack=40)
    start, sizes = 0, (1, 3, 8)
    while not Path(folder, "stop").exists():
        steps = sizes[start % 3]
        part = rollout(steps, envs=1, start=start, width=1000)
        part["lane"] += lane
        storage.write(part, first_lane=lane)
        start += steps


def test_two_writers_and_a_learner_never_see_a_torn_row(tmp_path):
    folder = tmp_path / "rows"
    children = [
        subprocess.Popen([sys.executable, __file__, str(folder), str(lane)], stderr=subprocess.PIPE, text=True)
        for lane in range(WRITERS)
    ]
    try:
        buffer = ReplayBuffer(Memmap(folder, capacity=200, lanes=WRITERS, slack=40), Uniform(0), batch_size=100)
        while buffer.storage.count.min() < 1000:  # the ring has wrapped
            assert all(child.poll() is None for child in children), [child.communicate() for child in children]
            time.sleep(0.01)
            len(buffer)
        first, torn, seen = buffer.storage.count.copy(), 0, set()
        for _ in range(SAMPLES // 100):
            drawn = buffer.sample()
            number = drawn["index"] // WRITERS
            whole = (drawn["number"] == number) & (drawn["lane"] == drawn["index"] % WRITERS)
            whole &= (drawn["observation"] == (number * GRAIN)[:, None]).all(-1) & (drawn["next"]["reward"] == number)
            torn += int((~whole).sum())
            seen |= set(drawn["index"].tolist())
        assert torn == 0
        assert (buffer.storage.count > first).all() and len(seen) > 200  # they did write meanwhile
    finally:
        folder.mkdir(exist_ok=True)
        (folder / "stop").touch()
        for child in children:
            assert child.wait(60) == 0, child.stderr.read()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    writer(sys.argv[1], int(sys.argv[2]))
