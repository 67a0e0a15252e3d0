"""An agent is a model, a policy and a learning update: torch-twrl's triples, put together by hand.

python examples/triple.py
"""

import torch

import whorl
from whorl.agents.random import Random, RandomConfig
from whorl.agents.reinforce import REINFORCE, REINFORCEConfig
from whorl.agents.td import TD, TDConfig
from whorl.feeds import Rollouts
from whorl.nets.encoder import Encoder
from whorl.nets.linear_q import LinearQ
from whorl.nets.tile_coding import TileCoding
from whorl.policies.greedy import Greedy
from whorl.policies.random import Random as RandomPolicy
from whorl.policies.stochastic import Stochastic
from whorl.training.build import assemble
from whorl.training.evaluate import evaluate
from whorl.training.loops.plain import train


def random(env):
    policy = RandomPolicy(env.action_space)
    return Random(policy, RandomConfig())


def policy_gradient(env):
    model = Encoder(env.observation_space, hidden=(10,), activation="tanh", initialization="uniform")
    policy = Stochastic(model, env.action_space, initialization="uniform")
    config = REINFORCEConfig(learning_rate=0.05, optimizer="rmsprop", smoothing=0.9, baseline="padded_time", discount=1.0,
                             reduction="sum", max_grad_norm=0, clip_value=5, feed=Rollouts(1000, unit="episode"))  # fmt: skip
    return REINFORCE(policy, config=config)


def sarsa_lambda(env):
    model = LinearQ(TileCoding(env.observation_space, tilings=8, tiles=8), env.action_space.n)
    policy = Greedy(model, env.action_space, epsilon=0.0)
    return TD(policy, TDConfig(target="sarsa", trace="replacing", trace_decay=0.9, learning_rate=0.5 / 8))


def learn(agent_of, id, steps):
    env = whorl.make_env(id, num_envs=1, seed=0)
    agent = agent_of(env)
    parts = assemble(agent, env, seed=0)
    train(agent, parts.collector, parts.buffer, total_steps=steps)
    return agent


if __name__ == "__main__":
    torch.manual_seed(0)  # of the initial weights; everything else has streams of its own
    for agent_of, id, steps in (
        (random, "CartPole-v0", 1_000),
        (policy_gradient, "CartPole-v0", 60_000),
        (sarsa_lambda, "MountainCar-v0", 60_000),
    ):
        agent = learn(agent_of, id, steps)
        score = evaluate(agent.policy, whorl.make_env(id, num_envs=20, seed=1), episodes=20, seed=1).summary()
        print(f"{agent_of.__name__} on {id}: return {score['mean']:.1f} over 20 whole episodes after {steps:,} steps")
