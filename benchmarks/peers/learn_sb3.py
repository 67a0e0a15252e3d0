"""Stable-Baselines3 with the common parameters; jax=True: sbx, the same interface over JAX. No callback: `learn` is asked for a few
thousand steps at a time."""

import numpy as np
from report import DQN, SAC, Timed, serve
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger


def ppo(library, env, seed, num_envs=8, num_steps=128):
    model = library.PPO(
        "MlpPolicy", make_vec_env(env, num_envs, seed=seed), seed=seed, device="cpu", n_steps=num_steps,
        batch_size=num_envs * num_steps // 4, n_epochs=4, learning_rate=1e-3, gamma=0.99, gae_lambda=0.95, clip_range=0.2,
        ent_coef=0.01, vf_coef=0.5, max_grad_norm=0.5,
    )  # fmt: skip
    return model, 2 * num_envs * num_steps, 2 * num_envs * num_steps


def dqn(library, env, seed, every=10, batch=128):
    model = library.DQN(
        "MlpPolicy", env, seed=seed, device="cpu", policy_kwargs={"net_arch": [120, 84]}, gamma=0.99, batch_size=batch,
        learning_rate=DQN["learning_rate"], buffer_size=DQN["capacity"], learning_starts=DQN["warmup"], train_freq=every,
        gradient_steps=1, target_update_interval=DQN["target_every"], exploration_initial_eps=DQN["epsilon"],
        exploration_final_eps=DQN["epsilon"],
    )  # fmt: skip
    return model, DQN["warmup"] + 500, 250 if every == 1 else 1_000


def sac(library, env, seed):
    # the rest are both libraries' defaults: 256x256, batch 256, one update a step, tau .005, gamma .99, learned temperature
    model = library.SAC(
        "MlpPolicy", env, seed=seed, device="cpu", learning_rate=SAC["learning_rate"], learning_starts=SAC["warmup"]
    )
    return model, SAC["warmup"] + 50, 25


ALGORITHMS = {"ppo": ppo, "dqn": dqn, "sac": sac}


def run(algorithm, env="CartPole-v1", seconds=1.0, seed=0, jax=False, **sizes):
    if jax:
        import sbx as library
    else:
        import stable_baselines3 as library
    model, warmup, chunk = ALGORITHMS[algorithm](library, env, seed, **sizes)
    model.set_logger(Logger(folder=None, output_formats=[]))  # else it leaves a folder in the temporary directory
    model.learn(warmup)
    timer = Timed(warmup, seconds)
    while not timer(model.num_timesteps):
        model.learn(chunk, reset_num_timesteps=False)
    final = [episode["r"] for episode in model.ep_info_buffer][-20:]
    model.get_env().close()
    return timer.outcome(np.mean(final) if final else None)


if __name__ == "__main__":
    serve(run)
