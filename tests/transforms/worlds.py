"""Small environments of Gymnasium's kind, for transforms that need one of their own."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Choices(gymnasium.Env):
    """Two choices, of 2 and 3; the reward writes them down as 10 a + b. Forbids the first's 1 in every other step by `info`."""

    action_space = spaces.MultiDiscrete([2, 3])
    observation_space = spaces.Box(-9, 99, (1,), np.float32)
    t = 0

    def seen(self):
        return np.full(1, self.t + self.start, np.float32)

    def info(self):
        return {"action_mask": np.array([True, self.t % 2 == 0, True, True, True])}

    def paid(self, action):
        return 10.0 * action[0] + action[1]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.start = 0, self.np_random.integers(5)
        return self.seen(), self.info()

    def step(self, action):
        self.t += 1
        return self.seen(), float(self.paid(action)), False, False, self.info()


class Masked(Choices):
    """Three choices, of which the entry "legal" allows those up to the number of the step; at an end it allows none."""

    action_space = spaces.Discrete(3)
    observation_space = spaces.Dict({"place": spaces.Box(-9, 99, (1,), np.float32), "legal": spaces.MultiBinary(3)})

    def seen(self):
        legal = np.arange(3) <= self.t
        return {"place": super().seen(), "legal": (legal * (self.t < 5)).astype(np.int8)}

    def info(self):
        return {}

    def paid(self, action):
        return float(action)

    def step(self, action):
        seen, reward, _, truncated, info = super().step(action)
        return seen, reward, self.t >= 5, truncated, info


class Lives(Choices):
    """Three lives, one of which is lost every other step; the game is over with the last."""

    action_space = spaces.Discrete(2)

    def info(self):
        return {"lives": 3 - self.t // 2}

    def paid(self, action):
        return 1.0

    def step(self, action):
        seen, reward, _, truncated, info = super().step(action)
        return seen, reward, self.t >= 6, truncated, info
