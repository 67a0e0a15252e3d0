"""Environments that worker processes make: by reference, so this file imports nothing heavy."""

import os
import sys
import time

import gymnasium
import numpy as np


class Unpicklable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = sys.stdout

    def __reduce__(self):
        raise TypeError("no")


ERRORS = {
    "value": ValueError, "key": KeyError, "zero": ZeroDivisionError, "os": OSError, "memory": MemoryError, "stop": StopIteration,
    "assert": AssertionError, "runtime": RuntimeError, "unicode": UnicodeError,
}  # fmt: skip


class Walk(gymnasium.Env):
    """Says seed-drawn numbers; its episode ends after 5 to 9 steps. At step `at` of its third episode it does what `fault` says."""

    observation_space = gymnasium.spaces.Dict(
        {"x": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32), "n": gymnasium.spaces.Discrete(10)}
    )
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, fault="", at=3, row=None):
        self.fault, self.at, self.episodes = fault, at, 0

    def seen(self):
        return {"x": self.np_random.normal(size=2).astype(np.float32), "n": np.int64(self.steps)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.length = 0, int(self.np_random.integers(5, 10))
        self.episodes += 1
        return self.seen(), {}

    def step(self, action):
        self.steps += 1
        if self.fault and self.episodes == 3 and self.steps == self.at:
            self.fail()
        return (
            self.seen(),
            float(action),
            self.steps == self.length and self.length % 2 == 0,
            self.steps == self.length,
            {},
        )

    def fail(self):
        match self.fault:
            case "exit":
                os._exit(7)
            case "hang":
                time.sleep(1000)  # HERE IT HANGS
            case "system":
                raise SystemExit(3)
            case "unpicklable":
                raise Unpicklable("this one does not travel")
            case name:
                raise ERRORS[name]("boom ü")


class Marked(gymnasium.Env):
    """Says [the number of its episode, drawn; its step], pays its step; an episode takes 1 to 39 steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number, self.length = self.np_random.integers(1, 1 << 20), int(self.np_random.integers(1, 40))
        self.steps = 0
        return self.seen(), {}

    def seen(self):
        return np.array([self.number, self.steps], np.float32)

    def step(self, action):
        self.steps += 1
        over = self.steps >= self.length
        return self.seen(), float(self.steps), over and self.length % 2 == 0, over, {}
