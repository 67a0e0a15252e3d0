"""Collection with a 64x64 policy on CartPole-v1: a bare loop over Gymnasium's vector environment with a torch policy, and whorl's
collector, in turn. The bare loop stores nothing; whorl's writes whole rollouts.
"""

import json
import statistics
import time

import gymnasium as gym
import torch
from report import arguments
from torch import nn
from torch.distributions import Categorical

from whorl.training.build import build


def bare(num_envs, steps):
    """Steps per second: actor and critic forward, sample and log-probability, step."""
    env = gym.make_vec("CartPole-v1", num_envs, vectorization_mode="vector_entry_point")

    def net(outputs):
        return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))

    actor, critic = net(2), net(1)
    observation, _ = env.reset(seed=0)
    start = time.perf_counter()
    with torch.no_grad():
        for _ in range(steps // num_envs):
            x = torch.as_tensor(observation, dtype=torch.float32)
            distribution, _ = Categorical(logits=actor(x)), critic(x)
            action = distribution.sample()
            distribution.log_prob(action)
            observation, *_ = env.step(action.numpy())
    return steps / (time.perf_counter() - start)


def whorl(num_envs, steps):
    collector = build("ppo", "CartPole-v1", num_envs=num_envs).collector
    collector.collect()
    before, start = collector.steps, time.perf_counter()
    while collector.steps - before < steps:
        collector.collect()
    return (collector.steps - before) / (time.perf_counter() - start)


def main():
    o = arguments(__doc__)
    for num_envs in (8, 64):
        steps = o.steps * (1 if num_envs == 8 else 4)
        pairs = [(bare(num_envs, steps), whorl(num_envs, steps)) for _ in range(5)]
        for name, speeds in zip(("bare gymnasium loop", "whorl"), zip(*pairs, strict=True), strict=True):
            print(
                json.dumps({"name": f"collect, {num_envs} envs: {name}", "steps_per_second": statistics.median(speeds)})
            )
        ratio = statistics.median(ours / theirs for theirs, ours in pairs)
        print(json.dumps({"name": f"collect, {num_envs} envs: ratio", "ratio": ratio}))


if __name__ == "__main__":
    main()
