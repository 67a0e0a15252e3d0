"""Any Gymnasium environment of yours: check it, train in it.

python examples/own_environment.py
"""

import gymnasium
import numpy as np

import whorl
from whorl.envs.adapters.gymnasium import Gymnasium


class Target(gymnasium.Env):
    """Move a point on a line to 0; 20 steps, so the episode is truncated, never terminated."""

    observation_space = gymnasium.spaces.Box(-10, 10, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-3, 3), 0
        return np.array([self.x], np.float32), {}

    def step(self, action):
        self.x, self.t = float(np.clip(self.x + 0.5 * (action - 1), -10, 10)), self.t + 1
        return np.array([self.x], np.float32), -abs(self.x), False, self.t == 20, {}


whorl.check_env(Gymnasium(Target, num_envs=2))  # says in one sentence what to change, if anything
run = whorl.train("ppo", Target, num_envs=4, total_steps=4_000, learning_rate=3e-3, quiet=True)
action = run.agent.policy.actor(1)(np.array([[2.0]], np.float32), None, np.array([True]), None)[0]["action"]
print(f"at +2.0 the agent takes action {action[0]} (0 moves left), run folder {run.path}")
