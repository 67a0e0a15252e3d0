"""The names: which agents and presets there are, and their configs as JSON. Imports no agent until it is asked for."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from whorl.envs.ids import environment_behind
from whorl.errors import BadInput, Damaged
from whorl.feeds import FEEDS, Fed
from whorl.options import did_you_mean, override, to_json
from whorl.presets import Preset

if TYPE_CHECKING:
    from whorl.agents.agent import Agent
    from whorl.batch import Numbers


class Listed(NamedTuple):
    cls: str
    about: str
    file: str = ""  # where the class is, if not in the file of the agent's name


AGENTS = {
    "random": Listed("Random", "uniform actions, learns nothing"),
    "reinforce": Listed("REINFORCE", "whole-episode policy gradient with a baseline (Williams 1992)"),
    "a2c": Listed("A2C", "advantage actor-critic, synchronous (Mnih et al. 2016)"),
    "a3c": Listed("A2C", "advantage actor-critic, asynchronous workers on shared weights (Mnih et al. 2016)", "a2c"),
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


def agent_class(name: str) -> type[Agent]:
    """The class of an agent's name. Raises BadInput with near matches."""
    if not isinstance(name, str):
        raise BadInput(
            f"an agent is named, as one of {', '.join(AGENTS)}; a class of yours has to be listed in AGENTS first"
        )
    if name not in AGENTS:
        raise BadInput(f"unknown agent {name!r}{did_you_mean(name, AGENTS)}. Agents: {', '.join(AGENTS)}")
    listed = AGENTS[name]
    return getattr(import_module(f"whorl.agents.{listed.file or name}"), listed.cls)


def default_config(name: str) -> Fed:
    """The config of an agent for which nothing was tuned: `DEFAULT` of its presets' file, else what its class has."""
    cls = agent_class(name)
    return getattr(_tuned(name), "DEFAULT", None) or cls.Config()


def presets(agent: str) -> dict[str, Preset]:
    """Environment id -> preset, of one agent: `PRESETS` of the file of its name. The random agent needs none."""
    return getattr(_tuned(agent), "PRESETS", {})


def _tuned(agent: str) -> ModuleType | None:
    return import_module(f"whorl.presets.{agent}") if agent in AGENTS and agent != "random" else None


def find(agent: str, env_id: str) -> Preset:
    """The preset of this pair (of a URL: of the environment behind it), or the agent's defaults. Raises BadInput for an
    unknown agent."""
    return presets(agent).get(environment_behind(env_id)) or Preset(default_config(agent))


def config_to_json(agent: str, config: Fed) -> Numbers:
    """A config as plain data. A feed of another kind than the agent's default says which, as `feed.kind`."""
    data = to_json(config)
    feed = type(config.feed)
    if feed is not type(default_config(agent).feed):  # of one that is none of whorl's, for people to read
        kind = feed.__name__ if FEEDS.get(feed.__name__) is feed else f"{feed.__module__}:{feed.__qualname__}"
        data["feed"] = {"kind": kind} | data["feed"]
    return data


def config_from_json(agent: str, data: Numbers) -> Fed:
    """The inverse. Raises BadInput for a field that there is not, Damaged for a feed that is none of whorl's."""
    config, feed = default_config(agent), data.get("feed", {})
    if not isinstance(feed, dict):
        raise Damaged(f"the config of {agent} has a feed that is no table but {str(feed)[:100]!r}")
    feed = dict(feed)
    kind = feed.pop("kind", None)
    if kind is not None:
        if kind not in FEEDS:
            raise Damaged(
                f"the config of {agent} has a feed of the kind {str(kind)[:100]!r}, expected one of {', '.join(FEEDS)}; "
                "a run with a feed of your own is loaded with config=..."
            )
        config = override(config, {"feed": FEEDS[kind]()})
    return override(config, {**data, "feed": feed})
