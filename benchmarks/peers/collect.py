"""Collection with a 64x64 policy on CartPole-v1: a bare loop over Gymnasium's vector environment with a torch policy, which evaluates
actor and critic and stores nothing, and whorl's collector, which evaluates the actor and writes whole rollouts.
"""

from functools import cache

import gymnasium as gym
import torch
from report import Timed, serve
from torch import nn
from torch.distributions import Categorical


def bare(num_envs):
    """Takes 128 steps in each environment."""
    env = gym.make_vec("CartPole-v1", num_envs, vectorization_mode="vector_entry_point")

    def net(outputs):
        return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))

    actor, critic = net(2), net(1)
    observation, _ = env.reset(seed=0)

    @torch.no_grad()
    def collect():
        nonlocal observation
        for _ in range(128):
            x = torch.as_tensor(observation, dtype=torch.float32)
            distribution, _ = Categorical(logits=actor(x)), critic(x)
            action = distribution.sample()
            distribution.log_prob(action)
            observation, *_ = env.step(action.numpy())

    return collect


def whorl(num_envs):
    from whorl.training.build import build

    return build("ppo", "CartPole-v1", num_envs=num_envs).collector.collect  # 128 steps


WHO = {"bare": cache(bare), "whorl": cache(whorl)}


def run(who, num_envs, seconds=1.0, seed=0):
    collect, steps, timer = WHO[who](num_envs), 0, Timed(1, seconds)
    while not timer(steps):
        collect()
        steps += 128 * num_envs
    return timer.outcome()


if __name__ == "__main__":
    serve(run)
