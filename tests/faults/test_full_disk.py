"""A disk that fills up while a run goes on, and has room again later: the run goes on, says so, and saves again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap

import pytest

from tests.cases import each

LEVELS = (0, 4, 12, 40, 100, 200, 400, 800)  # KiB that are left, of 2 MiB

# One process for all levels. Where no file system can be mounted, no file may grow beyond the level instead.
RUNS = """
    import json, os, resource, shutil, signal, sys
    import whorl
    from whorl.training import checkpoint

    place, mounted, levels = sys.argv[1], sys.argv[2] == "mounted", json.loads(sys.argv[3])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(left):
        if not mounted:
            return resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * left, resource.RLIM_INFINITY))
        space = os.statvfs(place)
        with open(place + "/filler", "wb", buffering=0) as file:
            try:
                os.posix_fallocate(file.fileno(), 0, max(space.f_bavail * space.f_frsize - 1024 * left, 1))
            except OSError:
                pass

    def empty():
        if not mounted:
            return resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.remove(place + "/filler")

    class Disk:
        def __init__(self, left):
            self.left, self.calls = left, 0

        def __call__(self, rollout, metrics):
            self.calls += 1
            if self.calls == 3:
                fill(self.left)
            if self.calls == 8:
                empty()

    for left in levels:
        agent = "ppo" if left % 8 else "dqn"
        feed = {"ppo": {"epochs": 1}, "dqn": {"capacity": 500, "warmup": 16}}[agent] | {"steps": 16}
        run = whorl.train(agent, "CartPole-v1", hidden=(32,), num_envs=2, total_steps=256, checkpoint_every=32, eval_every=64,
                          eval_episodes=2, log_every=32, video_every=20, keep_checkpoints=2, runs=place, name=f"left-{left}",
                          hooks=[Disk(left)], quiet=True, feed=feed)
        rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        facts = {
            "left": left,
            "missing": sorted(run.disk.missing),
            "rows": [row["step"] for row in rows if "time/fps" in row],
            "last": os.readlink(run.path / "checkpoints" / "last"),
            "intact": checkpoint.newest(run.path / "checkpoints").name,
            "steps": json.loads((run.path / "eval.json").read_text())["steps"],
            "curve": (run.path / "curve.png").stat().st_size,
            "litter": [path.name for path in run.path.rglob(".tmp-*")],
        }
        print(json.dumps(facts), flush=True)
        print("done", file=sys.stderr, flush=True)
        shutil.rmtree(run.path)
"""


def namespace(tmp_path) -> bool:
    """Whether this process may mount a file system of its own."""
    if shutil.which("unshare") is None:
        return False
    trial = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
    return subprocess.run(trial, capture_output=True).returncode == 0


@pytest.mark.fault
def test_a_run_outlives_a_full_disk(tmp_path):
    place, script = tmp_path / "disk", tmp_path / "runs.py"
    place.mkdir()
    script.write_text(textwrap.dedent(RUNS))
    mounted = namespace(tmp_path)
    words = [sys.executable, str(script), str(place), "mounted" if mounted else "limited", json.dumps(LEVELS)]
    if mounted:
        mount = 'mount -t tmpfs -o size=2m tmpfs "$1" && shift && exec "$@"'
        words = ["unshare", "-rm", "sh", "-c", mount, "sh", str(place), *words]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [facts["left"] for facts in found] == list(LEVELS), done.stderr
    for facts, said in each(zip(found, done.stderr.split("done\n"))):
        print(said)
        assert facts["missing"] == facts["litter"] == [] and facts["steps"] == 256 and facts["curve"] > 1000
        assert facts["last"] == facts["intact"] == "step_256"
        assert facts["rows"] == [*range(32, 257, 32)]  # those that had to wait, too
        if facts["left"] < 100:
            assert "the disk is full, so a checkpoint is not written; training goes on" in said
            assert "there is room again: a checkpoint is written" in said
