"""Checkpoints: what is saved comes back to the bit, damage of every kind is found, and the older checkpoint is used."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.training import run_folders
from whorl.agents.optimizer_states import flatten, load_optimizer_state, optimizer_state
from whorl.errors import BadInput, Damaged
from whorl.training import checkpoint
from whorl.training import state as states
from whorl.training.written import read_config


def example(step: int = 0) -> tuple[dict, dict]:
    generator = torch.Generator().manual_seed(step)
    tensors = {
        "policy": {"weight": torch.randn(3, 4, generator=generator), "bias": torch.zeros(3)},
        "collector": {"count": torch.tensor(step), "done": torch.tensor([True, False])},
        "empty": {},
    }
    state = {
        "step": step,
        "seed": 2**127 + 1,
        "rate": 0.1 + 0.2,
        "best": None,
        "tiny": 5e-324,
        "flags": [True, -0.0],
        "name": "ä\n\ud800",
    }
    return tensors, state


def equal(one: dict, other: dict) -> bool:
    def same(a: torch.Tensor, b: torch.Tensor) -> bool:
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()

    return one.keys() == other.keys() and all(
        one[g].keys() == other[g].keys() and all(same(one[g][k], other[g][k]) for k in one[g]) for g in one
    )


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def litter(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


# ------------------------------------------------------------------------------------------------ save and load


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
    tensors, state = example(7)
    path = checkpoint.save(tmp_path / "checkpoints", 7, tensors, state)
    assert path == tmp_path / "checkpoints" / "step_7"
    assert sorted(p.name for p in path.iterdir()) == [
        "collector.safetensors", "empty.safetensors", "manifest.json", "policy.safetensors", "state.json",
    ]  # fmt: skip
    loaded, back = checkpoint.load(path)
    assert equal(loaded, tensors)
    assert json.dumps(back) == json.dumps(state)  # == would take -0.0 for 0.0 and True for 1
    assert litter(path.parent) == []


def test_the_manifest_has_the_size_and_sha256_of_every_other_file(tmp_path):
    path = checkpoint.save(tmp_path, 1, *example())
    manifest = json.loads((path / "manifest.json").read_text())
    others = {name: data for name, data in files(path).items() if name != "manifest.json"}
    assert manifest["format"] == checkpoint.FORMAT
    assert manifest["files"] == {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in others.items()
    }


def test_layout_does_not_matter(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    tied = nn.Parameter(torch.ones(2, 2))
    group = {
        "transposed": base.T,
        "row": base[1],
        "strided": base[:, ::2],
        "whole": base,
        "expanded": torch.ones(1).expand(5),
        "tied a": tied,
        "tied b": tied,
        "none": torch.empty(0, 3),
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "channels last": torch.arange(16.0).reshape(1, 2, 2, 4).to(memory_format=torch.channels_last),
        "conjugate": torch.tensor([1 + 2j], dtype=torch.complex64).conj(),
    }
    loaded, _ = checkpoint.load(checkpoint.save(tmp_path, 0, {"g": group}, {}))
    assert loaded["g"].keys() == group.keys()
    for name, tensor in group.items():
        assert torch.equal(loaded["g"][name], tensor.detach()) and loaded["g"][name].dtype == tensor.dtype, name
    loaded["g"]["tied a"].zero_()
    assert loaded["g"]["tied b"].sum() == 4  # each has memory of its own


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=15,
    )
)
def test_json_gives_back_any_state(value):
    from whorl.json_text import json_bytes

    assert repr(json.loads(json_bytes(value, "state"))) == repr(value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": [1.0, float("nan")]}}, r"state\['a'\]\['b'\]\[1\] is nan: JSON keeps only finite numbers"),
        ({"a": (1, 2)}, r"state\['a'\] is a tuple"),
        ({3: 1}, r"state has the key 3, a int"),
        ({"t": torch.ones(1)}, r"state\['t'\] is a Tensor.*tensor groups"),
    ],
)
def test_a_state_that_json_would_change_is_refused(tmp_path, state, message):
    with pytest.raises(BadInput, match=message):
        checkpoint.save(tmp_path, 0, {}, state)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"../up": {}}, r"the group '../up' cannot name a folder"),
        ({"g": {"a": [1.0]}}, r"tensors\['g'\]\['a'\] should be a dense tensor, got list"),
        ({"g": {"a": torch.eye(2).to_sparse()}}, r"tensors\['g'\]\['a'\] should be a dense tensor"),
        ({"g": {"a": torch.ones(1, dtype=torch.complex128)}}, r"the group 'g' cannot be written as safetensors"),
    ],
)
def test_tensors_that_cannot_be_saved_are_refused(tmp_path, tensors, message):
    with pytest.raises(BadInput, match=message):
        checkpoint.save(tmp_path, 0, tensors, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", [-1, 1.0, True])
def test_a_step_is_a_whole_number(tmp_path, step):
    with pytest.raises(BadInput, match="expected a whole number of 0 or more"):
        checkpoint.save(tmp_path, step, {}, {})


def test_everything_is_on_disk_before_the_one_rename_and_the_rename_before_save_returns(tmp_path, monkeypatch):
    """Records the real calls, in order; a power cut can undo only what no fsync has confirmed."""
    calls = []

    def record(name, describe):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, **at: calls.append(f"{name} {describe(*args)}") or real(*args, **at)
        )

    def label(path) -> str:
        return "draft" if Path(path).name.startswith(".tmp-step_1-") else Path(path).name

    record("fsync", lambda descriptor: label(os.readlink(f"/proc/self/fd/{descriptor}")))
    record("rename", lambda old, new: f"{label(old)} {label(new)}")
    checkpoint.save(tmp_path / "checkpoints", 1, *example())
    assert calls == [
        f"fsync {tmp_path.name}",  # the name "checkpoints"
        "fsync policy.safetensors",
        "fsync collector.safetensors",
        "fsync empty.safetensors",
        "fsync state.json",
        "fsync manifest.json",
        "fsync draft",
        "rename draft step_1",
        "fsync checkpoints",
    ]


def test_saving_an_equal_step_keeps_the_one_there(tmp_path):
    path = checkpoint.save(tmp_path, 5, *example(5))
    inode = path.stat().st_ino
    assert checkpoint.save(tmp_path, 5, *example(5)) == path
    assert path.stat().st_ino == inode and litter(tmp_path) == []


def test_saving_another_state_at_an_existing_step_replaces_it(tmp_path):
    checkpoint.save(tmp_path, 5, *example(1))
    checkpoint.mark(tmp_path, "last", tmp_path / "step_5")
    tensors, state = example(2)
    checkpoint.save(tmp_path, 5, tensors, state)
    loaded, back = checkpoint.load(tmp_path / "last")
    assert equal(loaded, tensors) and back == state and litter(tmp_path) == []


def test_saving_over_a_damaged_step_repairs_it(tmp_path):
    path = checkpoint.save(tmp_path, 5, *example(5))
    (path / "policy.safetensors").write_bytes(b"")
    checkpoint.save(tmp_path, 5, *example(5))
    checkpoint.verify(path)
    assert litter(tmp_path) == []


# ------------------------------------------------------------------------------------------------------- damage


def test_a_thousand_flipped_bits_and_cuts_are_all_found(tmp_path):
    path = checkpoint.save(tmp_path, 3, *example(3))
    draw = random.Random(0)
    names, found = sorted(files(path)), 0
    for trial in range(1000):
        name = draw.choice(names)
        good = (path / name).read_bytes()
        if trial % 2:
            bad = bytearray(good)
            bad[draw.randrange(len(good))] ^= 1 << draw.randrange(8)
        else:
            bad = good[: draw.randrange(len(good))]
        (path / name).write_bytes(bad)
        with pytest.raises(Damaged) as error:
            checkpoint.load(path)
        found += "step_3" in str(error.value)
        (path / name).write_bytes(good)
    assert found == 1000
    checkpoint.verify(path)


def test_every_bit_of_the_manifest_counts(tmp_path):
    path = checkpoint.save(tmp_path, 3, {}, {})
    good = (path / "manifest.json").read_bytes()
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        (path / "manifest.json").write_bytes(bad)
        with pytest.raises(Damaged):
            checkpoint.verify(path)


def rewrite(path: Path, change) -> None:
    """Puts a manifest there that whorl could have written, but for `change`."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest["files"], manifest)
    (path / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def test_the_message_names_the_file_and_what_differs(tmp_path):
    path = checkpoint.save(tmp_path, 3, *example(3))
    size = (path / "policy.safetensors").stat().st_size

    def broken() -> str:
        with pytest.raises(Damaged) as error:
            checkpoint.load(path)
        shutil.rmtree(path)
        checkpoint.save(tmp_path, 3, *example(3))
        return str(error.value).removeprefix(f"{path}{os.sep}")

    (path / "policy.safetensors").write_bytes(b"abc")
    assert broken() == f"policy.safetensors has 3 bytes, its manifest says {size}"
    (path / "policy.safetensors").write_bytes(bytes(size))
    assert broken().startswith("policy.safetensors has the SHA-256 ")
    (path / "policy.safetensors").unlink()
    assert broken() == "policy.safetensors is missing"
    (path / "manifest.json").unlink()
    assert broken() == "manifest.json is missing"
    (path / "manifest.json").write_text("{")
    assert broken() == "manifest.json is not a manifest that whorl wrote: it was cut off or changed"
    (path / "manifest.json").write_text("[" * 100_000)
    assert "is not a manifest" in broken()
    (path / "manifest.json").write_bytes(bytes(2 << 20))
    assert "more than the 1,048,576 it may have" in broken()
    rewrite(path, lambda files, whole: whole.update(format=3))
    assert broken() == "manifest.json has format 3, this whorl reads 2: use a newer whorl"
    rewrite(path, lambda files, whole: whole.update(format=1))
    assert broken() == "manifest.json has format 1, this whorl reads 2: use an older whorl"
    (path / "state.json").unlink()
    os.mkfifo(path / "state.json")
    assert broken().startswith("state.json is not a regular file but a ")
    rewrite(path, lambda files, whole: files.update({"../outside.safetensors": files["policy.safetensors"]}))
    assert "is not a manifest" in broken()
    os.rename(path / "state.json", tmp_path / "elsewhere")
    (path / "state.json").symlink_to(tmp_path / "elsewhere")
    assert broken().startswith("state.json is not a regular file but a ")


def test_a_small_file_that_declares_ten_terabytes_is_refused_before_anything_is_read(tmp_path):
    path = checkpoint.save(tmp_path, 3, *example(3))
    rewrite(path, lambda files, whole: files["policy.safetensors"].update(bytes=10**13))
    with pytest.raises(Damaged, match="its manifest says 10000000000000"):
        checkpoint.load(path)


def test_a_hostile_file_with_a_right_hash_is_refused_by_its_parser(tmp_path):
    path = checkpoint.save(tmp_path, 3, *example(3))
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    for name, data in {
        "policy.safetensors": len(header).to_bytes(8, "little") + header + bytes(64),
        "state.json": b"cos\nsystem\n(S'touch hit'\ntR.",
    }.items():
        good = (path / name).read_bytes(), (path / "manifest.json").read_bytes()
        (path / name).write_bytes(data)
        entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        rewrite(path, lambda files, whole, name=name, entry=entry: files.update({name: entry}))
        checkpoint.verify(path)
        with pytest.raises(Damaged, match=f"{name} is not (valid JSON|a safetensors file, though its hash is right)"):
            checkpoint.load(path)
        (path / name).write_bytes(good[0])
        (path / "manifest.json").write_bytes(good[1])


def test_no_checkpoint_there(tmp_path):
    with pytest.raises(BadInput, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "step_1")


# ------------------------------------------------------------------------------------- which one, links, tidying


def test_newest_passes_over_damaged_ones_and_says_so(tmp_path, caplog):
    assert checkpoint.newest(tmp_path) is None and checkpoint.newest(tmp_path / "missing") is None
    for step in (9, 10, 100):
        checkpoint.save(tmp_path, step, *example(step))
    (tmp_path / ".tmp-step_200-1-ab").mkdir()
    assert checkpoint.newest(tmp_path) == tmp_path / "step_100" and not caplog.records
    (tmp_path / "step_100" / "policy.safetensors").write_bytes(b"")
    (tmp_path / "step_10" / "manifest.json").unlink()
    assert checkpoint.newest(tmp_path) == tmp_path / "step_9"
    first, second = [record.getMessage() for record in caplog.records]
    assert "step_100/policy.safetensors has 0 bytes" in first and first.endswith(f"Using {tmp_path / 'step_9'} instead")
    assert "step_10/manifest.json is missing" in second
    (tmp_path / "step_9" / "state.json").write_text("{}")
    with pytest.raises(Damaged, match="no checkpoint in .* is intact: .*step_100.*step_10.*step_9"):
        checkpoint.newest(tmp_path)


def test_marks_are_relative_links_that_move_at_once(tmp_path):
    folder = tmp_path / "checkpoints"
    for step in (1, 2):
        checkpoint.mark(folder, "last", checkpoint.save(folder, step, *example(step)))
    assert os.readlink(folder / "last") == "step_2"
    os.rename(folder, tmp_path / "moved")
    assert checkpoint.load(tmp_path / "moved" / "last")[1]["step"] == 2
    assert litter(tmp_path / "moved") == []
    with pytest.raises(BadInput, match="marked best or last, not 'step_1'"):
        checkpoint.mark(tmp_path / "moved", "step_1", tmp_path / "moved" / "step_2")
    with pytest.raises(BadInput, match="there is no checkpoint 'step_3'"):
        checkpoint.mark(tmp_path / "moved", "best", tmp_path / "moved" / "step_3")


def test_find(tmp_path):
    with pytest.raises(BadInput, match=r"there is no checkpoint 'best' in .*: there is none at all"):
        checkpoint.find(tmp_path, "best")
    for step in (5, 10, 0):
        checkpoint.save(tmp_path, step, *example(step))
    checkpoint.mark(tmp_path, "best", tmp_path / "step_5")
    assert checkpoint.find(tmp_path, "best") == tmp_path / "step_5"
    for which in (10, "10", "step_10"):
        assert checkpoint.find(tmp_path, which) == tmp_path / "step_10"
    for which in ("last", 7, "../x", "step_../best", "", "05"):
        with pytest.raises(BadInput, match=r"there is best, 0, 5, 10$"):
            checkpoint.find(tmp_path, which)
    (tmp_path / "last").symlink_to("step_77")  # dangling
    with pytest.raises(BadInput, match="there is no checkpoint 'last'"):
        checkpoint.find(tmp_path, "last")


def test_prune_keeps_the_newest_and_the_marked(tmp_path):
    for step in (1, 2, 3, 4, 5, 10):
        checkpoint.save(tmp_path, step, {}, {})
    checkpoint.mark(tmp_path, "best", tmp_path / "step_2")
    checkpoint.mark(tmp_path, "last", tmp_path / "step_10")
    (tmp_path / "step_notes").mkdir()
    checkpoint.prune(tmp_path, 2, held=["step_1", "step_7"])
    held = ["best", "last", "step_1", "step_10", "step_2", "step_5", "step_notes"]
    assert sorted(p.name for p in tmp_path.iterdir()) == held
    checkpoint.prune(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "last", "step_10", "step_2", "step_5", "step_notes"]
    checkpoint.prune(tmp_path, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "last", "step_10", "step_2", "step_notes"]


def test_clean_removes_what_killed_writers_left_and_nothing_else(tmp_path):
    checkpoint.mark(tmp_path, "last", checkpoint.save(tmp_path, 1, *example()))
    before = files(tmp_path)
    (tmp_path / ".tmp-step_2-1-ab").mkdir()
    (tmp_path / ".tmp-step_2-1-ab" / "policy.safetensors").write_bytes(b"half")
    (tmp_path / ".tmp-last-1-ab").symlink_to("step_1")
    (tmp_path / ".tmp-best-1-ab").symlink_to("nowhere")
    (tmp_path / ".tmp-config.json-1-ab").write_text("{")
    checkpoint.clean(tmp_path)
    assert files(tmp_path) == before and litter(tmp_path) == []
    checkpoint.clean(tmp_path / "missing")


# ---------------------------------------------------------------------------------------------------- full disk


def limited(code: str, folder: Path) -> str:
    """Runs `code` in a process of its own, which may set limits on itself; returns what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(folder)], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_full_disk_costs_nothing_but_the_new_checkpoint(tmp_path):
    out = limited(
        """
        import random, resource, signal, sys, torch
        from whorl.training import checkpoint
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that write fails with EFBIG, as with ENOSPC on a full disk
        folder, draw = sys.argv[1], random.Random(0)
        tensors = {"a": {"x": torch.ones(5000)}, "b": {"x": torch.ones(9000)}}
        checkpoint.mark(folder, "last", checkpoint.save(folder, 1, tensors, {"step": 1}))
        for _ in range(20):
            resource.setrlimit(resource.RLIMIT_FSIZE, (draw.randrange(36_000), resource.RLIM_INFINITY))
            try:
                checkpoint.save(folder, 2, tensors, {"step": 2})
            except OSError as error:
                print(error.errno, error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        """,
        tmp_path,
    ).splitlines()
    sentence = (
        f"File too large: the checkpoint of step 2 could not be written to {tmp_path}. "
        "Older checkpoints are untouched. Free some space or pass another folder"
    )
    assert out == [f"{errno.EFBIG} [Errno {errno.EFBIG}] {sentence}"] * 20
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "step_1"]
    assert checkpoint.load(tmp_path / "last")[1] == {"step": 1}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="the checkpoint of step 1 could not be written to"):
        checkpoint.save(tmp_path / "file" / "checkpoints", 1, {}, {})


# --------------------------------------------------------------------------------------------------- optimizers

OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2),
    "adam fused": lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
    "adam tensor lr": lambda p: torch.optim.Adam(p, lr=torch.tensor(1e-2), amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.8, 0.99)),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2),
    "sgd momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2, momentum=0.5, centered=True),
    "groups": lambda p: torch.optim.Adam([{"params": p[:1], "lr": 1e-3}, {"params": p[1:], "lr": torch.tensor(1e-1)}]),
}


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
        for group in optimizer.param_groups:  # a schedule, as a tensor or as a number
            group["lr"] *= 0.99


def bits(net: nn.Module) -> list[bytes]:
    return [p.detach().numpy().tobytes() for p in net.parameters()]


@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "warm"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_goes_on_to_the_same_bits(tmp_path, kind, warm):
    net = network()
    optimizer = OPTIMIZERS[kind](list(net.parameters()))
    train(net, optimizer, range(10))
    tensors, groups = optimizer_state(optimizer)
    path = checkpoint.save(tmp_path, 10, {"net": net.state_dict(), "optimizer": tensors}, {"groups": groups})
    train(net, optimizer, range(10, 20))

    other = network(seed=1)
    resumed = OPTIMIZERS[kind](list(other.parameters()))
    if warm:
        train(other, resumed, range(3))
    held = {id(t) for state in resumed.state.values() for t in state.values()}
    rates = [id(group["lr"]) for group in resumed.param_groups if isinstance(group["lr"], torch.Tensor)]
    loaded, state = checkpoint.load(path)
    other.load_state_dict(loaded["net"])
    load_optimizer_state(resumed, loaded["optimizer"], state["groups"])
    if warm:  # a compiled graph would still see the same tensors
        assert held == {id(t) for state in resumed.state.values() for t in state.values()}
    assert rates == [id(group["lr"]) for group in resumed.param_groups if isinstance(group["lr"], torch.Tensor)]
    train(other, resumed, range(10, 20))
    assert bits(other) == bits(net)
    before, after = optimizer.state_dict(), resumed.state_dict()
    for state in [*before["state"].values(), *after["state"].values()]:
        state.update({name: state.pop(name) for name in sorted(state)})
    assert repr(before) == repr(after)  # also settings such as betas, still tuples


def test_what_an_optimizer_is_not_made_of_stays_with_the_machine():
    net = network()
    fused = torch.optim.Adam(net.parameters(), fused=True)
    train(net, fused, range(2))
    plain = torch.optim.Adam(network().parameters(), foreach=False)
    load_optimizer_state(plain, *optimizer_state(fused))
    assert plain.param_groups[0]["fused"] is None and plain.param_groups[0]["foreach"] is False


def test_state_that_is_younger_than_the_checkpoint_goes():
    net = network()
    optimizer = torch.optim.Adam(net.parameters())
    start = optimizer_state(optimizer)
    assert start[0] == {}
    train(net, optimizer, range(2))
    load_optimizer_state(optimizer, *start)
    assert optimizer_state(optimizer)[0] == {}


def test_another_optimizer_is_refused_before_anything_changes():
    net = network()
    optimizer = torch.optim.Adam(net.parameters())
    train(net, optimizer, range(2))
    tensors, groups = optimizer_state(optimizer)
    wider = nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 2))
    for parameters in (list(net.parameters())[:2], list(wider.parameters())):
        other = torch.optim.Adam(parameters)
        with pytest.raises(
            BadInput, match=r"of shapes \[\[\[8, 4\], \[8\], .* this one for \[\[\[[89], 4\].*: build the agent"
        ):
            load_optimizer_state(other, tensors, groups)
        assert not other.state


def test_an_optimizer_whose_state_is_not_tensors_is_refused():
    net = network()
    optimizer = torch.optim.LBFGS(net.parameters())
    optimizer.step(lambda: net(torch.ones(1, 4)).square().sum())
    with pytest.raises(BadInput, match=r"0\.\w+ should be a tensor or a dict of tensors, got a"):
        optimizer_state(optimizer)


def test_flatten():
    one = torch.ones(1)
    assert flatten("a.", {0: {"b": one}, "c": one, "d": {}}) == {"a.0.b": one, "a.c": one}


class NoRoom:
    """A part that writes when it is loaded, onto a full disk."""

    def state(self):
        return {}, {}

    def load_state(self, arrays, numbers):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_without_room_is_no_damage(tmp_path):
    written = read_config(run_folders.write(tmp_path, agent="ppo", env="CartPole-v1"))
    path = states.save(tmp_path, 3, {"more": NoRoom()}, written)
    with pytest.raises(OSError, match="No space left") as raised:
        states.load(path, {"more": NoRoom()}, written)
    assert not isinstance(raised.value, Damaged)
