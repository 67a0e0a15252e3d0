"""Slots of a sweep: what their texts say, within what this process may use, and what a process that is started in one has."""

import os
import subprocess
import sys

import pytest

from whorl.errors import BadInput
from whorl.training import slots
from whorl.training.slots import Slot, allowed_cores, check_device, read_slots

ASKS = "import os; print(sorted(os.sched_getaffinity(0)), os.environ.get('CUDA_VISIBLE_DEVICES'))"


def described(given):
    return [(slot.cores, slot.gpu) for slot in read_slots(given)]


@pytest.fixture
def cores(monkeypatch, tmp_path):
    """Four that this process may use, by its mask; no quota."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {9, 3, 4, 7})
    monkeypatch.setattr(slots, "QUOTA", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


def test_texts(cores, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8932f937,6")
    assert described(None) == [((), "")] * 4
    assert described(2) == described(" 2 ") == [((), "")] * 2
    assert described("2x1") == described("2 x 1") == [((3,), ""), ((4,), "")]
    assert described("1x3") == [((3, 4, 7), "")]
    assert described("gpu:0,1") == [((), "5"), ((), "GPU-8932f937")]
    assert described("gpu:2,0 x2") == described("gpu:2,0x2") == [((3, 4), "6"), ((7, 9), "5")]
    assert described("gpu:1,1x1") == [((3,), "GPU-8932f937"), ((4,), "GPU-8932f937")]
    assert [str(slot) for slot in read_slots("gpu:2,0x2")] == ["gpu 6, cores 3,4", "gpu 5, cores 7,9"]
    assert [str(slot) for given in ("1x1", "gpu:0", 1) for slot in read_slots(given)] == ["core 3", "gpu 5", ""]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (True, "got True"),
        (2.0, "got 2.0"),
        ([0, 1], r"got \[0, 1\]"),
        ("", "got ''"),
        ("gpu:0,,1", "got 'gpu:0,,1'"),
        ("2x1x1", "got '2x1x1'"),
        ("٢", "got '٢'"),
        ("5x1", "slots = 5x1 needs 5 cores, but this process may use 4: take fewer, or leave out x1"),
        ("gpu:0,1 x3", "slots = gpu:0,1 x3 needs 6 cores, but this process may use 4"),
        ("gpu:0,2", "slots = gpu:0,2: there is no GPU 2; this process sees 2, counted from 0"),
    ],
)
def test_other_texts_are_one_sentence(cores, monkeypatch, given, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    with pytest.raises(BadInput, match=message) as refused:
        read_slots(given)
    assert "\n" not in str(refused.value)


def test_no_gpu_is_seen_where_none_is_shown(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(BadInput, match="there is no GPU 0; this process sees 0"):
        read_slots("gpu:0")


@pytest.mark.parametrize(("quota", "number"), [("max 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("", 4)])
def test_a_quota_of_time_is_respected(cores, quota, number):
    cores.write_text(quota)
    assert allowed_cores() == [3, 4, 7, 9][:number]


def test_a_system_that_cannot_pin_says_so(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity")
    assert described("1") == [((), "")]
    with pytest.raises(
        BadInput, match="slots = 1x1 gives each run cores of its own, which this system cannot: leave out x1"
    ):
        read_slots("1x1")


def test_the_runs_of_gpus_compute_there():
    check_device([Slot()], ["cpu"])
    check_device([Slot(gpu="0")], ["cuda", "cuda:0"])
    with pytest.raises(BadInput, match="which is device='cuda' to it; got 'cpu'"):
        check_device([Slot(gpu="0")], ["cuda", "cpu"])


def test_a_process_has_its_slot_from_the_first_instruction_on():
    own = os.sched_getaffinity(0)
    last = sorted(own)[-1]
    with Slot((last,), "7").entered() as variables:
        shown = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, env=os.environ | variables)
    assert shown.stdout == f"[{last}] 7\n" and os.sched_getaffinity(0) == own
    with pytest.raises(FileNotFoundError), Slot((last,)).entered():
        subprocess.run(["/nowhere/at/all"])
    with Slot().entered() as variables:
        assert variables == {} and os.sched_getaffinity(0) == own
    assert os.sched_getaffinity(0) == own
