"""A sweep: every setting of a grid with every seed, each run a process of its own. The run folders are its memory."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from typing import Any

from whorl import files, folders, options
from whorl.envs.env import Env
from whorl.envs.ids import check_no_token, is_url
from whorl.envs.make import EnvKind, kind_or_env, name_of
from whorl.errors import BadInput, Damaged, WhorlError
from whorl.nets.encoder import EncoderFactory
from whorl.options import override
from whorl.training import folder, grid, sweep_table
from whorl.training.build import build
from whorl.training.catalog import AgentLike, agent_class, agent_name, find
from whorl.training.imports import bring, typed
from whorl.training.planned import planned
from whorl.training.process import StopSignals
from whorl.training.samples import Samples
from whorl.training.samples import settings as draws
from whorl.training.settings import Settings, one_word
from whorl.training.source import as_asked
from whorl.training.start import TAKEN, resume, train
from whorl.training.sweep_asked import check_call, check_fields
from whorl.training.written import read_result
from whorl.transforms.chain import Transforms, chain

POLL = 0.05  # seconds between two looks at the processes


@dataclass(eq=False)
class Job:
    """One run: a setting and a seed. Its state is its folder: none, begun (`config.json`), finished (`eval.json`)."""

    sweep: Path
    name: str  # of the run folder
    agent: str
    setting: grid.Setting  # with the agent, where the sweep compares several
    seed: int
    process: subprocess.Popen | None = None

    @property
    def path(self) -> Path | None:
        return next(self.sweep.glob(f"*/*/{self.name}"), None)

    @property
    def finished(self) -> bool:
        return self.path is not None and (self.path / "eval.json").exists()

    def __str__(self) -> str:
        return f"{grid.describe(self.setting)}, seed {self.seed}"


@dataclass(frozen=True)
class Sweep:
    """A sweep that is through. `failed`: the runs without a result, and their last words."""

    path: Path
    rows: list[sweep_table.Row]  # best setting first
    runs: int
    failed: dict[str, str] = field(default_factory=dict)


def sweep(
    agent: AgentLike,
    env: str,
    values: grid.Grid | None = None,
    *,
    samples: Samples | None = None,
    trials: int = 20,
    seeds: int = 5,
    jobs: int | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    transforms: Transforms | None = None,
    imports: Sequence[str] = (),
    encoder: EncoderFactory | None = None,
    **fields: object,
) -> Sweep:
    """Train `agent` in `env` with every combination of `values` and the seeds 0 .. seeds - 1, `jobs` at a time.

    agent: a name, or several with commas, which are compared: each in its own preset, over as many steps as the first one's.
    samples: field -> how it is drawn in each of so many `trials` ("log:1e-5:1e-2", see samples.py), beside the combinations of `values`;
    the same draws for each of these and for each agent.
    values: field -> its values; fields of the agent's config (`feed.steps` for a nested one) and of `Settings`.
    jobs: processes at a time, each on one thread; by default as many as this process has cores.
    fields: of `Settings`, for all runs (`total_steps=5000`); by default those of the pair's preset.
    env_kwargs, transforms: as for `train`, for all runs.
    name: of the folder `runs/sweeps/<name>`; by default agent, environment and a digest of everything that makes the sweep.
    imports: modules that bring names to the processes of the runs, as they did to this one; those of a class and of an environment
    `module:id` go without saying. encoder: see `whorl.train`.

    The same call goes on where an earlier one was stopped or killed: finished runs stay, begun ones are resumed from their
    last checkpoint. Progress goes to stderr. Raises BadInput or Incompatible before anything runs or is written; SystemExit
    when a signal stopped it.
    """
    if not isinstance(env, str):
        raise BadInput(f"the runs of a sweep are processes that make their environments by id; {name_of(env)} is none")
    check_no_token(env)
    env, modules = typed(env)
    bring(modules)
    values, samples = values or {}, samples or {}
    check_call(agent, values, seeds=seeds, jobs=jobs, trials=trials)
    kinds = {each: each for each in agent.split(",")} if isinstance(agent, str) else {agent_name(agent): agent}
    agents = agent.split(",") if isinstance(agent, str) else [*kinds]
    owns, torso = [_importable(agent_class(kind)) for kind in kinds.values()], _importable(encoder)
    agent = ",".join(agents)
    outside: dict[str, Any] = {"own": owns[0], "encoder": torso, "named": ":" not in agent, "path": sys.path}
    outside["imports"] = [*imports, *modules, *(own[0] for own in [*owns, torso] if own)]
    source = kind_or_env(env, env_kwargs)
    if not (values or samples or len(agents) > 1):
        raise BadInput(
            "the grid is empty: give at least one field with its values, --grid learning_rate=1e-3,1e-2, or by --sample, or several agents"
        )
    if twice := [name for name in [*values, *agents] if name in samples or agents.count(name) > 1]:
        raise BadInput(f"{twice[0]} comes twice")
    check_fields(kinds, env, [*values, *samples], fields)
    if len(agents) > 1 and "total_steps" not in [*values, *samples]:
        fields = {"total_steps": find(kinds[agents[0]], env).total_steps, **fields}
    fixed = {each: _fixed(kinds[each], env, fields, {*values, *samples}) for each in agents}
    combinations = [
        (each, setting)
        for each in agents
        for setting in _settings(find(kinds[each], env).config, values, samples, trials)
    ]
    for each, setting in combinations:
        around = as_asked(source, transforms, find(kinds[each], env))
        _check_setting(kinds[each], around, fixed[each] | setting, encoder)
    shared = fixed[agent] if len(agents) == 1 else {"settings": fixed}
    drawn = {"samples": samples, "trials": trials} if samples else {}
    of_env: dict[str, object] = {"env_kwargs": dict(env_kwargs)} if env_kwargs else {}
    if transforms is not None:
        given = chain(transforms)
        of_env["transforms"] = given.written() if given else []
    plan = json.loads(
        json.dumps({"agent": agent, "env": env, **of_env, "grid": values, "seeds": seeds, **drawn, **shared})
    )
    digest = sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:8]
    name = folders.check_name(
        f"{re.split('[:.]', agent)[-1]}_{env.replace('/', '_')}_{digest}" if name is None else name, "the sweep name"
    )
    path = Path(runs) / "sweeps" / name
    _refuse_another_plan(path, plan)
    folders.make(path)
    with files.lock(path, heirs=True) as lock:  # its runs hold the folder too
        _refuse_another_plan(path, plan)
        if not (path / "sweep.json").exists():
            files.write_json(path / "sweep.json", plan | {"meta": folder.meta()})
        named = [({"agent": each} if len(agents) > 1 else {}) | setting for each, setting in combinations]
        work = [
            Job(path, f"{number:03d}_s{seed}", combinations[number][0], setting, seed)
            for seed in range(seeds)  # outside: the first seed of every setting comes before the second of any
            for number, setting in enumerate(named)
        ]
        failed = _Queue(path, plan, fixed, lock, outside).run(work, jobs or _cores())
        done = {job: job.path for job in work if job.finished}
        runs_of = [[path for job, path in done.items() if job.setting is setting and path] for setting in named]
        rows = sweep_table.table([*zip(named, runs_of)])
        sweep_table.write_csv(path / "table.csv", rows)
        sweep_table.draw(path / "table.png", rows, f"{agent} on {env}, {seeds} seeds")
    return Sweep(path, rows, len(work), failed)


def _settings(config: object, values: grid.Grid, samples: Samples, trials: int) -> list[grid.Setting]:
    """Every combination of the grid, each with every trial."""
    grid.check(values, config)
    drawn = draws(samples, trials, config) if samples else [{}]
    return [combination | trial for combination in grid.settings(values) for trial in drawn]


def _fixed(agent: AgentLike, env: str, fields: Mapping[str, object], varied: Collection[str]) -> grid.Setting:
    """What all runs of an agent share: the settings that were given, and always these three."""
    preset = find(agent, env)
    default = Settings(num_envs=preset.num_envs, total_steps=preset.total_steps)
    settings = override(default, fields)
    for option in grid.RUN_SETTINGS.keys() & set(varied):
        if getattr(settings, option) != getattr(default, option):
            raise BadInput(f"{option} is given twice: once for all runs and once in the grid")
    written = ("eval_episodes", "total_steps", "num_envs")
    shared = {name: getattr(settings, name) for name in grid.RUN_SETTINGS if name not in varied}
    return {name: value for name, value in shared.items() if name in written or value != getattr(default, name)}


def _cores() -> int:
    """That this process may use; of the machine where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _importable(part: Callable | None) -> list[str]:
    """[module, name] of a class or function from outside, for processes to import; nothing of whorl's own.

    Raises BadInput for one that no other process can import.
    """
    if part is None or part.__module__.startswith("whorl."):
        return []
    name = getattr(part, "__qualname__", "<locals>")
    if part.__module__ == "__main__" or "<" in name:
        raise BadInput(
            f"the runs of a sweep are processes of their own, which cannot import {name}: put it into a module"
        )
    return [part.__module__, name]


