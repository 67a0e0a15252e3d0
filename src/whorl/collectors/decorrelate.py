"""Random actions before the first rollout, so that environments which began together are at different places in their episodes."""

from __future__ import annotations

import numpy as np
import torch

from whorl.collectors.ledger import Ledger
from whorl.collectors.record import Recorder
from whorl.functional.streams import stream
from whorl.policies.random import Random
from whorl.spaces import like


def wander(record: Recorder, ledger: Ledger, most: int, seed: int) -> None:
    """Take 0 to `most` random actions in each environment, while the others stand, which nobody records.

    How many and which hang on (seed, row in the whole) alone. Steps are counted; an episode under way has their rewards in its return, one
    that ends in them is in no statistics. Raises Incompatible where the action space has no random action.
    """
    env, here = record.env, record.is_first
    policy, generator = Random(env.action_space).to(env.device), torch.Generator(env.device)
    lengths, numbers = [], []
    for row in range(env.first, env.first + env.num_envs):
        generator.manual_seed(stream(seed, "decorrelate", row))
        lengths.append(torch.randint(most + 1, (1,), generator=generator, device=env.device))
        numbers.append(policy.noise((most, 1), generator))
    length, noise = like(torch.cat(lengths), here), like(torch.cat(numbers, 1), here)
    actor, numpy = policy.actor(env.num_envs), np.zeros(0)
    for t in range(int(length.max())):
        rows = length > t
        decided, _ = actor(record.observation, None, here, noise[t], env.action_mask)
        step = record.world.step(decided["action"], rows)
        record.observation = step.observation
        reward = step.reward if env.raw_reward is None else env.raw_reward
        games, valid = step.info.get("game_over", step.terminated), rows if step.valid is None else step.valid
        counted = (like(x, numpy) for x in (reward, step.terminated, step.truncated, valid, ~valid, games))
        ledger.add_step(*counted)
    ledger.finished, ledger.episodes = 0, []
