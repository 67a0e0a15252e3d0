"""Start a run, or go on with one: what was asked is checked before anything is written."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import cast

from whorl import options
from whorl.batch import Arrays
from whorl.buffers.datasets import Dataset
from whorl.collectors.tally import text_of
from whorl.envs.guard import close
from whorl.envs.ids import check_no_token
from whorl.envs.make import EnvKind, EnvLike, Wrapper, kind_or_env, name_of
from whorl.envs.watchdog import watching
from whorl.errors import BadInput, command
from whorl.feeds import Fed, Feed
from whorl.files import lock, write_json
from whorl.nets.encoder import EncoderFactory
from whorl.options import listed
from whorl.training import folder, grid
from whorl.training.brought import check_encoder, check_hidden, encoder_name
from whorl.training.catalog import AgentLike, agent_class, find
from whorl.training.changes import Changes, between, changed
from whorl.training.hooks import Hook
from whorl.training.imports import bring, typed
from whorl.training.loggers import Logger
from whorl.training.loggers.places import of_folder
from whorl.training.new_agent import new_agent
from whorl.training.own_hooks import Schedule, check_again, described, taken_out, unannealed
from whorl.training.planned import OPTIONS, check_recorded, check_spans, most_between_checkpoints, planned
from whorl.training.process import threads_of_torch
from whorl.training.recipe import read_recipe
from whorl.training.run import Run
from whorl.training.settings import Settings, one_word
from whorl.training.sizes import check_replay
from whorl.training.source import as_asked, source_again
from whorl.training.trained import read_settings
from whorl.training.video import drawable
from whorl.training.weights import begin_with, of_run
from whorl.training.written import Result, read_result
from whorl.transforms.chain import Transforms

_log = logging.getLogger("whorl")


def train(
    agent: AgentLike | None = None,
    env: EnvLike | None = None,
    *,
    recipe: str | PathLike[str] | None = None,
    config: Fed | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    transforms: Transforms | None = None,
    data: Dataset | None = None,
    encoder: EncoderFactory | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    quiet: bool = False,
    loggers: Sequence[Logger] | None = (),
    hooks: Sequence[Hook] | None = (),
    **fields: object,
) -> Run:
    """Train `agent` in `env` and return the finished run. What is not given comes from the preset of the pair.

    agent: a name (`whorl list agents`), a class, or an agent that is built, which is trained as it is.
    recipe: a run, its folder or its config.json, or a part of one, for all that is not given here; what is yours is given again.
    env: an id (or Gymnasium's `module:id`, which is imported), the URL of an environment on a gym HTTP server, or of your own: a class or
    function that makes a `gymnasium.Env`, a subclass of `Env`, or an object, `Env`, `gymnasium.Env`, `VectorEnv`. With an object there is
    no evaluation, and it is yours to close.
    env_kwargs: options of the environment, plain values; they stand in `config.json`.
    wrappers: put around each single environment, the innermost first: gymnasium wrappers, or functions. `resume` and `load` ask for
    them again.
    transforms: what lies between environments and agent, the innermost first: names, tables of a name and its arguments, or objects (their
    classes registered by `whorl.register_transform`); see docs/transforms.md. `config.json` holds them.
    data: what an agent with an Offline feed learns from; `env`, if it is given, only evaluates.
    encoder: a class or function of yours, observation space -> `nn.Module` with `width`: the network that looks at observations, one for
    the policy and one for the critic.
    loggers, hooks: of your own, beside the run's (see training/loggers and training/hooks.py).
    fields: every option of training/settings.py (`total_steps=20_000`, `seed=1`), and fields of the agent's config
    (`learning_rate=1e-3`), those of its feed by `feed={"steps": 16}` or `**{"feed.steps": 16}`. A preset that anneals over its own run
    anneals over yours. A function of the run's progress, from 0 to 1, is a `Schedule` of the field, in the place of what anneals there:
    `learning_rate=lambda progress: 1e-3 * (1 - progress)`.
    `init_from`: a run, or the folder of one.
    Raises BadInput or Incompatible before anything is written.
    """
    fields, runs = one_word(grid.nested(fields)), folder.place(runs, "the folder of all runs")
    if isinstance(env, str):
        env, modules = typed(env)
        bring(modules)
    if recipe is not None:  # whose names import nothing
        brought = {"config": config, "env_kwargs": env_kwargs, "wrappers": wrappers, "encoder": encoder, **fields}
        brought |= {"transforms": transforms}
        brought |= {hook.field: hook for hook in hooks or () if isinstance(hook, Schedule)}
        found = read_recipe(recipe, agent, env, brought)
        agent, config, fields = found.agent, found.config, {**found.fields, **fields}
        env, env_kwargs = found.env or None if env is None else env, found.env_kwargs
        transforms = found.transforms if transforms is None else transforms
    if agent is None:
        raise BadInput("name an agent to train (whorl list agents), or pass its class")
    weights = _weights_of(begun := fields.get("init_from"))
    if begun is not None:
        fields = {**fields, "init_from": str(begun.path if isinstance(begun, Run) else begun)}
    if isinstance(env, str):
        check_no_token(env)
    source = None if env is None else kind_or_env(env, env_kwargs, wrappers)
    if source is not None:
        source = as_asked(source, transforms, find(agent, source.id))
    if fields.get("info_keys"):
        fields = {**fields, "info_keys": text_of(cast(str, fields["info_keys"]))}
    kind = agent_class(agent).Config
    fields, schedules = taken_out(fields, kind)
    if config is None:
        fields = unannealed(fields, schedules, kind)
    hooks, loggers = [*schedules, *listed("hooks", hooks)], listed("loggers", loggers)
    settings, config = planned(agent, "" if env is None else name_of(env), fields, config, source, TAKEN)
    settings = dataclasses.replace(settings, scheduled=described(hooks), encoder=encoder_name(encoder))
    feed: Feed = config.feed
    if data is not None:
        check_recorded(data, fields, bool(settings.env))
    settings = settings.settled(most_between_checkpoints(feed))
    if not isinstance(source, EnvKind):
        settings = dataclasses.replace(settings, eval_every=0)
    elif settings.video_every:
        with watching(settings.env_timeout):
            close(drawable(source, settings.seed))  # has it a picture?
    run = Run(Path(), settings, config, quiet, source, loggers, hooks, data, agent, encoder)
    if encoder is not None and fields.get("hidden"):
        check_hidden(agent, run.known, config, encoder, cast(Sequence[int], fields["hidden"]))
    if weights:
        begin_with(run.agent, weights, str(settings.init_from))
    if run.parts.env is not None and feed.replays:
        if feed.storage == "memmap" and not settings.checkpoint_every:
            raise BadInput(
                "feed.storage = 'memmap' keeps its rows with the checkpoints, and checkpoint_every is 0: set it, or use 'memory'"
            )
        check_replay(run.parts.env, feed, run.slack, runs if settings.checkpoint_every else None)
    run.path = folder.create(runs, settings.env or "data", settings.agent, settings.seed, name)
    run.write_config()
    write_json(run.path / "meta.json", folder.meta())
    try:
        folder.link_last(runs, run.path)
    except (BadInput, OSError) as error:  # which is no matter of the run
        _log.warning("whorl: %s", error)
    return _begun(run)


def _weights_of(source: object) -> Arrays:
    if source is None:
        return {}
    if isinstance(source, Run):
        return source.agent.state_dict()
    if not isinstance(source, str | Path):
        raise BadInput(f"init_from is a run, or the folder of one, got {type(source).__name__}")
    return of_run(source)


def _shown(function: Callable[..., Run]) -> inspect.Signature:
    """Its signature with the options in place of `fields`, so that help() and editors show them."""
    *own, rest = inspect.signature(function).parameters.values()
    shown = [
        inspect.Parameter(o.name, inspect.Parameter.KEYWORD_ONLY, default=o.default, annotation=o.type) for o in OPTIONS
    ]
    return inspect.Signature([*own, *shown, rest], return_annotation=Run)


TAKEN = [*inspect.signature(train).parameters]  # by `train`, beside fields
setattr(train, "__signature__", _shown(train))  # noqa: B010  a function has this attribute only once it is set


def resume(
    path: str | PathLike[str],
    total_steps: int | None = None,
    quiet: bool = False,
    env: EnvLike | None = None,
    loggers: Sequence[Logger] | None = (),
    hooks: Sequence[Hook] | None = (),
    data: Dataset | None = None,
    config: Fed | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
    logger: str | None = None,
    agent: AgentLike | None = None,
    encoder: EncoderFactory | None = None,
    **fields: object,
) -> Run:
    """Go on with a run that was killed or stopped, or train a finished one further with more `total_steps`.

    env: only for a run that was trained in an environment of your own, which its folder cannot make again; or on a server: its URL.
    wrappers, hooks, data: as they were at its start; a function that was given for a field is given again as `Schedule(field, function)`
    among the hooks. env_kwargs: as they were, where its folder names files. config: only for a run whose feed is a class of yours, which
    its folder cannot name. logger: another than at its start; wandb and mlflow, which may connect, are used only where they are named
    again. agent: the class (or a new one that is built), for a run whose agent is yours; encoder: likewise. fields: what is to change from
    here on (`learning_rate=1e-4`, `eval_every=5_000`); config.json holds it then, and the run's log says so. A
    function that a field of the config is, such as `estimator=my_function`, is given again.
    Raises BadInput for a folder that is not a run, one that another process holds, a finished run without more steps, or fewer steps
    than the run was started for.
    """
    hooks, loggers = listed("hooks", hooks), listed("loggers", loggers)
    path = folder.open_run(path)
    with lock(path):
        was = read_settings(path, config, agent, fields)
        check_encoder(path, was[0], encoder)
        settings, config = changed(*was, grid.nested(fields))
        result = (read_result(path) if (path / "curve.png").exists() else None) or Result()
        done, over = result.steps, result.episodes >= (settings.total_episodes or math.inf)
        total = settings.total_steps if total_steps is None else options.whole(total_steps)
        if isinstance(total, bool) or not isinstance(total, int):
            raise BadInput(f"total_steps must be a whole number, got {total!r}")
        if total < settings.total_steps:
            raise BadInput(
                f"{path} was started for {settings.total_steps:,} steps and cannot be shortened to {total:,}"
            )
        if over:
            raise BadInput(f"{path} is finished: it was started for {settings.total_episodes:,} episodes")
        if total <= done:
            more = command("resume", path, "--total-steps", 2 * done)
            raise BadInput(f"{path} is finished at {done:,} steps; give more: {more}")
        settings = dataclasses.replace(settings, total_steps=total)
        options.check(settings)
        check_spans(config, settings)
        check_again(settings.scheduled, hooks)
        kept, trackers = of_folder(settings.logger)
        if trackers and logger is None:
            _log.warning("whorl: not used without being asked for again: --logger %s", ",".join(trackers))
        settings = dataclasses.replace(settings, logger=kept if logger is None else logger)
        nowhere = data is not None and not settings.env
        source = None if nowhere else source_again(path, settings, env, env_kwargs, wrappers)
        if source is not None and not settings.own_env:
            settings = dataclasses.replace(settings, env=name_of(source))  # a server may have moved
        run = Run(path, settings, config, quiet, source, loggers, hooks, data, agent, encoder)
        if fields:
            run.changes = _changes(was, run)
    return _begun(run, resume=True)


_last: Callable[[], Run | None] = lambda: None  # noqa: E731


def _begun(run: Run, resume: bool = False) -> Run:
    """Trains it. `last_run` keeps one that was cut short, which nobody else does, and knows the others while they are there."""
    global _last
    _last = weakref.ref(run)
    try:
        return run.start(resume)
    except BaseException:
        _last = lambda: run  # noqa: E731
        raise


def last_run() -> Run | None:
    """The run that `train` or `resume` began last in this process, also where Ctrl-C or an error ended it; None: there is none."""
    return _last()


def _changes(was: tuple[Settings, Fed], run: Run) -> Changes:
    """Raises what `changes.between` does; the environments are closed then."""
    try:
        built = run.agent
        if was[1] != run.config:
            with threads_of_torch(run.settings.threads):  # as `run.agent` was: other threads give other bits
                built = new_agent(run.kind, run.known, was[1], run.settings.seed, run.encoder).to(run.settings.device)
        return between((*was, built), (run.settings, run.config, run.agent))
    except BaseException:
        run.close()
        raise
