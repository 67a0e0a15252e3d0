"""Stable-Baselines3's SAC on MuJoCo, the reference for whorl's: its defaults, and rl-zoo's one change, learning_starts 10,000.

python benchmarks/peers/sac_mujoco_sb3.py --env Hopper-v5 --steps 100000 --seed 0

Every 5,000 steps the deterministic policy plays 10 episodes in an environment of its own; the policy of the best such mean and the
last one are then each scored on the same 20 fresh episodes. Writes results/peers/sac_ENV_seedS.json: scores, curve, versions, command.
"""

import argparse
import io
import json
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from report import machine
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor

EVERY, EPISODES, FRESH = 5_000, 10, 20


def returns(model, name, seed, episodes):
    env = Monitor(gym.make(name))
    env.reset(seed=seed)  # later resets continue from here
    found, _ = evaluate_policy(model, env, episodes, deterministic=True, return_episode_rewards=True)
    env.close()
    return found


class Curve(BaseCallback):
    """Evaluates every EVERY steps and keeps the best policy."""

    def __init__(self, name, seed):
        super().__init__()
        self.name, self.seed, self.points, self.best = name, seed, [], None
        self.evaluation_seconds = 0.0

    def _on_step(self):
        if self.num_timesteps % EVERY == 0:
            start = time.perf_counter()
            found = returns(self.model, self.name, 10_000 + 1_000 * self.seed + self.num_timesteps // EVERY, EPISODES)
            point = {"steps": self.num_timesteps, "mean": float(np.mean(found)), "std": float(np.std(found))}
            if self.best is None or point["mean"] > self.best["mean"]:
                weights = io.BytesIO()
                torch.save(self.model.policy.state_dict(), weights)
                self.best = {**point, "weights": weights.getvalue()}
            self.points.append(point)
            self.evaluation_seconds += time.perf_counter() - start
            print(f"{self.name} seed {self.seed} {self.num_timesteps} steps: {point['mean']:.1f}", flush=True)
        return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Hopper-v5")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "results" / "peers")
    o = parser.parse_args()
    torch.set_num_threads(1)
    model = SAC("MlpPolicy", Monitor(gym.make(o.env)), seed=o.seed, device="cpu", learning_starts=10_000)
    model.set_logger(Logger(folder=None, output_formats=[]))
    curve, start = Curve(o.env, o.seed), time.perf_counter()
    model.learn(o.steps, callback=curve)
    seconds = time.perf_counter() - start
    result = {
        "env": o.env, "seed": o.seed, "steps": o.steps,
        "command": "python benchmarks/peers/sac_mujoco_sb3.py " + " ".join(sys.argv[1:]),
        "settings": "MlpPolicy, defaults (256x256, batch 256, lr 3e-4, tau .005, gamma .99, one update a step), learning_starts 10,000",
        "machine": machine(), "seconds": seconds, "evaluation_seconds": curve.evaluation_seconds,
        "protocol": f"every {EVERY} steps {EPISODES} deterministic episodes; best and final each on {FRESH} fresh deterministic episodes",
    }  # fmt: skip

    def score():
        found = returns(model, o.env, 999_000 + o.seed, FRESH)
        return {"mean": float(np.mean(found)), "std": float(np.std(found)), "returns": [round(r, 2) for r in found]}

    result["final"] = score()
    model.policy.load_state_dict(torch.load(io.BytesIO(curve.best["weights"]), weights_only=True))
    result["best"] = {"steps": curve.best["steps"], "evaluation_mean": curve.best["mean"], **score()}
    result["curve"] = curve.points
    o.out.mkdir(parents=True, exist_ok=True)
    path = o.out / f"sac_{o.env}_seed{o.seed}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{path}: best {result['best']['mean']:.1f}, final {result['final']['mean']:.1f}", flush=True)


if __name__ == "__main__":
    main()
