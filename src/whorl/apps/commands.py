"""What each command does, once its options are read."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gymnasium
import torch

import whorl
from whorl import options
from whorl.apps import arguments
from whorl.apps.shell import in_shell
from whorl.envs.adapters import LIBRARIES, install
from whorl.envs.guard import close
from whorl.envs.make import kind_or_env, make_env
from whorl.envs.watchdog import watching
from whorl.errors import BadInput, Incompatible, WhorlError, command
from whorl.nets.encoder import EncoderFactory
from whorl.spaces import describe
from whorl.training.advice import advise, measure
from whorl.training.build import Parts, build
from whorl.training.catalog import find
from whorl.training.export import SUFFIXES
from whorl.training.imports import part
from whorl.training.planned import OPTIONS
from whorl.training.process import threads_of_torch
from whorl.training.run import Run
from whorl.training.settings import Settings
from whorl.training.source import as_asked
from whorl.training.start import resume as resume_run
from whorl.training.start import train as train_run
from whorl.training.trained import Trained, load

if TYPE_CHECKING:
    from whorl.apps.board.entry import Entry

EXTRAS = {
    "server": "starlette",
    "video": "imageio_ffmpeg",
    "onnx": "onnxruntime",
}  # that bring no environments: extra of whorl -> its module


def train(o: arguments.Train) -> None:
    given = _given(o.settings)
    _report(
        train_run(
            o.algorithm,
            o.environment,
            config=o.agent,
            env_kwargs=o.env_kwargs,
            transforms=o.transforms,
            encoder=_encoder(o),
            runs=o.runs,
            name=o.name,
            quiet=o.quiet,
            **given,
        ),
        o,
    )


def _given(settings: Settings) -> dict[str, Any]:
    """What stands on the command line, or in the preset."""
    return {option.name: getattr(settings, option.name) for option in OPTIONS}


def resume(o: arguments.Resume) -> None:
    own: dict[str, Any] = {"env_kwargs": o.env_kwargs, "encoder": _encoder(o)} | (o.changes or {})
    _report(resume_run(o.run, o.total_steps, o.quiet, o.env, logger=o.logger, **own), o)


def _report(run: Run, o: arguments.Train | arguments.Resume) -> None:
    result = run.result.best
    if not o.quiet:
        score = f", mean {result.mean:.1f} +- {result.std:.1f} over {result.episodes} episodes" if result else ""
        print(f"{run.path}: {run.steps:,} steps, {run.steps_per_second:,.0f} steps/s{score}")
    if o.json:
        evaluation = {key: getattr(result, key) for key in ("mean", "std", "episodes")} if result else None
        _last_line(
            run=str(run.path),
            steps=run.steps,
            seconds=run.seconds,
            steps_per_second=run.steps_per_second,
            evaluation=evaluation,
        )
    if run.disk.missing:
        how = command("resume", run.path)
        raise WhorlError(
            f"the disk is full: of {run.path}, {', '.join(sorted(run.disk.missing))} is not written. Make room, then: {how}"
        )


def _last_line(**data: Any) -> None:
    print(json.dumps(data), flush=True)


def eval(o: arguments.Eval) -> None:
    result = _load(o, o.env).evaluate(o.episodes, o.seed).summary()
    print(
        f"mean {result['mean']:.2f} +- {result['std']:.2f}, from {result['min']:.2f} to {result['max']:.2f}, {result['episodes']} episodes"
    )
    if o.json:
        _last_line(**result)


def _load(o: arguments.Eval | arguments.Play | arguments.Export, env: str | None = None) -> Trained:
    return load(o.run, _which(o.which), env, env_kwargs=o.env_kwargs, encoder=_encoder(o))


def _encoder(o: arguments.Networked) -> EncoderFactory | None:
    return cast(EncoderFactory, part(o.encoder)) if o.encoder else None


def _which(text: str) -> str | int:
    if text in ("best", "last"):
        return text
    if (step := options.read_whole(text)) is None:
        raise BadInput(f"--which takes best, last or the step of a checkpoint, got {text!r}")
    return step


def play(o: arguments.Play) -> None:
    trained = _load(o, o.env)
    files = [file for file in (o.gif, o.mp4) if file] or [trained.path / "video" / f"{o.which}.gif"]
    for file in files:
        ret, length = trained.film(file, o.seed)
        print(f"{file}: one episode, return {ret:.1f}, {length} steps")


def export(o: arguments.Export) -> None:
    trained = _load(o)
    file = trained.export(o.out or trained.path / f"policy{SUFFIXES[o.to]}", o.to)
    print(
        f"{file}: {trained.settings.agent} on {trained.settings.env}, {trained.checkpoint.name}, {file.stat().st_size:,} bytes"
    )


def sweep(o: arguments.Sweep) -> None:
    from whorl.apps.lists import print_table
    from whorl.training import grid, samples, sweep_table
    from whorl.training.sweep import sweep as run_sweep
    from whorl.training.sweep_asked import check_fields

    first = find(o.algorithm.split(",")[0], o.environment)
    names = [text.partition("=")[0] for text in (*o.grid, *o.sample)]
    check_fields({name: name for name in o.algorithm.split(",")}, o.environment, names, {})
    varied, drawn = grid.parse(o.grid, first.config), samples.parse(o.sample)
    default = Settings(num_envs=first.num_envs, total_steps=first.total_steps)
    given = {name: value for name, value in _given(o.settings).items() if value != getattr(default, name)}
    done = run_sweep(
        o.algorithm, o.environment, varied, samples=drawn, trials=o.trials, seeds=o.seeds, slots=o.slots, retries=o.retries, runs=o.runs,
        name=o.name, imports=o.imports, env_kwargs=o.env_kwargs, transforms=o.transforms, encoder=_encoder(o), **given
    )  # fmt: skip
    print_table([sweep_table.header([*done.rows[0].setting]), *(row.cells() for row in done.rows)])
    retried = f", {sum(done.retries.values())} retries" if done.retries else ""
    print(f"{done.path}: {done.runs - len(done.failed)} of {done.runs} runs{retried}; table.csv, table.png")
    for job, why in done.failed.items():
        tries = f" {1 + done.retries[job]} times" if job in done.retries else ""
        print(f"whorl: {job} failed{tries}: {why}", file=sys.stderr)
    if o.json:
        _last_line(
            sweep=str(done.path),
            runs=done.runs,
            failed=done.failed,
            retries=done.retries,
            table=[asdict(row) for row in done.rows],
        )
    if done.failed:
        sys.exit(1)


def check(o: arguments.Check) -> None:
    try:
        preset = find(o.algorithm, o.environment)
        source = as_asked(kind_or_env(o.environment, o.env_kwargs), o.transforms, preset)
        parts = build(o.algorithm, source)
    except Incompatible as reason:
        print(f"whorl: {o.algorithm} cannot train in {o.environment}: {in_shell(str(reason))}", file=sys.stderr)
        sys.exit(1)
    env = parts.env
    assert env is not None  # since no data was given
    print(f"environment  {env!r}")
    print(f"observation  {describe(env.observation_space)}")
    print(f"action       {describe(env.action_space)}")
    print(f"agent        {type(parts.agent).__name__}, {sum(p.numel() for p in parts.agent.parameters()):,} parameters")
    if parts.why:
        print(f"updates      {parts.why.removeprefix('update: ')}")
    _advise(parts)
    print(f"preset       {preset.total_steps:,} steps ({preset.source})")
    for f in options.fields(type(preset.config)):
        print(f"  {f.name} = {getattr(preset.config, f.name)!r}")


def _advise(parts: Parts) -> None:
    """Says what steps and decisions cost here, and who should step the environments."""
    env, policy, one = parts.env, parts.agent.policy, Settings.threads
    assert env is not None
    try:
        with watching(Settings.env_timeout), threads_of_torch(one):
            costs = measure(env, policy, parts.agent.config.feed)
    finally:
        close(env)
    found, n = advise(costs), costs.num_envs
    print(
        f"a step       {costs.step:.3f} ms for {n} rows, {costs.cpu:.3f} of it on the processor; {costs.cores} cores may be used"
    )
    print(f"a decision   {costs.decide:.3f} ms for {n} rows, {costs.half:.3f} for half of them ({costs.share:.0%})")
    if found.doubt:
        return print(f"no advice    {found.doubt}")
    print(f"advice       --workers {found.workers} ({found.why_workers})")
    print(f"             --collector {found.collector} ({found.why_collector})")


def doctor(o: arguments.Doctor) -> None:
    found = {
        "whorl": whorl.__version__, "python": platform.python_version(), "torch": torch.__version__, "gymnasium": gymnasium.__version__,
        "devices": ", ".join(["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]),
        "threads": str(torch.get_num_threads()), "cores": str(os.cpu_count()),
    }  # fmt: skip
    extras = {each.extra: each.module for each in LIBRARIES if each.extra} | EXTRAS
    for extra, module in extras.items():
        found[f"extra {extra}"] = "yes" if importlib.util.find_spec(module) else f"no: {install(extra)}"
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    env = make_env("CartPole-v1", 1, prefer="gymnasium", render_mode="rgb_array")
    env.reset(0)
    picture = env.render()
    found["rendering"] = (
        f"yes, {picture.shape[1]} x {picture.shape[0]} pixels" if picture is not None else "no picture from CartPole-v1"
    )
    env.close()
    if torch.version.cuda and not torch.cuda.is_available():
        found["warning"] = (
            f"this torch was built for CUDA {torch.version.cuda}, and no GPU answers: the CPU build is smaller"
        )
    for key, value in found.items():
        print(f"{key:14} {value}")


def bench(o: arguments.Bench) -> None:
    from whorl.apps.bench import Found, cells, compare
    from whorl.apps.lists import print_table

    found: list[Found] = []
    updates = tuple(dict.fromkeys(o.updates))
    for each in compare(o.only, updates, o.seconds, o.repeats):
        found.append(each)
        print(f"measured: {each.work}", file=sys.stderr)
    head = ["work", "what it is", *(f"{update}, steps/s" for update in updates), f"best / {updates[0]}"]
    print_table([head, *(cells(each, updates) for each in found)])
    print(
        "environment steps a second of training as shipped, one thread; compare the ratios, and those of a quiet machine"
    )
    for reason in dict.fromkeys(why for each in found for why in each.refused.values()):
        print(f"whorl: {reason}", file=sys.stderr)
    if o.json:
        _last_line(works=[each._asdict() for each in found])


def serve_gym(o: arguments.ServeGym) -> None:
    from whorl.apps.gym_server.serve import serve

    serve(**vars(o) | {"token": os.environ.get("WHORL_GYM_TOKEN") if o.token is None else o.token})


def plot(o: arguments.Plot) -> None:
    from whorl.training.plot import plot

    print(plot(o.runs, o.out, o.x))


def submit(o: arguments.Submit) -> None:
    from whorl.apps.board.submit import submit

    if not o.runs:
        raise BadInput(
            "there is nothing to submit: name at least one run folder; `whorl list runs` shows those that exist"
        )
    for run in o.runs:
        entry = submit(run, o.board, o.author, o.note)
        _report_entry(entry, o.board)
        if o.json:
            _last_line(id=entry.id, env=entry.env, agent=entry.agent, mean=entry.mean, std=entry.std)


def _report_entry(entry: Entry, board: Path) -> None:
    place = board / "entries" / entry.id
    print(f"{place}: {entry.agent} on {entry.world}, mean {entry.mean:.2f} over {len(entry.returns)} held-out episodes")


def board(o: arguments.Board) -> None:
    if bool(o.export) == o.serve:
        raise BadInput(f"say what to do with the board {o.board}: --export FOLDER for static pages, or --serve")
    if o.export is None:
        from whorl.apps.board.serve import serve

        token = os.environ.get("WHORL_BOARD_TOKEN") if o.token is None else o.token
        port: dict[str, Any] = {} if o.port is None else {"port": o.port}
        return serve(o.board, host="127.0.0.1" if o.host is None else o.host, token=token, **port)
    if given := [f"--{name}" for name in ("port", "host", "token") if getattr(o, name) is not None]:
        raise BadInput(f"{', '.join(given)} is for --serve: --export writes a folder, which nobody listens to")
    from whorl.apps.board.page import export

    print(export(o.board, o.export) / "index.html")


def board_merge(o: arguments.BoardMerge) -> None:
    from whorl.apps.board.merge import merge

    if not o.boards:
        raise BadInput("there is nothing to merge: name at least one board, whorl board merge BOARD ... --into BOARD")
    done = merge(o.boards, o.into)
    print(f"{o.into}: {len(done.added)} entries added, {len(done.present)} were there already")
    for problem in done.problems:
        print(f"whorl: {problem}", file=sys.stderr)
    if done.problems:
        sys.exit(1)


def verify(o: arguments.Verify) -> None:
    from whorl.apps.board.verify import verify

    verdict = verify(o.entry, o.board)
    print(verdict.message)
    if o.json:
        _last_line(**asdict(verdict))
    if not verdict.confirmed:
        sys.exit(3 if verdict.plausible else 1)
