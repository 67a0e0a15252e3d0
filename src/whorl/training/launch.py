"""The runs of a sweep, each a process: one in each slot at a time, none of them twice, and again those that failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whorl import folders
from whorl.envs.ids import is_url
from whorl.training import grid
from whorl.training.process import StopSignals
from whorl.training.slots import Slot
from whorl.training.sweep_live import SweepLive, progress
from whorl.training.written import read_result

POLL = 0.05  # seconds between two looks at the processes


@dataclass(eq=False)
class Job:
    """One run: a setting and a seed. Its state is its folder: none, begun (`config.json`), finished (`eval.json`)."""

    sweep: Path
    name: str  # of the run folder
    agent: str
    setting: grid.Setting  # with the agent, where the sweep compares several
    seed: int
    tries: int = 0

    @property
    def path(self) -> Path | None:
        return next(self.sweep.glob(f"*/*/{self.name}"), None)

    @property
    def finished(self) -> bool:
        return self.path is not None and (self.path / "eval.json").exists()

    @property
    def log(self) -> Path:
        return self.sweep / "logs" / f"{self.name}.txt"

    def __str__(self) -> str:
        return f"{grid.describe(self.setting)}, seed {self.seed}"


@dataclass(frozen=True)
class Running:
    """The process of a job."""

    job: Job
    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.monotonic)


class Launcher:
    """The processes of a sweep, in its slots."""

    def __init__(
        self,
        path: Path,
        plan: Mapping[str, object],
        fixed: Mapping[str, grid.Setting],
        lock: int,
        outside: Mapping[str, object],
        slots: list[Slot],
        retries: int,
    ):
        """fixed: what all runs of each agent share. lock: a descriptor that the runs hold, too. outside: what the user brought along, for
        `sweep_run`. retries: how often a run that failed is started again, after those that wait; it goes on from its last checkpoint."""
        self.path, self.plan, self.fixed, self.lock, self.outside = path, plan, fixed, lock, outside
        self.slots, self.retries = slots, retries
        self.running: dict[Slot, Running] = {}
        self.failed: dict[str, str] = {}

    def run(self, work: list[Job]) -> dict[str, str]:
        """All that is not finished yet; returns the failures. Raises SystemExit after a signal, when every run has saved."""
        waiting = [job for job in work if not job.finished]
        total, done, stopping = len(work), len(work) - len(waiting), False
        (self.path / "logs").mkdir(exist_ok=True)
        with SweepLive() as live, StopSignals() as stop:
            live.say(
                f"sweep: {self.path}: {total} runs, {done} finished before, {min(len(self.slots), total)} at a time"
            )
            try:
                while self.running or (waiting and not stop.number):
                    for slot in self.slots:
                        if waiting and slot not in self.running and not stop.number:
                            self._start(waiting.pop(0), slot)
                    if stop.number and not stopping:
                        stopping = True
                        for one in self.running.values():
                            one.process.terminate()
                    for slot in [slot for slot, one in self.running.items() if one.process.poll() is not None]:
                        job, why = self._ended(self.running.pop(slot))
                        if why and stopping:
                            continue
                        if again := bool(why) and job.tries <= self.retries:
                            waiting.append(job)
                        done += not again
                        live.say(f"[{done}/{total}] {job}: {self._outcome(job, why, again)}")
                    retries = sum(max(job.tries - 1, 0) for job in work)
                    below = (
                        f"{len(waiting)} waiting, {done} of {total} done, {len(self.failed)} failed, {retries} retries"
                    )
                    live.show(self._rows, below)
                    time.sleep(POLL)
            finally:  # a second signal, or an error of ours: nothing is left behind
                for one in self.running.values():
                    one.process.kill()
                    one.process.wait()
            if stop.number:
                left = sum(not job.finished for job in work)
                name = signal.Signals(stop.number).name
                live.say(f"stopped by {name} with {left} of {total} runs to go; the same command goes on")
                raise SystemExit(128 + stop.number)
        return self.failed

    def _start(self, job: Job, slot: Slot) -> None:
        path, plan, fixed, env = job.path, self.plan, self.fixed[job.agent], str(self.plan["env"])
        if path is not None and not (path / "config.json").exists():  # killed before the first file was complete
            for litter in path.glob(f"{folders.TEMPORARY}*"):
                litter.unlink()
            path.rmdir()
            path = None
        request: dict[str, Any] = {"parent": os.getpid(), **self.outside}
        if path is not None:
            request |= {"resume": str(path), "env": env if is_url(env) else None}
            request |= {"env_kwargs": plan.get("env_kwargs"), "logger": fixed.get("logger")}
        else:
            fields = grid.nested(fixed | job.setting)
            request["train"] = fields | {"agent": job.agent, "env": env, "seed": job.seed, "name": job.name}
            request["train"] |= {"runs": str(self.path), "env_kwargs": plan.get("env_kwargs")}
            request["train"] |= {"transforms": plan.get("transforms")}
        job.tries += 1
        with open(job.log, "ab") as log, slot.entered() as variables:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "whorl.training.sweep_run", json.dumps(request)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
                pass_fds=(self.lock,),
                start_new_session=True,  # Ctrl-C comes to the sweep alone, which tells its runs
            )
        self.running[slot] = Running(job, process)

    def _ended(self, one: Running) -> tuple[Job, str]:
        """The job, and why it failed; "" where it is finished, which its last file says."""
        job, code = one.job, one.process.returncode
        if job.finished:
            return job, ""
        lines = job.log.read_text(errors="replace").strip().splitlines()
        return job, f"killed by {signal.Signals(-code).name}" if code < 0 else lines[
            -1
        ] if lines else f"exit code {code}"

    def _outcome(self, job: Job, why: str, again: bool) -> str:
        if again:
            return f"failed: {why}; retry {job.tries} of {self.retries} comes ({job.log})"
        if why:
            self.failed[str(job)] = why
            return f"FAILED: {why} ({job.log})"
        result = read_result(job.path) if job.path else None
        return f"best mean {result.best.mean:.1f}" if result and result.best else "not evaluated"

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for number, slot in enumerate(self.slots, 1):
            if one := self.running.get(slot):
                label = f"{number}: {slot}" if str(slot) else str(number)
                yield label, str(one.job), str(one.job.tries), *progress(one.job.path, one.began)
