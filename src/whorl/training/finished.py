"""An agent that comes built: it is taken as it is, once it is known to fit."""

from __future__ import annotations

import torch

from whorl import spaces
from whorl.agents.agent import Agent
from whorl.buffers.datasets import Dataset
from whorl.envs.env import Env
from whorl.errors import BadInput
from whorl.feeds import Fed
from whorl.nets.encoder import EncoderFactory


def fitting(agent: Agent, source: Env | Dataset, config: Fed, encoder: EncoderFactory | None) -> Agent:
    """Itself, once it has acted on an observation of zeros. Raises BadInput where it acts in other spaces, for another config, and for an
    encoder."""
    if encoder is not None:
        raise BadInput("an agent that is built has its networks: leave encoder out, or pass its class")
    if config != agent.config:
        raise BadInput("an agent that is built keeps its own config: build it with the one you want, or pass its class")
    device, policy = agent.env_steps.device, agent.policy
    seen = spaces.tree_map(lambda x: x.to(device), spaces.zeros(source.observation_space, (1,)))
    noise, first = policy.noise((1, 1), torch.Generator(device))[0], torch.ones(1, dtype=torch.bool, device=device)
    expected = [x.shape for x in spaces.leaves(spaces.zeros(source.action_space, (1,)))]
    try:
        with torch.inference_mode():
            action = policy.act(seen, policy.initial(1), first, noise)[0]["action"]
        shapes = [x.shape for x in spaces.leaves(action)]
        if shapes != expected:
            raise ValueError(f"its actions have the shapes {[list(s[1:]) for s in shapes]}")
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadInput(
            f"the agent that was passed does not fit observations {spaces.describe(source.observation_space)} and actions "
            f"{spaces.describe(source.action_space)}: {str(error).splitlines()[0]}"
        ) from error
    return agent
