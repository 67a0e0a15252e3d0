"""The launcher with made-up processes: who is started when and with what, again after a failure, and what is said."""

import json
import os
import signal
from pathlib import Path

import pytest

from whorl.training import launch
from whorl.training.launch import Job, Launcher
from whorl.training.slots import Slot

GOOD = '{"steps": 1, "episodes": 1, "last": null, "best": null}'


class Processes:
    """In the place of `subprocess.Popen`. ends: {seed: what each try of its run does}, an exit code, and whether it wrote eval.json."""

    def __init__(self, ends):
        self.ends, self.started = ends, []

    def __call__(self, command, env, **options):
        request = json.loads(command[-1])
        run = Path(request["resume"]) if "resume" in request else None
        if run is None:
            run = Path(request["train"]["runs"]) / "env" / "agent" / request["train"]["name"]
            run.mkdir(parents=True)
            (run / "config.json").touch()
        seed = int(run.name.rpartition("s")[2])
        self.started.append((seed, "resume" in request, env.get("CUDA_VISIBLE_DEVICES"), os.sched_getaffinity(0)))
        code, wrote = self.ends[seed].pop(0)
        if wrote:
            (run / "eval.json").write_text(GOOD)
        os.write(options["stderr"].fileno(), b"first line\nwhorl: why\n" if code == 1 else b"")
        return type("Ended", (), {"returncode": code, "poll": lambda self: code})()


def launched(monkeypatch, tmp_path, slots, ends):
    processes = Processes(ends)
    monkeypatch.setattr(launch.subprocess, "Popen", processes)
    monkeypatch.setattr(launch, "POLL", 0.0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    work = [Job(tmp_path, f"000_s{seed}", "agent", {"x": 1}, seed) for seed in ends]
    launcher = Launcher(tmp_path, {"env": "E-v0"}, {"agent": {}}, 0, {}, slots, retries=2)
    return launcher.run(work), processes.started, {job.seed: job.tries for job in work}


def test_a_run_that_fails_comes_again_after_the_others_and_goes_on(monkeypatch, tmp_path, capfd):
    killed, broken, good = (-signal.SIGKILL, False), (1, False), (0, True)
    ends = {0: [broken, killed, good], 1: [broken] * 3, 2: [good], 3: [(9, False), (-signal.SIGSEGV, True)]}
    failed, started, tries = launched(monkeypatch, tmp_path, [Slot()], ends)
    assert [seed for seed, *_ in started] == [0, 1, 2, 3, 0, 1, 3, 0, 1]
    assert [seed for seed, resumed, *_ in started if not resumed] == [0, 1, 2, 3]  # each begins once
    assert failed == {"x=1, seed 1": "whorl: why"} and tries == {0: 3, 1: 3, 2: 1, 3: 2}
    said = capfd.readouterr().err.replace(str(tmp_path), "").splitlines()
    assert said == [
        "sweep: : 4 runs, 0 finished before, 1 at a time",
        "[0/4] x=1, seed 0: failed: whorl: why; retry 1 of 2 comes (/logs/000_s0.txt)",
        "[0/4] x=1, seed 1: failed: whorl: why; retry 1 of 2 comes (/logs/000_s1.txt)",
        "[1/4] x=1, seed 2: not evaluated",
        "[1/4] x=1, seed 3: failed: exit code 9; retry 1 of 2 comes (/logs/000_s3.txt)",
        "[1/4] x=1, seed 0: failed: killed by SIGKILL; retry 2 of 2 comes (/logs/000_s0.txt)",
        "[1/4] x=1, seed 1: failed: whorl: why; retry 2 of 2 comes (/logs/000_s1.txt)",
        "[2/4] x=1, seed 3: not evaluated",  # its last file was there
        "[3/4] x=1, seed 0: not evaluated",
        "[4/4] x=1, seed 1: FAILED: whorl: why (/logs/000_s1.txt)",
    ]


def test_what_is_finished_is_not_started(monkeypatch, tmp_path):
    for _ in range(2):
        failed, started, tries = launched(monkeypatch, tmp_path, [Slot()], {0: [(0, True)]})
    assert failed == {} and started == [] and tries == {0: 0}


def test_a_run_gets_the_gpu_and_the_cores_of_its_slot(monkeypatch, tmp_path):
    """There need be no GPU: this is what CUDA is told."""
    own = os.sched_getaffinity(0)
    slots = [Slot((core,), gpu) for core, gpu in zip(sorted(own), ["5", "GPU-8932f937"])]
    _, started, _ = launched(monkeypatch, tmp_path, slots, {seed: [(0, True)] for seed in range(len(slots))})
    assert started == [(k, False, slot.gpu, set(slot.cores)) for k, slot in enumerate(slots)]
    assert os.sched_getaffinity(0) == own


@pytest.mark.parametrize("slots", [1, 3])
def test_no_more_at_a_time_than_there_are_slots(monkeypatch, tmp_path, slots):
    most, alive = [], set()

    class Slow:
        returncode = None

        def __init__(self, command, **_):
            self.name, self.looks = json.loads(command[-1])["train"]["name"], 0
            alive.add(self.name)
            most.append(len(alive))

        def poll(self):
            self.looks += 1
            if self.looks == 3:
                self.returncode = 1
                alive.discard(self.name)
            return self.returncode

    monkeypatch.setattr(launch.subprocess, "Popen", Slow)
    monkeypatch.setattr(launch, "POLL", 0.0)
    work = [Job(tmp_path, f"000_s{seed}", "agent", {"x": 1}, seed) for seed in range(7)]
    failed = Launcher(tmp_path, {"env": "E-v0"}, {"agent": {}}, 0, {}, [Slot() for _ in range(slots)], 0).run(work)
    assert len(failed) == len(most) == 7 and max(most) == slots and not alive
