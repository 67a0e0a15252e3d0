"""Stable-Baselines3's PPO as its README has it, for as long as benchmarks/start.py trains."""

import sys

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

env = make_vec_env("CartPole-v1", 8, seed=0)
model = PPO("MlpPolicy", env, seed=0, device="cpu", n_steps=128, batch_size=256, n_epochs=4)
model.learn(int(sys.argv[1]))
