"""What a run folder gives back: its settings and its trained policy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box

from whorl import files
from whorl.envs.env import Env
from whorl.envs.make import as_env
from whorl.errors import BadInput
from whorl.spaces import leaves, zeros
from whorl.training import checkpoint, folder
from whorl.training.build import environment, new_agent
from whorl.training.catalog import agent_class
from whorl.training.config import from_json
from whorl.training.evaluate import Evaluation, eval_envs, evaluate


@dataclasses.dataclass(frozen=True)
class Settings:
    """What makes a run, beside the agent's own config. Steps are environment steps of all environments together."""

    agent: str
    env: str
    own_env: bool  # trained on an environment object, which only its owner can make again
    seed: int
    num_envs: int
    total_steps: int
    device: str
    compile: bool
    threads: int  # of torch: part of the run, because sums in another order give other bits
    eval_every: int  # 0 = never
    eval_episodes: int
    checkpoint_every: int  # 0 = never
    log_every: int
    total_episodes: int | None = None  # stop after so many, too
    max_episode_steps: int | None = None  # a time limit shorter than the environment's own
    window: int = 100  # episodes that the sliding statistics are over
    video_every: int = 0  # episodes between two videos of the policy; 0 = none


class Trained:
    """A trained policy from a run folder, ready to act."""

    def __init__(self, path: Path, settings: Settings, config: Any, which: str | int, env: Env | None = None):
        self.path, self.settings = path, settings
        self.env = env if env is not None else environment(needs_no_object(path, settings), 1, settings.seed)
        self.policy = new_agent(settings.agent, self.env, config, settings.seed).policy.eval()
        tensors, self.state = checkpoint.load(checkpoint.find(path / "checkpoints", which))
        self.policy.load_state_dict(tensors["policy"])

    def predict(self, observation: Any, action_mask: Any = None) -> np.ndarray:
        """The greedy action for one observation, or one action each for a batch of them [N, ...]; inside the bounds of a Box.

        Observation and action are those of `self.env.observation_space` and `action_space`: discrete ones count from 0, a Tuple is a
        Dict with keys "0", "1", ... action_mask: allowed actions, [A] or [N, A].
        Raises BadInput for a policy without a greedy action (random).
        """
        if not self.policy.greedy:
            raise BadInput(f"{self.settings.agent} has no greedy action to predict")
        example = zeros(self.env.observation_space, ())
        single = np.ndim(leaves(observation)[0]) == leaves(example)[0].ndim
        batch = _like(example, observation, single)
        n = len(leaves(batch)[0])
        with torch.inference_mode():
            mask = None if action_mask is None else torch.as_tensor(np.asarray(action_mask, bool)).reshape(n, -1)
            decided, _ = self.policy.act(batch, self.policy.initial(n), torch.ones(n, dtype=torch.bool), None, mask)
        action = decided["action"].numpy()
        if isinstance(self.env.action_space, Box):
            action = action.clip(self.env.action_space.low, self.env.action_space.high)
        return action[0] if single else action

    def evaluate(self, episodes: int = 100, seed: int = 1_000_000) -> Evaluation:
        """Greedily, over whole episodes of the environment it was trained in."""
        needs_no_object(self.path, self.settings)
        n, limit = eval_envs(episodes, self.env.origin), self.settings.max_episode_steps
        env = environment(self.settings.env, n, seed, max_episode_steps=limit)
        try:
            return evaluate(self.policy, env, episodes, seed)
        finally:
            env.close()


def _like(example: Any, observation: Any, single: bool) -> Any:
    """The observation as tensors with the dtypes of `example`, with a batch axis in front if it is a single one."""
    if isinstance(example, dict):
        return {key: _like(inner, observation[key], single) for key, inner in example.items()}
    x = torch.as_tensor(np.asarray(observation), dtype=example.dtype)
    return x[None] if single else x


def load(path: str | Path, which: str | int = "best", env: Any = None) -> Trained:
    """The policy of a run: `best` (by evaluation during training; the last where there was none), `last`, or a step.

    env: only for a run that was trained on an environment object; gives the spaces.
    Raises BadInput when `path` is not a run or has no such checkpoint, Damaged when the checkpoint is not what was written.
    """
    path = folder.open_run(path)
    if which == "best" and not (path / "checkpoints" / "best").exists():
        which = "last"
    return Trained(path, *read_settings(path), which, None if env is None else as_env(env, 1))


def needs_no_object(path: Path, settings: Settings) -> str:
    """The environment's id. Raises BadInput when the run was trained on an object."""
    if settings.own_env:
        raise BadInput(
            f"{path} was trained on an environment object ({settings.env}): pass one, whorl.load(path, env=...) or resume"
        )
    return settings.env


def read_settings(path: Path) -> tuple[Settings, Any]:
    """The settings and the agent's config that a run was started with."""
    data = files.read_json(path / "config.json")
    config = data.pop("config")
    return Settings(**data), from_json(agent_class(data["agent"]).Config, config)
