"""The names: which agents and presets there are, and their configs as JSON. Imports no agent until it is asked for.

Where a name goes, a class or a finished agent goes, too (`AgentLike`). Agents from outside come by `register_agent`, or by the group
`whorl.agents` of an installed package's entry points, which are looked at where a name is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from whorl.envs.adapters import library
from whorl.envs.ids import environment_behind
from whorl.errors import BadInput, Damaged
from whorl.feeds import FEEDS, Fed, check_fed
from whorl.options import did_you_mean, override, to_json
from whorl.presets import Preset

if TYPE_CHECKING:
    from whorl.agents.agent import Agent
    from whorl.batch import Numbers

AgentLike: TypeAlias = "str | type[Agent] | Agent"  # a name, a class, or an agent that is built


class Listed(NamedTuple):
    cls: str
    about: str
    file: str = ""  # where the class is, if not in the file of the agent's name
    # of an agent from outside: what gives its class, and its presets
    load: Callable[[], type[Agent]] | None = None
    presets: Mapping[str, Preset] = {}


AGENTS = {
    "random": Listed("Random", "uniform actions, learns nothing"),
    "reinforce": Listed("REINFORCE", "whole-episode policy gradient with a baseline (Williams 1992)"),
    "a2c": Listed("A2C", "advantage actor-critic, synchronous (Mnih et al. 2016)"),
    "a3c": Listed("A2C", "advantage actor-critic, asynchronous workers on shared weights (Mnih et al. 2016)", "a2c"),
    "impala": Listed("Impala", "V-trace: actor-critic on rollouts of an older policy (Espeholt et al. 2018)"),
    "td": Listed("TD", "TD(lambda): sarsa, Q-learning, true online, prediction; tables and tile coding (Sutton 1988)"),
    "ppo": Listed("PPO", "clipped surrogate, epochs of minibatches (Schulman et al. 2017)"),
    "dqn": Listed("DQN", "deep Q-learning; double, dueling (Mnih et al. 2015)"),
    "c51": Listed("C51", "DQN on a categorical distribution of the return (Bellemare et al. 2017)"),
    "qr_dqn": Listed("QRDQN", "DQN on quantiles of the return (Dabney et al. 2018a)"),
    "iqn": Listed("IQN", "DQN on any quantile of the return (Dabney et al. 2018b)"),
    "rainbow": Listed("Rainbow", "C51, double, dueling, noisy nets, prioritized replay, n-step (Hessel et al. 2018)"),
    "ddpg": Listed("DDPG", "deterministic policy gradient from replay (Lillicrap et al. 2016)"),
    "td3": Listed("TD3", "DDPG with twin critics, delayed actor, smoothed targets (Fujimoto et al. 2018)"),
    "sac": Listed("SAC", "soft actor-critic with a learned temperature; gSDE (Haarnoja et al. 2018)"),
    "discrete_sac": Listed(
        "DiscreteSAC", "soft actor-critic with exact expectations over discrete actions (Christodoulou 2019)"
    ),
    "redq": Listed("REDQ", "SAC with ten critics and many updates a step (Chen et al. 2021)"),
    "crossq": Listed("CrossQ", "SAC without target networks, with batch renormalization (Bhatt et al. 2024)"),
    "tqc": Listed("TQC", "SAC with truncated quantile critics (Kuznetsov et al. 2020)"),
    "trpo": Listed("TRPO", "natural gradient inside a KL limit, with line search (Schulman et al. 2015)"),
    "cem": Listed(
        "CEM", "cross-entropy method: fit a normal over parameters to the best of a population (Szita and Lorincz 2006)"
    ),
}


def register_agent(name: str, cls: type[Agent], presets: Mapping[str, Preset] = {}) -> None:
    """Give an agent of yours a name, wherever names go. presets: environment id -> `whorl.presets.Preset`.

    Raises BadInput for a name that another agent has, and for what is no agent class.
    """
    agent_class(cls)
    if name in AGENTS and not (AGENTS[name].load and AGENTS[name].cls == cls.__qualname__):
        raise BadInput(f"there is an agent {name!r} already: register yours under another name")
    about = (cls.__doc__ or "").strip().partition("\n")[0]
    AGENTS[name] = Listed(cls.__qualname__, about, load=lambda: cls, presets=presets)


def known_agents() -> dict[str, Listed]:
    """The table, with what installed packages bring; none of them is imported."""
    for entry in entry_points(group="whorl.agents"):
        cls = entry.attr.rpartition(".")[2]
        about = f"{entry.value}, from {entry.dist.name if entry.dist else 'an installed package'}"
        AGENTS.setdefault(entry.name, Listed(cls, about, load=entry.load))
    return AGENTS


def agent_class(agent: AgentLike) -> type[Agent]:
    """The class of an agent. Raises BadInput for an unknown name, with near matches, and for what is no agent."""
    if isinstance(agent, str):
        cls = _named_class(agent)
    else:
        cls = agent if isinstance(agent, type) else type(agent)
    from whorl.agents.agent import Agent

    if not issubclass(cls, Agent):
        raise BadInput(
            f"an agent is a name (whorl list agents), a class of whorl.Agent, or one that is built; got {cls.__name__}"
        )
    config = getattr(cls, "Config", None)
    if not (isinstance(config, type) and is_dataclass(config)):
        raise BadInput(
            f"{cls.__name__} names no Config: it wants a frozen dataclass of its settings, with a feed; got {config!r}"
        )
    return cls


def _named_class(name: str) -> type[Agent]:
    if name not in AGENTS and name not in known_agents():
        if ":" in name:
            raise BadInput(
                f"{name} is an agent of your own, and a name imports nothing: pass the class, agent={re.split('[:.]', name)[-1]}"
            )
        raise BadInput(
            f"unknown agent {name!r}{did_you_mean(name, AGENTS)}. Agents: {', '.join(AGENTS)}. One of yours is passed as its class, "
            "or registered (whorl.register_agent) in a module that --import names"
        )
    listed = AGENTS[name]
    if listed.load is None:
        return getattr(import_module(f"whorl.agents.{listed.file or name}"), listed.cls)
    try:
        return listed.load()
    except (ImportError, AttributeError) as error:
        raise BadInput(f"the agent {name!r} ({listed.about}) cannot be imported: {error}") from error


def agent_name(agent: AgentLike) -> str:
    """Its name; of one that has none "module:Class", for people to read: nothing here imports it."""
    if isinstance(agent, str):
        return agent
    cls = agent_class(agent)
    same = (name for name, listed in AGENTS.items() if listed.cls == cls.__qualname__ and agent_class(name) is cls)
    return next(same, f"{cls.__module__}:{cls.__qualname__}")


def default_config(agent: AgentLike) -> Fed:
    """The config of an agent for which nothing was tuned: `DEFAULT` of its presets' file, else what its class has."""
    cls = agent_class(agent)
    if tuned := getattr(_tuned(agent_name(agent)), "DEFAULT", None):
        return tuned
    if missing := [
        f.name for f in fields(cls.Config) if f.init and f.default is MISSING and f.default_factory is MISSING
    ]:
        raise BadInput(f"{cls.Config.__name__} needs a default for every field: {', '.join(missing)} have none")
    config = cls.Config()
    check_fed(config)
    return config


