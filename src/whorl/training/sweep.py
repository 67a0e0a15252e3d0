"""A sweep: every setting of a grid with every seed, each run a process of its own. The run folders are its memory."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from whorl import files, folders, options
from whorl.envs.env import Env
from whorl.envs.ids import check_no_token
from whorl.envs.make import EnvKind, kind_or_env, name_of
from whorl.errors import BadInput, Damaged
from whorl.nets.encoder import EncoderFactory
from whorl.options import override
from whorl.training import folder, grid, sweep_table
from whorl.training.build import build
from whorl.training.catalog import AgentLike, agent_class, agent_name, find
from whorl.training.collecting import Collecting
from whorl.training.imports import bring, typed
from whorl.training.launch import Job, Launcher
from whorl.training.planned import planned
from whorl.training.samples import Samples
from whorl.training.samples import settings as draws
from whorl.training.settings import Settings, one_word
from whorl.training.slots import check_device, read_slots
from whorl.training.source import as_asked
from whorl.training.start import TAKEN
from whorl.training.sweep_asked import check_call, check_fields
from whorl.transforms.chain import Transforms, chain


@dataclass(frozen=True)
class Sweep:
    """A sweep that is through. `failed`: the runs without a result, and their last words."""

    path: Path
    rows: list[sweep_table.Row]  # best setting first
    runs: int
    failed: dict[str, str] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)  # of the runs that needed any


def sweep(
    agent: AgentLike,
    env: str,
    values: grid.Grid | None = None,
    *,
    samples: Samples | None = None,
    trials: int = 20,
    seeds: int = 5,
    slots: int | str | None = None,
    retries: int = 2,
    runs: str | Path = "runs",
    name: str | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    transforms: Transforms | None = None,
    imports: Sequence[str] = (),
    encoder: EncoderFactory | None = None,
    **fields: object,
) -> Sweep:
    """Train `agent` in `env` with every combination of `values` and the seeds 0 .. seeds - 1, one in each slot at a time.

    agent: a name, or several with commas, which are compared: each in its own preset, over as many steps as the first one's.
    samples: field -> how it is drawn in each of so many `trials` ("log:1e-5:1e-2", see samples.py), beside the combinations of `values`;
    the same draws for each of these and for each agent.
    values: field -> its values; fields of the agent's config (`feed.steps` for a nested one) and of `Settings`.
    slots: how many runs at a time, each a process; "2x1" gives each of two one core of its own, "gpu:0,1 x2" one of these GPUs and two
    cores (see slots.py). By default as many as this process has cores, which they share.
    retries: how often a run that failed or was killed is started again, from its last checkpoint.
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
    check_call(agent, values, seeds=(seeds, 1), trials=(trials, 1), retries=(retries, 0))
    places = read_slots(slots)
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
    check_device(places, [(fixed[each] | setting).get("device", Settings.device) for each, setting in combinations])
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
        failed = Launcher(path, plan, fixed, lock, outside, places, retries).run(work)
        done = {job: job.path for job in work if job.finished}
        runs_of = [[path for job, path in done.items() if job.setting is setting and path] for setting in named]
        rows = sweep_table.table([*zip(named, runs_of)])
        sweep_table.write_csv(path / "table.csv", rows)
        sweep_table.draw(path / "table.png", rows, f"{agent} on {env}, {seeds} seeds")
    return Sweep(path, rows, len(work), failed, {str(job): job.tries - 1 for job in work if job.tries > 1})


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
        precision=s.precision, collecting=Collecting.of(s),
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
