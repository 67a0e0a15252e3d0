"""Stable-Baselines3's PPO with the common parameters."""

import numpy as np
from report import arguments, report, timed
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger


class Clock(BaseCallback):
    """Starts after the first two rollouts."""

    def __init__(self, timer):
        super().__init__()
        self.timer = timer

    def _on_step(self):
        return True

    def _on_rollout_start(self):
        self.timer(self.num_timesteps)


def main():
    o = arguments(__doc__)
    env = make_vec_env("CartPole-v1", 8, seed=o.seed)
    model = PPO(
        "MlpPolicy", env, seed=o.seed, device="cpu", n_steps=128, batch_size=256, n_epochs=4, learning_rate=1e-3, gamma=0.99,
        gae_lambda=0.95, clip_range=0.2, ent_coef=0.01, vf_coef=0.5, max_grad_norm=0.5,
    )  # fmt: skip
    model.set_logger(Logger(folder=None, output_formats=[]))  # else it leaves a folder in the temporary directory
    timer = timed(warmup=2048)
    model.learn(o.steps + 2048, callback=Clock(timer))
    timer(model.num_timesteps)
    report("stable-baselines3", timer, np.mean([e["r"] for e in model.ep_info_buffer][-50:]))


if __name__ == "__main__":
    main()
