"""An environment whose observation is a small picture of random pixels, and which draws a larger one."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Screen(gymnasium.Env):
    """Episodes of 3 to 7 steps that end in both ways. `render` gives the observation with each pixel 2 x 2."""

    action_space = Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None, height=12, width=10):
        self.render_mode = render_mode
        self.observation_space = Box(0, 255, (height, width, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(3, 8))
        return self.drawn(), {}

    def drawn(self):
        self.seen = self.np_random.integers(0, 256, self.observation_space.shape, np.uint8)
        return self.seen

    def step(self, action):
        self.left -= 1
        return self.drawn(), 1.0, self.left == 0 and action == 1, self.left == 0 and action == 0, {}

    def render(self):
        return self.seen.repeat(2, 0).repeat(2, 1)