def _check_setting(agent: AgentLike, env: EnvKind | Env, setting: grid.Setting, encoder: EncoderFactory | None) -> None:
    """Raises what `train` would raise before it writes anything."""
    s, config = planned(agent, name_of(env), one_word(grid.nested(setting)), source=env, beside=TAKEN)
    parts = build(
        agent, env, config, s.num_envs, update=s.update, max_episode_steps=s.max_episode_steps, buffer=False, encoder=encoder,
        precision=s.precision,
    )  # fmt: skip
    if parts.env is not None:
        parts.env.close()


def _refuse_another_plan(path: Path, plan: dict[str, Any]) -> None:
    if not path.exists():
        return
    folder.check_sweep(path)
    if not (path / "sweep.json").exists():
        return
    begun = files.read_json(path / "sweep.json")
    if not isinstance(begun, dict):
        raise Damaged(f"{path / 'sweep.json'} should hold a table, got {str(begun)[:60]!r}: {options.CHANGED}")
    for key in sorted((plan.keys() | begun.keys()) - {"meta"}):
        if plan.get(key) != begun.get(key):
            raise BadInput(
                f"{path} was begun with {key} = {begun.get(key)}, now it is {plan.get(key)}: "
                "repeat the command as it was to go on, or give the new sweep another --name"
            )