def presets(agent: AgentLike) -> Mapping[str, Preset]:
    """Environment id -> preset, of one agent: `PRESETS` of the file of its name, or what it was registered with."""
    name = agent_name(agent)
    return getattr(_tuned(name), "PRESETS", None) or (AGENTS[name].presets if name in AGENTS else {})


def _tuned(name: str) -> ModuleType | None:
    """The file of presets; the random agent needs none, and agents from outside have none here."""
    inside = name in AGENTS and AGENTS[name].load is None and name != "random"
    return import_module(f"whorl.presets.{name}") if inside else None


def find(agent: AgentLike, env_id: str) -> Preset:
    """The preset of this pair (of a URL: of the environment behind it), or the agent's defaults; an agent that is built has its own
    config. Raises BadInput for an unknown agent."""
    preset = presets(agent).get(environment_behind(env_id))
    preset = preset or Preset(default_config(agent), transforms=library(env_id).learning)
    return preset if isinstance(agent, str | type) else replace(preset, config=agent.config)


def check_config(agent: AgentLike, config: Fed) -> None:
    """Raises BadInput for what is no config of this agent."""
    kind = agent_class(agent).Config
    if not isinstance(config, kind):
        raise BadInput(
            f"{agent_name(agent)} takes a {kind.__name__} as its config, got {type(config).__name__}: "
            f"config={kind.__name__}(...), or its fields as arguments of their own"
        )


def config_to_json(agent: AgentLike, config: Fed) -> Numbers:
    """A config as plain data. A feed of another kind than the agent's default says which, as `feed.kind`."""
    data = to_json(config)
    feed = type(config.feed)
    if feed is not type(default_config(agent).feed):  # of one that is none of whorl's, for people to read
        kind = feed.__name__ if FEEDS.get(feed.__name__) is feed else f"{feed.__module__}:{feed.__qualname__}"
        data["feed"] = {"kind": kind} | data["feed"]
    return data


def config_from_json(agent: AgentLike, data: Mapping[str, object]) -> Fed:
    """The inverse. Raises BadInput for a field that there is not, Damaged for a feed that is none of whorl's."""
    config, feed = default_config(agent), data.get("feed", {})
    if not isinstance(feed, dict):
        raise Damaged(f"the config of {agent_name(agent)} has a feed that is no table but {str(feed)[:100]!r}")
    feed = dict(feed)
    kind = feed.pop("kind", None)
    if kind is not None:
        if kind not in FEEDS:
            raise Damaged(
                f"the config of {agent_name(agent)} has a feed of the kind {str(kind)[:100]!r}, expected one of {', '.join(FEEDS)}; "
                "a run with a feed of your own is loaded with config=..."
            )
        config = override(config, {"feed": FEEDS[kind]()})
    return override(config, {**data, "feed": feed})
