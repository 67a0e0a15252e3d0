"""A trainer that saves all the time is killed at random moments, and loses nothing.

One helper process imports torch once and forks a saver per round: a hundred kills in seconds. The helper kills, then
does what the next start of a run does (`clean`, `newest`, `load`, `mark`), and prints what it found. The saver is
killed ten times as often as WHORL_KILLS (3) says.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

INTERVAL = 0.05  # seconds from the beginning of a save to the next
ROUNDS = 10 * int(os.environ.get("WHORL_KILLS", "3"))

pytestmark = pytest.mark.fault


def contents(step: int):
    """A few hundred kilobytes that only this step has."""
    import torch

    x = torch.arange(40_000) + step
    return {"policy": {"x": x.float()}, "optimizer": {"x": x.double()}, "empty": {}}, {"step": step}


def saver(folder: str, first: int, pipe: int) -> None:
    """Saves steps first, first + 1, ... and says in the pipe when a save begins (b) and when it is complete (d)."""
    from whorl.training import checkpoint

    step = first
    while True:
        begin = time.monotonic()
        tensors, state = contents(step)
        os.write(pipe, b"b%d\n" % step)
        path = checkpoint.save(folder, step, tensors, state)
        checkpoint.mark(folder, "last", path)
        os.write(pipe, b"d%d\n" % step)
        checkpoint.prune(folder, 3)
        step += 1
        time.sleep(max(0.0, begin + INTERVAL - time.monotonic()))


def rewriter(folder: str, first: int, pipe: int) -> None:
    """Saves one step again and again, each time with other contents: what is there must be swapped, never missing."""
    from whorl.training import checkpoint

    count = first
    while True:
        tensors, state = contents(count)
        os.write(pipe, b"b%d\n" % count)
        checkpoint.save(folder, 0, tensors, state)
        os.write(pipe, b"d%d\n" % count)
        count += 1


def kill_once(work, folder: str, first: int, draw: random.Random) -> list[str]:
    """Forks a saver, kills it: in half of the rounds at any moment, else soon after a save began. What it had said."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            work(folder, first, write)
        finally:
            os._exit(1)
    os.close(write)
    said = b""
    if draw.random() < 0.5:
        time.sleep(draw.uniform(0, 4 * INTERVAL))
    else:
        lines = draw.choice([1, 3, 5])  # b, or b d b, ...
        while said.count(b"\n") < lines:
            said += os.read(read, 1)
        time.sleep(draw.uniform(0, 0.006))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, "the saver ended by itself"
    with os.fdopen(read, "rb") as rest:
        said += rest.read()
    return said.decode().splitlines()


def helper(kind: str, folder: str, rounds: int) -> None:
    from whorl.training import checkpoint

    draw, work = random.Random(0), {"saver": saver, "rewriter": rewriter}[kind]
    checkpoint.mark(folder, "last", checkpoint.save(folder, 0, *contents(0)))
    counts = ("kills", "saves", "inside a save", "with litter", "unreadable", "lost", "litter")
    done, result = 0, dict.fromkeys(counts, 0)
    for _ in range(rounds):
        said = kill_once(work, folder, done + 1, draw)
        result["kills"] += 1
        result["inside a save"] += bool(said) and said[-1][0] == "b"
        completed = [int(line[1:]) for line in said if line[0] == "d"]
        begun = [int(line[1:]) for line in said if line[0] == "b"]
        result["saves"] += len(completed)
        names = [path.name for path in Path(folder).iterdir()]
        result["with litter"] += any(name.startswith(".") for name in names)
        for name in [name for name in names if not name.startswith(".")]:  # the links too: they never dangle
            try:
                tensors, state = checkpoint.load(Path(folder) / name)
                expected = contents(state["step"])[0]
                assert all(tensors[g][k].equal(expected[g][k]) for g in expected for k in expected[g]), name
                assert kind == "rewriter" or name in ("last", f"step_{state['step']}"), name
            except (OSError, ValueError, AssertionError) as error:
                print(error, file=sys.stderr)
                result["unreadable"] += 1
        checkpoint.clean(folder)
        result["litter"] += any(path.name.startswith(".") for path in Path(folder).iterdir())
        path = checkpoint.newest(folder)
        newest = checkpoint.load(path)[1]["step"]
        last = checkpoint.load(checkpoint.find(folder, "last"))[1]["step"]
        reported = max(completed, default=done)
        # what was reported is there, by `last` too; at most the save under way is gone, or there but not yet marked
        result["lost"] += not (reported <= last <= newest <= max(begun, default=done) <= reported + 1)
        checkpoint.mark(folder, "last", path)
        done = newest
    print(json.dumps(result))


def run(kind: str, folder: Path, rounds: int) -> dict[str, int]:
    process = subprocess.run(
        [sys.executable, __file__, kind, str(folder), str(rounds)], capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0 and not process.stderr, process.stderr
    print(process.stdout)
    return json.loads(process.stdout)


def test_kills_while_saving_lose_nothing(tmp_path):
    result = run("saver", tmp_path, ROUNDS)
    assert result["kills"] == ROUNDS
    assert (result["unreadable"], result["lost"], result["litter"]) == (0, 0, 0)
    assert result["inside a save"] >= ROUNDS / 5 and result["with litter"] >= ROUNDS / 10  # the test did hit


def test_kills_while_a_step_is_replaced_never_leave_it_missing(tmp_path):
    rounds = ROUNDS * 2 // 5
    result = run("rewriter", tmp_path, rounds)
    assert (result["unreadable"], result["lost"], result["litter"]) == (0, 0, 0)
    assert result["inside a save"] >= rounds / 4 and result["with litter"] >= rounds / 8


if __name__ == "__main__":
    helper(sys.argv[1], sys.argv[2], int(sys.argv[3]))
