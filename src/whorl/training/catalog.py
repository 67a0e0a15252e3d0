"""The names: which agents and presets there are, and the near matches of a wrong one. Imports no agent until it is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING

from whorl.envs.adapters.gym_client import environment_behind
from whorl.errors import BadInput
from whorl.presets import Preset

if TYPE_CHECKING:
    from whorl.agents.agent import Agent

FILES = {"a3c": "a2c"}  # of agents whose file has not their name
AGENTS = {  # name -> (class, what it is). The file has the name of the agent
    "random": ("Random", "uniform actions, learns nothing"),
    "reinforce": ("REINFORCE", "whole-episode policy gradient with a baseline (Williams 1992)"),
    "a2c": ("A2C", "advantage actor-critic, synchronous (Mnih et al. 2016)"),
    "a3c": ("A2C", "advantage actor-critic, asynchronous workers on shared weights (Mnih et al. 2016)"),
    "td": ("TD", "TD(lambda): sarsa, Q-learning, true online, prediction; tables and tile coding (Sutton 1988)"),
    "ppo": ("PPO", "clipped surrogate, epochs of minibatches (Schulman et al. 2017)"),
    "dqn": ("DQN", "deep Q-learning; double, dueling (Mnih et al. 2015)"),
    "c51": ("C51", "DQN on a categorical distribution of the return (Bellemare et al. 2017)"),
    "qr_dqn": ("QRDQN", "DQN on quantiles of the return (Dabney et al. 2018a)"),
    "iqn": ("IQN", "DQN on any quantile of the return (Dabney et al. 2018b)"),
    "rainbow": ("Rainbow", "C51, double, dueling, noisy nets, prioritized replay, n-step (Hessel et al. 2018)"),
    "ddpg": ("DDPG", "deterministic policy gradient from replay (Lillicrap et al. 2016)"),
    "td3": ("TD3", "DDPG with twin critics, delayed actor, smoothed targets (Fujimoto et al. 2018)"),
    "sac": ("SAC", "soft actor-critic with a learned temperature; gSDE (Haarnoja et al. 2018)"),
    "discrete_sac": (
        "DiscreteSAC",
        "soft actor-critic with exact expectations over discrete actions (Christodoulou 2019)",
    ),
    "redq": ("REDQ", "SAC with ten critics and many updates a step (Chen et al. 2021)"),
    "crossq": ("CrossQ", "SAC without target networks, with batch renormalization (Bhatt et al. 2024)"),
    "tqc": ("TQC", "SAC with truncated quantile critics (Kuznetsov et al. 2020)"),
    "trpo": ("TRPO", "natural gradient inside a KL limit, with line search (Schulman et al. 2015)"),
    "cem": (
        "CEM",
        "cross-entropy method: fit a normal over parameters to the best of a population (Szita and Lorincz 2006)",
    ),
}


def agent_class(name: str) -> type[Agent]:
    """The class of an agent's name. Raises BadInput with near matches."""
    if name not in AGENTS:
        raise BadInput(f"unknown agent {name!r}{did_you_mean(name, AGENTS)}. Agents: {', '.join(AGENTS)}")
    return getattr(import_module(f"whorl.agents.{FILES.get(name, name)}"), AGENTS[name][0])


def presets(agent: str) -> dict[str, Preset]:
    """Environment id -> preset, of one agent: `PRESETS` of the file of its name. The random agent needs none."""
    return import_module(f"whorl.presets.{agent}").PRESETS if agent in AGENTS and agent != "random" else {}


def find(agent: str, env_id: str) -> Preset:
    """The preset of this pair (of a URL: of the environment behind it), or the agent's defaults. Raises BadInput for an
    unknown agent."""
    return presets(agent).get(environment_behind(env_id)) or Preset(agent_class(agent).Config())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'ppo'?` or nothing."""
    near = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