class _Queue:
    """The processes of a sweep: at most so many at a time, none of them twice."""

    def __init__(
        self, path: Path, plan: dict[str, Any], fixed: Mapping[str, grid.Setting], lock: int, outside: dict[str, Any]
    ):
        self.path, self.plan, self.fixed, self.lock, self.outside = path, plan, fixed, lock, outside
        self.running: list[Job] = []
        self.failed: dict[str, str] = {}

    def run(self, work: list[Job], slots: int) -> dict[str, str]:
        """All that is not finished yet; returns the failures. Raises SystemExit after a signal, when every run has saved."""
        waiting = [job for job in work if not job.finished]
        total, done = len(work), len(work) - len(waiting)
        _say(f"sweep: {self.path}: {total} runs, {done} finished before, {min(slots, total)} at a time")
        (self.path / "logs").mkdir(exist_ok=True)
        stopping = False
        try:
            with StopSignals() as stop:
                while self.running or (waiting and not stop.number):
                    while waiting and len(self.running) < slots and not stop.number:
                        self._start(waiting.pop(0))
                    if stop.number and not stopping:
                        stopping = True
                        for job in self.running:
                            job.process.terminate()  # type: ignore[union-attr]
                    for job in [job for job in self.running if job.process.poll() is not None]:  # type: ignore[union-attr]
                        self.running.remove(job)
                        if job.finished or not stopping:
                            done += 1
                            _say(f"[{done}/{total}] {job}: {self._outcome(job)}")
                    _count(f"{len(self.running)} running, {len(waiting)} waiting, {done} of {total} done")
                    time.sleep(POLL)
        finally:  # a second signal, or an error of ours: nothing is left behind
            for job in self.running:
                job.process.kill()  # type: ignore[union-attr]
                job.process.wait()  # type: ignore[union-attr]
        if stop.number:
            left = sum(not job.finished for job in work)
            name = signal.Signals(stop.number).name
            _say(f"stopped by {name} with {left} of {total} runs to go; the same command goes on")
            raise SystemExit(128 + stop.number)
        return self.failed

    def _start(self, job: Job) -> None:
        path, plan, fixed = job.path, self.plan, self.fixed[job.agent]
        if path is not None and not (path / "config.json").exists():  # killed before the first file was complete
            for litter in path.glob(f"{folders.TEMPORARY}*"):
                litter.unlink()
            path.rmdir()
            path = None
        request: dict[str, Any] = {"parent": os.getpid(), **self.outside}
        if path is not None:
            request |= {"resume": str(path), "env": plan["env"] if is_url(plan["env"]) else None}
            request |= {"env_kwargs": plan.get("env_kwargs"), "logger": fixed.get("logger")}
        else:
            fields = grid.nested(fixed | job.setting)
            request["train"] = fields | {"agent": job.agent, "env": plan["env"], "seed": job.seed, "name": job.name}
            request["train"] |= {"runs": str(self.path), "env_kwargs": plan.get("env_kwargs")}
            request["train"] |= {"transforms": plan.get("transforms")}
        with open(self._log(job), "ab") as log:
            job.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "whorl.training.sweep", json.dumps(request)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                pass_fds=(self.lock,),
                start_new_session=True,  # Ctrl-C comes to the sweep alone, which tells its runs
            )
        self.running.append(job)

    def _outcome(self, job: Job) -> str:
        code = job.process.returncode  # type: ignore[union-attr]
        if job.finished and code == 0:
            result = read_result(job.path)  # type: ignore[arg-type]
            return f"best mean {result.best.mean:.1f}" if result and result.best else "not evaluated"
        lines = self._log(job).read_text(errors="replace").strip().splitlines()
        why = f"killed by {signal.Signals(-code).name}" if code < 0 else lines[-1] if lines else f"exit code {code}"
        self.failed[str(job)] = why
        return f"FAILED: {why} ({self._log(job)})"

    def _log(self, job: Job) -> Path:
        return self.path / "logs" / f"{job.name}.txt"


