"""Start a run, or go on with one: what was asked is checked before anything is written."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import cast

from whorl import options
from whorl.agents.agent import Agent
from whorl.batch import Arrays
from whorl.buffers.datasets import Dataset
from whorl.collectors.tally import text_of
from whorl.envs.env import Env
from whorl.envs.guard import close
from whorl.envs.ids import check_no_token
from whorl.envs.make import EnvKind, EnvLike, Wrapper, kind_or_env, name_of
from whorl.envs.watchdog import watching
from whorl.errors import BadInput, command
from whorl.feeds import Fed, Feed
from whorl.files import lock, write_json
from whorl.nets.encoder import EncoderFactory
from whorl.options import did_you_mean, listed, override
from whorl.presets import Preset
from whorl.training import folder, grid
from whorl.training.brought import check_encoder, check_hidden, encoder_name
from whorl.training.catalog import AgentLike, agent_class, agent_name, check_config, find
from whorl.training.changes import Changes, between, changed
from whorl.training.hooks import Hook
from whorl.training.imports import bring, typed
from whorl.training.loggers import Logger
from whorl.training.loggers.places import of_folder
from whorl.training.new_agent import new_agent
from whorl.training.own_hooks import Schedule, check_again, described, taken_out, unannealed
from whorl.training.process import threads_of_torch
from whorl.training.recipe import read_recipe
from whorl.training.run import Run
from whorl.training.settings import NAMED, Settings, check_one_device, one_word
from whorl.training.sizes import check_replay
from whorl.training.source import source_again
from whorl.training.trained import read_settings
from whorl.training.video import drawable
from whorl.training.weights import begin_with, of_run
from whorl.training.written import Result, read_result

_log = logging.getLogger("whorl")
OPTIONS = [field for field in dataclasses.fields(Settings) if field.name not in NAMED]


def train(
    agent: AgentLike | None = None,
    env: EnvLike | None = None,
    *,
    recipe: str | PathLike[str] | None = None,
    config: Fed | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
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
        brought |= {hook.field: hook for hook in hooks or () if isinstance(hook, Schedule)}
        found = read_recipe(recipe, agent, env, brought)
        agent, config, fields = found.agent, found.config, {**found.fields, **fields}
        env, env_kwargs = found.env or None if env is None else env, found.env_kwargs
    if agent is None:
        raise BadInput("name an agent to train (whorl list agents), or pass its class")
    weights = _weights_of(begun := fields.get("init_from"))
    if begun is not None:
        fields = {**fields, "init_from": str(begun.path if isinstance(begun, Run) else begun)}
    if isinstance(env, str):
        check_no_token(env)
    source = None if env is None else kind_or_env(env, env_kwargs, wrappers)
    if fields.get("info_keys"):
        fields = {**fields, "info_keys": text_of(cast(str, fields["info_keys"]))}
    kind = agent_class(agent).Config
    fields, schedules = taken_out(fields, kind)
    if config is None:
        fields = unannealed(fields, schedules, kind)
    hooks, loggers = [*schedules, *listed("hooks", hooks)], listed("loggers", loggers)
    settings, config = planned(agent, "" if env is None else name_of(env), fields, config, source)
    settings = dataclasses.replace(settings, scheduled=described(hooks), encoder=encoder_name(encoder))
    feed: Feed = config.feed
    if data is not None:
        _check_recorded(data, fields, bool(settings.env))
    settings = settings.settled(_interval(feed))
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


def planned(
    agent: AgentLike,
    env: str,
    fields: Mapping[str, object],
    config: Fed | None = None,
    source: EnvKind | Env | None = None,
) -> tuple[Settings, Fed]:
    """The settings and the agent's config of a run: those of the preset of the pair, with `fields` of either replaced.

    env: the environment's name. source: what it is, where that is not just an id. None stands for what is not given. Raises BadInput for
    what cannot be.
    """
    source = EnvKind(env) if source is None else source
    asked = {o.name: fields[o.name] for o in OPTIONS if fields.get(o.name) is not None}
    check_one_device(asked.get("device"))
    of_agent = {name: value for name, value in fields.items() if name not in {o.name for o in OPTIONS}}
    preset = find(agent, source.id)
    if config is not None:
        check_config(agent, config)
    _check_names(of_agent, preset.config if config is None else config)
    if isinstance(agent, Agent) and (of_agent or config not in (None, agent.config)):
        given = ", ".join(of_agent) or "config"
        raise BadInput(f"an agent that is built keeps its config: {given} cannot be given beside it, or pass its class")
    name = agent_name(agent)
    base = Settings(name, env, num_envs=preset.num_envs, total_steps=preset.total_steps)
    if isinstance(source, Env):
        base = dataclasses.replace(base, own_env=True, num_envs=source.num_envs)
    else:
        named = tuple(map(name_of, source.wrappers))
        base = dataclasses.replace(base, own_env=source.id != env, env_kwargs=dict(source.kwargs), wrappers=named)
    settings = override(base, asked)
    options.check(settings)
    config = override(_spanned(settings, preset, preset.config if config is None else config), of_agent)
    options.check(config)
    check_spans(config, settings)
    if isinstance(source, Env):
        _check_object(name, settings, config.feed)
    return settings, config


def _check_names(given: Iterable[str], config: Fed) -> None:
    """Raises BadInput for a name that is neither a parameter of `train`, nor a setting of a run, nor a field of the agent's config."""
    of_agent = [field.name for field in options.fields(type(config))]
    of_run = [o.name for o in OPTIONS]
    own = [name for name in inspect.signature(train).parameters if name not in (*of_run, "fields")]
    known = {*of_agent, *of_run, *own, *grid.fields(config)}
    for name in given:
        if name not in of_agent:
            raise BadInput(
                f"there is no argument {name!r}{did_you_mean(name, known)}. There are {', '.join(own)}; of every run "
                f"{', '.join(of_run)}; of this agent ({type(config).__name__}) {', '.join(of_agent)}"
            )


