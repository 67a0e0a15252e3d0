"""Evaluation: whole episodes, the same number in every environment, greedy, on random streams of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from whorl.buffers.datasets import Dataset
from whorl.envs.env import Env, Kind, check_scalar_reward
from whorl.envs.guard import close, guarded
from whorl.errors import BadInput
from whorl.functional.streams import stream
from whorl.policies.policy import Held, Policy
from whorl.training.same_spaces import check_spaces, noted
from whorl.transforms.transform import flags

LONGEST = 10_000  # steps after which an episode is counted as it stands, where the environment has no time limit


@dataclass(frozen=True)
class Evaluation:
    returns: np.ndarray  # [episodes] raw
    lengths: np.ndarray  # [episodes] steps
    cut: int = 0  # episodes that had not ended after LONGEST steps: a greedy policy can walk in a circle for ever

    def summary(self) -> dict[str, float]:
        r = self.returns
        return {
            "mean": float(r.mean()),
            "std": float(r.std()),
            "min": float(r.min()),
            "max": float(r.max()),
            "episodes": len(r),
        }


def eval_envs(episodes: int, origin: str) -> int:
    """How many environments share `episodes`: a divisor, so that each plays the same number. Native worlds cost nothing."""
    if episodes < 1:
        raise BadInput(f"evaluation needs at least 1 episode, got {episodes}")
    most = 256 if origin == "native" else 10
    return max(n for n in range(1, min(episodes, most) + 1) if episodes % n == 0)


def evaluate_in(
    policy: Policy, known: Env | Dataset, source: Kind | Env, episodes: int, seed: int, limit: int | None = None
) -> Evaluation:
    """`evaluate` in environments that are made for it, of at most `limit` steps, and closed again, or in an object, which stays open.

    known: what the policy was made for. Raises BadInput where the spaces are others than its.
    """
    if isinstance(source, Env):
        check_spaces(noted(known), source)
        return evaluate(policy, source, episodes, seed)
    origin = known.origin if isinstance(known, Env) else "gymnasium"
    env = source.make(eval_envs(episodes, origin), seed, max_episode_steps=limit)
    try:
        look_alike(env, known)
        check_spaces(noted(known), env)
        return evaluate(policy, env, episodes, seed)
    finally:
        close(env)


def look_alike(env: Env, known: Env | Dataset) -> None:
    """Give `env` the running statistics of the one that the policy knows: with others it would see something else."""
    if isinstance(known, Env) and (mine := env.learned()):
        env.load_learned({name: array for name, array in known.learned().items() if name in mine})


def evaluate(policy: Policy, env: Env, episodes: int, seed: int) -> Evaluation:
    """`episodes` whole episodes: episodes / num_envs in each environment, so that short episodes are not favoured.

    Where the environment has no time limit, an episode of LONGEST steps is counted as it stands, `cut` says how many were, and that
    environment plays no more (so there can be fewer episodes than asked for).
    Changes neither the policy nor its normalizers, and no stream of training. Raises BadInput unless num_envs divides episodes, EnvError
    and NotFinite for what breaks the contract of `Env` (see envs/guard.py).
    """
    check_scalar_reward(env)
    n, world = env.num_envs, guarded(env)
    if episodes < 1 or episodes % n:
        raise BadInput(f"{episodes} episodes cannot be shared equally by {n} environments; ask for a multiple of {n}")
    actor, quota = policy.actor(n), episodes // n
    carry: Held = policy.initial(n)
    generator = torch.Generator().manual_seed(stream(seed, "evaluation"))
    observation, is_first = world.reset(stream(seed, "evaluation episodes")), flags(n, env.device, True)
    total, length, left = np.zeros(n), np.zeros(n, np.int64), np.full(n, quota)
    longest, cut = env.max_episode_steps or LONGEST, 0
    returns: list[list[float]] = [[] for _ in range(n)]
    lengths: list[list[int]] = [[] for _ in range(n)]
    while left.any():
        noise = None if policy.greedy else policy.noise((1, n), generator)[0]
        decided, carry = actor(observation, carry, is_first, noise, env.action_mask)
        step = world.step(decided["action"])
        is_first = ended = step.terminated | step.truncated
        valid = np.ones(n, bool)
        if step.valid is not None:
            is_first, valid = ended | ~step.valid, _numpy(step.valid)
        total += _numpy(step.reward if env.raw_reward is None else env.raw_reward) * valid
        length += valid
        ended = _numpy(step.info.get("game_over", ended)) & valid
        over = ended | (length >= longest)
        for i in np.flatnonzero(over & (left > 0)):
            returns[i].append(float(total[i]))
            lengths[i].append(int(length[i]))
            left[i] -= 1
            if not ended[i]:  # what follows is the rest of the same episode: this environment plays no more
                cut, left[i] = cut + 1, 0
        over |= _numpy(step.truncated) & ~valid  # lost: another one begins
        total[over], length[over] = 0, 0
        observation = step.observation
    return Evaluation(np.concatenate(returns), np.concatenate(lengths), cut)


def _numpy(x: np.ndarray | torch.Tensor) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else x.cpu().numpy()
