"""What a run is to be: the preset of the pair with what was asked for in its place, and what cannot be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from whorl import options
from whorl.agents.agent import Agent
from whorl.buffers.datasets import Dataset
from whorl.envs.env import Env
from whorl.envs.make import EnvKind, name_of
from whorl.errors import BadInput
from whorl.feeds import Fed, Feed
from whorl.options import did_you_mean, override
from whorl.presets import Preset
from whorl.training import grid
from whorl.training.catalog import AgentLike, agent_name, check_config, find
from whorl.training.settings import NAMED, Settings, check_one_device
from whorl.training.source import written

OPTIONS = [field for field in dataclasses.fields(Settings) if field.name not in NAMED]


def planned(
    agent: AgentLike,
    env: str,
    fields: Mapping[str, object],
    config: Fed | None = None,
    source: EnvKind | Env | None = None,
    beside: Sequence[str] = (),
) -> tuple[Settings, Fed]:
    """The settings and the agent's config of a run: those of the preset of the pair, with `fields` of either replaced.

    env: the environment's name. source: what it is, where that is not just an id.
    beside: what the caller takes that is no field. None stands for what is not given. Raises BadInput for
    what cannot be.
    """
    source = EnvKind(env) if source is None else source
    asked = {o.name: fields[o.name] for o in OPTIONS if fields.get(o.name) is not None}
    check_one_device(asked.get("device"))
    of_agent = {name: value for name, value in fields.items() if name not in {o.name for o in OPTIONS}}
    preset = find(agent, source.id)
    if config is not None:
        check_config(agent, config)
    _check_names(of_agent, preset.config if config is None else config, beside)
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
        base = dataclasses.replace(base, transforms=written(source))
    settings = override(base, asked)
    options.check(settings)
    config = override(_spanned(settings, preset, preset.config if config is None else config), of_agent)
    options.check(config)
    check_spans(config, settings)
    if isinstance(source, Env):
        _check_object(name, settings, config.feed)
    return settings, config


def _check_names(given: Iterable[str], config: Fed, beside: Sequence[str]) -> None:
    """Raises BadInput for a name that is neither a parameter of `train`, nor a setting of a run, nor a field of the agent's config."""
    of_agent = [field.name for field in options.fields(type(config))]
    of_run = [o.name for o in OPTIONS]
    own = [name for name in beside if name not in (*of_run, "fields")]
    known = {*of_agent, *of_run, *own, *grid.fields(config)}
    for name in given:
        if name not in of_agent:
            raise BadInput(
                f"there is no argument {name!r}{did_you_mean(name, known)}. There are {', '.join(own)}; of every run "
                f"{', '.join(of_run)}; of this agent ({type(config).__name__}) {', '.join(of_agent)}"
            )


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


def check_recorded(data: Dataset, fields: Mapping[str, object], named: bool) -> None:
    """Raises BadInput for options that do nothing where an agent learns from data."""
    if not isinstance(data, Dataset):
        raise BadInput(f"data is a Dataset (whorl.buffers.datasets), got {type(data).__name__}")
    idle = ["num_envs", "total_episodes", "video_every", "collector"] + (
        [] if named else ["eval_every", "max_episode_steps"]
    )
    if given := [name for name in idle if fields.get(name)]:
        why = "no environment is stepped" if named else "no environment is named"
        raise BadInput(f"{', '.join(given)} does nothing where an agent learns from data and {why}: leave it out")


def most_between_checkpoints(feed: Feed) -> int:
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