def _shown(function: Callable[..., Run]) -> inspect.Signature:
    """Its signature with the options in place of `fields`, so that help() and editors show them."""
    *own, rest = inspect.signature(function).parameters.values()
    shown = [
        inspect.Parameter(o.name, inspect.Parameter.KEYWORD_ONLY, default=o.default, annotation=o.type) for o in OPTIONS
    ]
    return inspect.Signature([*own, *shown, rest], return_annotation=Run)


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


def _spanned(settings: Settings, preset: Preset, config: Fed) -> Fed:
    """A preset that anneals over its own run anneals over this one."""
    whole = {"total_steps": preset.total_steps}
    spans = [f.name for f in options.fields(type(config)) if f.bounds and f.bounds.spans in whole]
    of_preset = {name: getattr(preset.config, name) for name in spans}
    same = [name for name, value in of_preset.items() if value == preset.total_steps == getattr(config, name)]
    return override(config, dict.fromkeys(same, settings.total_steps))


def check_spans(config: Fed, settings: Settings) -> None:
    """Raises BadInput when what anneals to 0 would be there before the run ends (`Bounds.spans`)."""
    for field in options.fields(type(config)):
        option = field.bounds.spans if field.bounds else ""
        over = getattr(config, field.name) if option else 0
        if not over:
            continue
        whole = getattr(settings, option)
        if whole is None:
            raise BadInput(
                f"{field.name} = {over:,} needs {option} of at most that (it is {whole}): the rest would be learned at rate 0"
            )
        if over < whole:
            raise BadInput(
                f"{field.name} = {over:,} ends before {option} = {whole:,}: the rest would be learned at rate 0. "
                f"Make {field.name} as long as the run, or 0 for a constant rate"
            )


def _check_recorded(data: Dataset, fields: Mapping[str, object], named: bool) -> None:
    """Raises BadInput for options that do nothing where an agent learns from data."""
    if not isinstance(data, Dataset):
        raise BadInput(f"data is a Dataset (whorl.buffers.datasets), got {type(data).__name__}")
    idle = ["num_envs", "total_episodes", "video_every"] + ([] if named else ["eval_every", "max_episode_steps"])
    if given := [name for name in idle if fields.get(name)]:
        why = "no environment is stepped" if named else "no environment is named"
        raise BadInput(f"{', '.join(given)} does nothing where an agent learns from data and {why}: leave it out")


def _interval(feed: Feed) -> int:
    """Most steps between checkpoints: replay keeps the rows of an interval twice beside those that can be drawn, a few percent."""
    if not feed.replays or not feed.capacity:
        return 2**62
    return max(1, feed.capacity // (100 if feed.storage == "frames" else 20))


def _check_object(agent: str, settings: Settings, feed: Feed) -> None:
    """Raises BadInput for what cannot be done with an environment that is an object."""
    if settings.video_every or settings.max_episode_steps:
        raise BadInput(
            "an environment object cannot be copied or changed: pass an id for video_every and max_episode_steps"
        )
    if feed.own_envs:
        raise BadInput(
            f"the workers of {agent} make environments of their own, so an environment object will not do: pass an id"
        )
    if settings.eval_every:
        raise BadInput("an environment object cannot be copied for evaluation: pass an id, or leave eval_every out")
