"""A new agent for an environment or for data: fresh weights, or one that is built."""

from __future__ import annotations

from functools import partial
from inspect import signature

import torch

from whorl.agents.agent import Agent
from whorl.buffers.datasets import Dataset
from whorl.envs.env import Env
from whorl.errors import AgentError, BadInput, Incompatible
from whorl.feeds import Fed
from whorl.functional.streams import stream
from whorl.nets.encoder import EncoderFactory, Torso, check_sized, torso
from whorl.policies.policy import Policy
from whorl.training import sizes
from whorl.training.catalog import AgentLike, agent_class, agent_name
from whorl.training.finished import fitting


def new_agent(
    agent: AgentLike, source: Env | Dataset, config: Fed, seed: int, encoder: EncoderFactory | None = None
) -> Agent:
    """Fresh weights from the initialisation stream, for the spaces of an environment or of data; the global torch stream is left as
    it was. An agent that is built is taken as it is; raises BadInput where it acts on other spaces or another config is asked for."""
    if isinstance(agent, Agent):
        check_sized(agent.parameters())
        learner = fitting(agent, source, config, encoder)
    else:
        sizes.check_networks(config, source.observation_space, source.action_space)
        with torch.random.fork_rng():
            torch.manual_seed(stream(seed, "initialisation"))
            learner = _build(agent_class(agent), source, config, encoder)
        if not isinstance(learner, Agent):
            raise AgentError(f"{agent_name(agent)}: build must return the agent, got {type(learner).__name__}")
        if not isinstance(learner.policy, Policy):
            raise AgentError(
                f"{agent_name(agent)}: the policy of an agent is a whorl Policy, got {type(learner.policy).__name__}"
            )
        check_sized(learner.parameters())
    learner.seed = seed
    return learner


def _build(cls: type[Agent], source: Env | Dataset, config: Fed, encoder: EncoderFactory | None) -> Agent:
    """An agent of the user's may have no place for an encoder."""
    if encoder is None:
        return cls.build(source.observation_space, source.action_space, config)
    if "encoder" not in signature(cls.build).parameters:
        raise Incompatible(f"{cls.__name__} takes no encoder: leave it out, or give its `build` a place for one")
    learner = cls.build(source.observation_space, source.action_space, config, encoder=partial(torso, encoder))
    networks = [part.module for part in learner.modules() if isinstance(part, Torso)]
    if len(set(map(id, networks))) < len(networks):
        raise BadInput(
            f"the encoder gives one {type(networks[0]).__name__} twice: policy and critic need new ones at each call"
        )
    return learner
