"""Stable-Baselines3's PPO on CartPole-v1 until the last 20 training episodes have a mean of 475: python reach_sb3.py SEED. Prints when."""

import json
import sys
import time

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env


class Enough(BaseCallback):
    """Ends training; returns are looked at once a rollout."""

    reached = False

    def _on_rollout_start(self):
        last = [episode["r"] for episode in self.model.ep_info_buffer][-20:]
        if len(last) == 20 and np.mean(last) >= 475 and not self.reached:
            print(json.dumps({"at": time.time()}), flush=True)
            self.reached = True

    def _on_step(self):
        return not self.reached


if __name__ == "__main__":
    seed = int(sys.argv[1])
    model = PPO(
        "MlpPolicy", make_vec_env("CartPole-v1", 8, seed=seed), seed=seed, device="cpu", n_steps=128, batch_size=256, n_epochs=4,
        learning_rate=1e-3, ent_coef=0.01,
    )  # fmt: skip
    model.learn(2_000_000, callback=Enough())
