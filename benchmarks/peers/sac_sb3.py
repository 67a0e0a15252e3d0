"""Stable-Baselines3's SAC with the common parameters; --jax: sbx, the same interface over JAX."""

import numpy as np
from ppo_sb3 import Clock
from report import SAC as SETTINGS
from report import arguments, report, timed
from stable_baselines3.common.logger import Logger


def main():
    o = arguments(__doc__, jax=True)
    if o.jax:
        from sbx import SAC
    else:
        from stable_baselines3 import SAC
    # the rest are both libraries' defaults: 256x256, batch 256, one update a step, tau .005, gamma .99, learned temperature
    model = SAC(
        "MlpPolicy", "Pendulum-v1", seed=o.seed, device="cpu", learning_rate=SETTINGS["learning_rate"],
        learning_starts=SETTINGS["warmup"],
    )  # fmt: skip
    model.set_logger(Logger(folder=None, output_formats=[]))
    timer = timed(warmup=SETTINGS["counted_from"])
    model.learn(SETTINGS["counted_from"] + o.steps, callback=Clock(timer))
    timer(model.num_timesteps)
    report("sbx" if o.jax else "stable-baselines3", timer, np.mean([e["r"] for e in model.ep_info_buffer][-5:]))


if __name__ == "__main__":
    main()