def _say(line: str) -> None:
    print(f"\r\x1b[K{line}" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


def _count(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------- one run, in its process


def _run_one(request: dict[str, Any]) -> None:
    _die_with(request["parent"])
    try:
        own = _outside(request)
        if "resume" in request:
            same = {name: request[name] for name in ("env", "env_kwargs", "logger")}
            resume(request["resume"], quiet=True, **same, **own)
        else:
            train(**request["train"] | own, quiet=True)
    except WhorlError as error:
        print(f"whorl: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _outside(request: dict[str, Any]) -> dict[str, Any]:
    """Import what the user of the sweep had imported; what of it `train` and `resume` are given: classes that no name stands for."""
    sys.path += [place for place in request["path"] if place not in sys.path]
    bring(request["imports"])
    found = {"agent": request["own"], "encoder": request["encoder"]}
    if request["named"]:
        del found["agent"]
    return {option: attrgetter(own[1])(sys.modules[own[0]]) for option, own in found.items() if own}


def _die_with(parent: int) -> None:
    """The kernel kills this process when its parent ends, however that dies. Linux only: elsewhere a run that a killed
    sweep left behind goes on to its end and holds the sweep's lock so long."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before that
        sys.exit(f"whorl: the sweep, process {parent}, is gone")


if __name__ == "__main__":
    _run_one(json.loads(sys.argv[1]))
