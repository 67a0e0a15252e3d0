"""Rows in memory: what comes back, what is refused, and what a checkpoint finds on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from whorl import batch
from whorl.buffers.layout import Layout, available_memory
from whorl.buffers.storage_memory import Memory
from whorl.errors import BadInput, BatchError, Damaged


def rollout(steps, envs=2, start=0, width=3):
    """Row t of environment e holds start + t in every key, e in `lane`."""
    number = (start + torch.arange(steps)).view(-1, 1).expand(steps, envs)
    return batch.make(
        {
            "observation": number[..., None].float().expand(steps, envs, width).contiguous(),
            "lane": torch.arange(envs).expand(steps, envs).contiguous(),
            "flag": number % 2 == 0,
            "next": {"reward": number.double(), "observation": {"x": number[..., None].to(torch.uint8)}},
        },
        (steps, envs),
    )


def numbers(rows):
    return rows["observation"][..., 0].long()


def test_every_dtype_and_shape_comes_back_bit_for_bit():
    g = torch.Generator().manual_seed(0)
    dtypes = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int16, torch.int64]
    dtypes += [torch.bool, torch.complex128]
    shapes = [(), (1,), (3,), (2, 5), (0,)]
    entries = {}
    for dtype in dtypes:
        for shape in shapes:
            entries[f"{str(dtype).split('.')[1]} {shape}"] = torch.randint(0, 2, (4, 3, *shape), generator=g).to(dtype)
    storage = Memory(capacity=12, lanes=3)
    index = storage.write(batch.make(entries, (4, 3)))
    assert index.tolist() == list(range(12))
    back = storage.read(index.view(4, 3))
    for name, value in entries.items():
        assert back[name].dtype == value.dtype and torch.equal(back[name], value), name
        assert torch.equal(storage.column(name).view(value.shape), value), name
    offsets = [entry.offset for entry in storage.layout.fields]
    assert all(entry.offset % max(4, entry.dtype.itemsize) == 0 for entry in storage.layout.fields)
    assert offsets == sorted(offsets) and storage.layout.row_bytes % 8 == 0
    assert storage.nbytes == 12 * storage.layout.row_bytes
    assert Layout.from_json(json.loads(json.dumps(storage.layout.to_json()))) == storage.layout


def test_absolute_indexes_slots_and_slack():
    storage = Memory(capacity=7, lanes=2, slack=3)  # 4 rows a lane are live, the ring has 7
    assert (storage.rows, storage.ring, len(storage)) == (4, 7, 0)
    storage.write(rollout(5))
    assert storage.write(rollout(4, start=5)).tolist() == list(range(10, 18))
    low, high = storage.live()
    assert low.tolist() == [5, 5] and high.tolist() == [9, 9] and len(storage) == 8 and storage.window() == (5, 9)
    index = torch.arange(2 * (9 - 7), 2 * 9)  # the slack rows are there too
    back = storage.read(index)
    assert torch.equal(numbers(back), index // 2) and torch.equal(back["lane"], index % 2)
    assert torch.equal(back["index"], index) and torch.equal(storage.slot(index), index % 14)
    assert torch.equal(storage.column("observation")[storage.slot(index), 0].long(), index // 2)


def test_masked_rows_are_left_out_and_lanes_go_their_own_way():
    storage = Memory(capacity=8, lanes=2)
    part = rollout(3)
    part["mask"] = torch.tensor([[True, False], [False, False], [True, True]])
    assert storage.write(part).tolist() == [0, 2, 1]
    assert storage.count.tolist() == [2, 1] and storage.window() is None and "mask" not in storage.names()
    assert numbers(storage.read(torch.tensor([0, 2, 1]))).tolist() == [0, 2, 2]
    alone = rollout(3, envs=1, start=10)
    storage.write(alone, first_lane=1)
    assert storage.count.tolist() == [2, 4] and len(storage) == 6
    parts = storage.ordered()
    assert [numbers(part)[:, 0].tolist() for part in parts] == [[0, 2], [2, 10, 11, 12]]


def test_lanes_that_differ_wrap_each_at_its_own_place_and_indexes_hold_until_the_next_write():
    storage = Memory(capacity=8, lanes=2)  # 4 slots a lane
    part = rollout(3)
    part["mask"] = torch.tensor([[True, False], [False, False], [True, True]])
    storage.write(part)  # lane 0: 2 rows, lane 1: 1 row
    index = storage.write(rollout(3, start=10))
    assert index.tolist() == [4, 3, 6, 5, 8, 7]  # k * 2 + lane, of k = 2, 3, 4 and 1, 2, 3
    assert storage.write(rollout(3, start=20)) is index and index.tolist() == [10, 9, 12, 11, 14, 13]
    assert numbers(storage.ordered()).T.tolist() == [[12, 20, 21, 22]] * 2
    assert numbers(storage.read(torch.tensor([14, 13, 8, 7]))).tolist() == [22, 22, 12, 12]


def test_rollouts_longer_than_the_ring_keep_their_last_rows():
    for strange in (False, True):
        storage = Memory(capacity=6, lanes=2, slack=1)
        storage._compiled = not strange
        storage.write(rollout(11))
        assert numbers(storage.ordered())[:, 0].tolist() == [8, 9, 10]


def test_rollouts_need_not_be_contiguous_nor_on_the_storages_side():
    whole = rollout(6)
    storage = Memory(capacity=6, lanes=2)
    storage.write(whole[::2])
    assert numbers(storage.ordered())[:, 1].tolist() == [0, 2, 4]
    whole["observation"] = torch.arange(6.0).view(6, 1, 1).expand(6, 2, 3)
    storage.write(whole[3:])
    assert numbers(storage.ordered())[:, 0].tolist() == [3, 4, 5]


def test_a_batch_comes_in_the_same_memory_and_as_it_was():
    storage = Memory(capacity=20, lanes=2)
    storage.write(rollout(10))
    first = storage.read(torch.tensor([3, 4]))
    reward = first["next"]["reward"]
    first["noise"] = torch.zeros(2)  # what agents and lookups do to it
    first["next"]["reward"] = torch.zeros(2)
    first["next"]["discount"] = torch.ones(2)
    del first["flag"]
    second = storage.read(torch.tensor([16, 19]))
    assert second is first and second["next"]["reward"] is reward
    assert sorted(batch.names(second)) == sorted([*storage.names(), "index"])
    assert second["next"]["reward"].tolist() == [8, 9] and second["flag"].tolist() == [True, False]
    storage.keep(2)
    third, fourth = storage.read(torch.tensor([0, 2])).clone(), None
    a, fourth = storage.read(torch.tensor([0, 2])), storage.read(torch.tensor([4, 6]))
    assert a is not fourth and torch.equal(numbers(a), numbers(third)) and numbers(fourth).tolist() == [2, 3]
    assert storage.read(torch.tensor([[0, 2], [4, 6]])).batch_size == (2, 2)
    for size in range(1, 30):  # the memory of many shapes is not kept for ever
        storage.read(torch.zeros(size, dtype=torch.int64))
    assert len(storage._batches) <= 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.exclude("flag"), "'flag' is missing"),
        (lambda r: r.exclude(("next", "reward")), "'next.reward' is missing"),
        (lambda r: r.exclude("next"), "'next.observation.x' is missing; 'next.reward' is missing"),
        (lambda r: r.set("new", torch.zeros(2, 2)), "'new' is new"),
        (lambda r: r.set(("next", "new"), torch.zeros(2, 2)), "'next.new' is new"),
        (lambda r: r.set("index", torch.zeros(2, 2)), "'index' is written by the buffer"),
        (lambda r: r.set("flag", torch.zeros(2, 2)), r"'flag' has torch.float32 \[\] a row, expected torch.bool \[\]"),
        (lambda r: r.set("observation", torch.zeros(2, 2, 4)), r"has torch.float32 \[4\] a row, expected torch.float32 \[3\]"),
        (lambda r: r[:, :1].expand(2, 3), r"a rollout \[T, N\] for lanes 0 to 0 \+ N - 1 of 2 was expected, got \[2, 3\]"),
        (lambda r: r[0], r"got \[2\]"),
    ],
)  # fmt: skip
def test_other_rollouts_are_refused_and_change_nothing(change, message):
    storage = Memory(capacity=8, lanes=2)
    storage.write(rollout(2))
    before = storage.ordered()
    with pytest.raises(BatchError, match=message):
        storage.write(change(rollout(2, start=5)))
    assert storage.count.tolist() == [2, 2] and bool((storage.ordered() == before).all())


def test_what_is_no_tensor_is_refused():
    with pytest.raises(BatchError, match="'text' is a str|NonTensor|keeps dense tensors only"):
        Memory(4, 1).write(batch.make({"text": "a"}, (1, 1)))
    with pytest.raises(BatchError, match="'a.b' holds a '.', which stands for nesting"):
        Memory(4, 1).write(batch.make({"a.b": torch.zeros(1, 1)}, (1, 1)))
    with pytest.raises(BatchError, match="the buffer has no 'reward'. It has nothing yet"):
        Memory(4, 1).column("reward")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Memory(3, 4), "capacity=3 rows is less than one row for each of the 4 lanes"),
        (lambda: Memory(3, 0), "at least 1 lane"),
        (lambda: Memory(3, 1, slack=-1), "0 rows of slack"),
        (lambda: Memory(3, 1, writer="reservoir"), "writer must be 'ring' or 'once', got 'reservoir'"),
        (lambda: Memory(3, 1).ordered(), "empty"),
        (lambda: Memory(3, 1).read(torch.zeros(1, dtype=torch.int64)), "empty"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_a_buffer_larger_than_memory_is_refused_before_it_is_taken():
    storage = Memory(capacity=10**12, lanes=2)
    with pytest.raises(
        BadInput, match=r"needs [\d,]+ bytes .* available. Use a smaller capacity, or storage=\"memmap\""
    ):
        storage.write(rollout(1))
    assert storage.layout is None and storage.nbytes == 0
    assert 0 < available_memory() < 2**50


def test_written_once():
    storage = Memory(capacity=8, lanes=2, writer="once")
    storage.write(rollout(3))
    with pytest.raises(BadInput, match="written once and holds 4 rows a lane: 2 more do not fit after 3"):
        storage.write(rollout(2))
    masked = rollout(2, start=3)
    masked["mask"] = torch.tensor([[True, False], [False, True]])
    storage.write(masked)
    assert len(storage) == 8 and numbers(storage.ordered()).tolist() == [[0, 0], [1, 1], [2, 2], [3, 4]]


@pytest.mark.parametrize("masked", [False, True])
def test_ordered_rows_written_to_an_empty_storage_restore_it(masked):
    storage, other = Memory(10, 2), Memory(10, 2)
    for start in range(0, 24, 3):
        part = rollout(3, start=start)
        if masked:
            part["mask"] = torch.tensor([[True, start % 2 == 0]]).expand(3, 2)
        storage.write(part)
    rows = storage.ordered()
    if isinstance(rows, list):
        for lane, part in enumerate(rows):
            other.write(part, first_lane=lane)
    else:
        other.write(rows)
    again = other.ordered()
    pairs = zip(rows, again) if isinstance(rows, list) else [(rows, again)]
    assert all(bool((one == two).all()) for one, two in pairs)


# ---------------------------------------------------------------------------------------------------- on disk


def make(folder, slack=4):
    return Memory(capacity=10, lanes=2, slack=slack, folder=folder)


def equal(one, two):
    return bool((one.ordered() == two.ordered()).all()) and one.count.tolist() == two.count.tolist()


def test_a_flush_writes_only_what_is_new_and_a_state_brings_all_back(tmp_path):
    storage = make(tmp_path / "rows")
    storage.flush()  # nothing to write
    start = 0
    for steps in (1, 3, 4, 2, 9, 30, 1):
        storage.write(rollout(steps, start=start))
        storage.flush()
        start += steps
        other = make(tmp_path / "rows")
        assert other.load_state(*json.loads(json.dumps(storage.state()))) is True
        assert equal(storage, other)
    before = (tmp_path / "rows" / "rows.bin").read_bytes()
    part = rollout(1, start=start)
    storage.write(part)
    storage.flush()
    after = (tmp_path / "rows" / "rows.bin").read_bytes()
    width = storage.layout.row_bytes
    changed = {i // width for i in np.flatnonzero(np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8))}
    assert changed == {start % storage.ring * 2, start % storage.ring * 2 + 1}
    assert len(json.dumps(storage.state())) < 1000


def test_slack_keeps_an_older_checkpoint_exact_and_less_slack_says_so(tmp_path):
    for slack, exact in ((4, True), (3, False)):
        storage = make(tmp_path / str(slack), slack)
        storage.write(rollout(13))
        storage.flush()
        state, rows = storage.state(), storage.ordered()
        storage.write(rollout(4, start=13))
        storage.flush()
        other = make(tmp_path / str(slack), slack)
        assert other.load_state(*state) is exact
        kept = 5 if exact else 4
        assert len(other) == 2 * kept and bool((other.ordered() == rows[-kept:]).all())
        other.write(rollout(2, start=13))  # and it goes on
        assert numbers(other.ordered())[:, 0].tolist() == [10, 11, 12, 13, 14]
        other.flush()
        third = make(tmp_path / str(slack), slack)
        assert third.load_state(*other.state()) is True and equal(third, other)


def test_a_flush_that_was_cut_off_counts_as_overwritten(tmp_path):
    storage = make(tmp_path, slack=1)
    storage.write(rollout(12))
    storage.flush()
    state, counters = storage.state(), json.loads((tmp_path / "counters.json").read_text())
    storage.write(rollout(3, start=12))
    storage.flush()
    new = json.loads((tmp_path / "counters.json").read_text())
    (tmp_path / "counters.json").write_text(json.dumps(new | {"written": counters["written"]}))  # killed before the end
    other = make(tmp_path, slack=1)
    assert other.load_state(*state) is False
    assert numbers(other.ordered())[:, 0].tolist() == [9, 10, 11]


def test_rows_of_a_run_that_was_resumed_earlier_are_not_taken_for_anothers(tmp_path):
    storage = make(tmp_path, slack=20)
    storage.write(rollout(6))
    storage.flush()
    early = storage.state()
    storage.write(rollout(6, start=6))
    storage.flush()
    late = storage.state()
    second = make(tmp_path, slack=20)
    assert second.load_state(*early) is True
    second.write(rollout(8, start=100))
    second.flush()
    third = make(tmp_path, slack=20)
    assert third.load_state(*late) is False and len(third) == 0  # its rows were replaced
    assert make(tmp_path, slack=20).load_state(*early) is True
    assert make(tmp_path, slack=20).load_state(*second.state()) is True
    fresh = make(tmp_path, slack=20)  # a run that starts again in the same folder
    fresh.write(rollout(6, start=50))
    fresh.flush()
    assert make(tmp_path, slack=20).load_state(*early) is False
    again = make(tmp_path, slack=20)
    assert again.load_state(*fresh.state()) is True and equal(again, fresh)


def test_states_that_cannot_be_loaded(tmp_path):
    plain = Memory(10, 2)
    plain.write(rollout(2))
    with pytest.raises(BadInput, match="were not kept, so it cannot be resumed: give its storage a folder"):
        Memory(10, 2).load_state(*plain.state())
    storage = make(tmp_path)
    assert make(tmp_path).load_state(*storage.state()) is True  # empty
    storage.write(rollout(6))
    storage.flush()
    state = storage.state()
    with pytest.raises(BadInput, match="the state has 2 lanes of 9 rows, this buffer 2 of 10"):
        make(tmp_path, slack=5).load_state(*state)
    other = make(tmp_path)
    other.write(rollout(2, width=7))
    with pytest.raises(BadInput, match="holds rows with layout = "):
        other.flush()
    counters = tmp_path / "counters.json"
    written = counters.read_text()
    counters.write_text(json.dumps(json.loads(written) | {"layout": ["x" * 9] * 1000}))
    with pytest.raises(BadInput) as error:
        make(tmp_path).load_state(*state)
    assert len(str(error.value)) < 3000  # whoever changed the file is not repeated without end
    counters.write_text(written)
    path = tmp_path / "rows.bin"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(Damaged, match=rf"has {len(data) - 1} bytes, {len(data)} were expected"):
        make(tmp_path).load_state(*state)
    path.write_bytes(data)
    counters = tmp_path / "counters.json"
    text = counters.read_text()
    counters.write_text(text[:-9])
    with pytest.raises(Damaged, match="is not valid JSON"):
        make(tmp_path).load_state(*state)
    counters.write_text(json.dumps(json.loads(text) | {"written": [4, 4]}))
    with pytest.raises(Damaged, match=r"holds \[4, 4\] rows of each lane, the checkpoint needs \[6, 6\]"):
        make(tmp_path).load_state(*state)
    counters.write_text(json.dumps(json.loads(text) | {"written": [6, 6.5]}))
    with pytest.raises(Damaged, match="was not written by whorl"):
        make(tmp_path).load_state(*state)
