"""Stable-Baselines3's DQN with the common parameters."""

import numpy as np
from ppo_sb3 import Clock
from report import DQN as SETTINGS
from report import arguments, report, timed
from stable_baselines3 import DQN
from stable_baselines3.common.logger import Logger


def main():
    o = arguments(__doc__, every=10, batch=128)
    total = SETTINGS["counted_from"] + o.steps
    model = DQN(
        "MlpPolicy", "CartPole-v1", seed=o.seed, device="cpu", policy_kwargs={"net_arch": [120, 84]}, gamma=0.99,
        learning_rate=SETTINGS["learning_rate"], buffer_size=SETTINGS["capacity"], learning_starts=SETTINGS["warmup"],
        batch_size=o.batch, train_freq=o.every, gradient_steps=1, target_update_interval=SETTINGS["target_every"],
        exploration_fraction=SETTINGS["epsilon_steps"] / total, exploration_final_eps=SETTINGS["epsilon"],
    )  # fmt: skip
    model.set_logger(Logger(folder=None, output_formats=[]))
    timer = timed(warmup=SETTINGS["counted_from"])
    model.learn(total, callback=Clock(timer))
    timer(model.num_timesteps)
    report("stable-baselines3", timer, np.mean([e["r"] for e in model.ep_info_buffer][-50:]))


if __name__ == "__main__":
    main()
