"""Training as a loop of your own: env -> collector -> rollout -> buffer -> agent, with nothing hidden.

python examples/loop_by_hand.py
"""

import whorl
from whorl.agents.ppo import PPO, PPOConfig
from whorl.buffers.rollout import RolloutBuffer
from whorl.collectors.serial import SerialCollector
from whorl.feeds import Rollouts
from whorl.training.evaluate import evaluate

config = PPOConfig(learning_rate=1e-3, entropy_weight=0.01, feed=Rollouts(steps=128, epochs=4, minibatches=4))
env = whorl.make_env("CartPole-v1", num_envs=8, seed=0)
agent = PPO.build(env.observation_space, env.action_space, config)
collector = SerialCollector(env, agent.policy, steps=config.feed.steps, seed=0)
buffer = RolloutBuffer(config.feed, seed=0)

for rollout in collector:  # env -> collector -> rollout [T, N]
    buffer.add(agent.prepare(rollout))  # returns, advantages -> buffer
    metrics = agent.learn(buffer)  # buffer -> loss -> optimizer
    collector.sync(agent.policy)  # -> policy
    if collector.episodes:
        returns = [episode.ret for episode in collector.episodes]
        print(f"{collector.steps:6d} steps, return {sum(returns) / len(returns):6.1f}, kl {metrics['approx_kl']:.4f}")
    if collector.steps >= 30_000:
        break

score = evaluate(agent.policy, whorl.make_env("CartPole-v1", num_envs=20, seed=1), episodes=20, seed=1).summary()
print(f"greedy return over 20 whole episodes: {score['mean']:.1f}")
