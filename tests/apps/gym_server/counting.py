"""An environment whose episodes are known, playing it, reading what its monitor wrote, and files as a monitor writes them."""

from __future__ import annotations

import json

import gymnasium
import numpy as np
from gymnasium import spaces


class Counting(gymnasium.Env):
    """Ends after the steps that the list says; the reward is the number of the step; draws the step as a colour."""

    observation_space, action_space = spaces.Discrete(100), spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}

    def __init__(self, lengths, render_mode="rgb_array", rewards=None):
        self.lengths, self.render_mode, self.rewards, self.closed = iter(lengths), render_mode, rewards, False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.length = 0, next(self.lengths)
        return 0, {}

    def step(self, action):
        self.at += 1
        reward = self.rewards(self.at) if self.rewards else float(self.at)
        return self.at, reward, self.at >= self.length, False, {}

    def render(self):
        return np.full((16, 24, 3), self.at, np.uint8)

    def close(self):
        self.closed = True


def play(env, episodes):
    """Whole episodes; returns the last observation."""
    for _ in range(episodes):
        env.reset()
        ended = False
        while not ended:
            observation, _, terminated, truncated, _ = env.step(0)
            ended = terminated or truncated
    return observation


def files(directory, part=""):
    return sorted(path.name for path in directory.iterdir() if part in path.name)


def load_results(directory):
    """What OpenAI Gym's `load_results` reads: the manifests, the statistics they name, the videos they name."""
    manifests = [json.loads((directory / name).read_text()) for name in files(directory, "openaigym.manifest")]
    stats = [json.loads((directory / manifest["stats"]).read_text()) for manifest in manifests]
    return manifests, stats


def recording(directory, rewards, ends=None, env_id="CartPole-v1", threshold=475.0, infix="0.1", **changes):
    """Monitor files with these returns, as another program could have written them."""
    directory.mkdir(exist_ok=True)
    table = f"openaigym.episode_batch.{infix}.stats.json"
    stats = {"initial_reset_timestamp": 0.0, "timestamps": list(range(1, len(rewards) + 1)), "episode_rewards": rewards}
    stats |= {"episode_lengths": [1] * len(rewards), "episode_types": ["t"] * len(rewards)}
    stats |= {"episode_ends": ends} if ends else {}
    info = {"gym_version": "0.7.4", "env_id": env_id, "reward_threshold": threshold}
    manifest = {"stats": table, "videos": [], "env_info": info}
    for key, value in changes.items():
        (stats if key in stats else info if key in info else manifest)[key] = value
    (directory / table).write_text(json.dumps(stats))
    (directory / f"openaigym.manifest.{infix}.manifest.json").write_text(json.dumps(manifest))
    return directory
