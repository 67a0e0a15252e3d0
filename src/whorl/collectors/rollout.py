"""Batches without training: rows of an environment, and batches of their form without a step."""

from __future__ import annotations

import torch

from whorl import spaces
from whorl.batch import Batch
from whorl.collectors.record import Recorder
from whorl.collectors.serial import SerialCollector
from whorl.envs.env import Env
from whorl.errors import BadInput
from whorl.policies.policy import Policy
from whorl.spaces import like


def rollout(env: Env, policy: Policy, steps: int, seed: int = 0) -> Batch:
    """`steps` steps of each environment from fresh episodes on, acted by the policy as in training: a batch [steps, N] with the keys that
    its agent would collect. Nothing learns, and no normalizer moves.

    seed: of the environment's episodes and the policy's noise. Raises BadInput for fewer steps than 1, and what the environment raises.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise BadInput(f"a rollout has at least 1 step, got {steps!r}")
    return SerialCollector(env, policy, steps, seed=seed).collect().clone()


def fake_batch(env: Env, policy: Policy, shape: tuple[int, ...]) -> Batch:
    """A batch [*shape] of zeros with the keys and dtypes that `rollout` would give, without a step: to size memory, or to try what reads
    batches.

    The policy acts once, on an observation of zeros. `env` is not touched; one with action masks shows them once it was reset.
    """
    n = env.num_envs
    record = Recorder(env, policy, 1)
    zeros = spaces.tree_map(lambda x: like(x, record.is_first), spaces.zeros(env.observation_space, (n,)))
    noise = policy.noise((1, n), torch.Generator(env.device).manual_seed(0))[0]
    decided, _ = record.actor(zeros, record.carry, record.is_first, like(noise, record.is_first), env.action_mask)
    record.allocate(decided)
    row = record.rollout(1, masked=False)
    fake = row.apply(lambda x: x.new_zeros((*shape, *x.shape[2:])), batch_size=shape)
    assert fake is not None
    return fake
