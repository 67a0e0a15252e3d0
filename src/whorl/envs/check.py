"""`check_env`: does an environment keep the contract of `Env`? Says in one sentence what to change."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium
import numpy as np

from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.check_calls import Calls, as_numpy, copied, equal
from whorl.envs.check_partial import check_partial
from whorl.envs.check_spaces import leaves
from whorl.envs.env import Env

logger = logging.getLogger("whorl")


def check_env(env: Env | gymnasium.Env | gymnasium.vector.VectorEnv, steps: int = 200, seed: int = 0) -> None:
    """Step `env` with random allowed actions and raise EnvError at the first breach of the contract; a Gymnasium object
    is wrapped first. Leaves `env` open, in the middle of an episode.

    Checked: spaces; shapes, dtypes, N rows, finite numbers, observations inside their space; flags; `next_observation`
    (the same object when none ended, else the true successor in memory of its own); invented steps; arrays that last
    until the next step; action masks; discounts and raw rewards; equal seeds give equal data; the N environments have
    streams of their own; `state` and `load_state`; single rows that restart and step, as far as `partial` says that they
    can. The logger "whorl" warns of observations that look like images and are taken for vectors.

    steps: per run. What happens at an episode's end is seen only if one ends: the logger "whorl" warns when none did.
    """
    env = env if isinstance(env, Env) else Gymnasium(env)
    _Check(env, steps, seed).run()


class _Check:
    def __init__(self, env: Env, steps: int, seed: int) -> None:
        self.env, self.steps, self.seed = env, steps, seed
        self.calls = Calls(env, seed)
        self.varied = False  # two different observations were seen

    def run(self) -> None:
        calls = self.calls
        first, actions = self.record(calls.reset(self.seed), self.steps), self.actions
        limit = self.env.max_episode_steps if set(calls.cut_after) == {self.env.max_episode_steps} else None
        self.ends()
        self.lasting()
        replay = self.record(calls.reset(self.seed), self.steps, actions)
        calls.same(
            first,
            replay,
            "reset(seed) with the same seed and the same actions gave another {what} at step {step}: "
            "draw every random number from streams that reset(seed) starts anew",
        )
        self.streams()
        self.saved()
        check_partial(calls, self.steps, self.seed, self.varied, limit)

    def record(self, observation: Any, count: int, actions: list | None = None) -> list:
        """Copies of all that `count` steps give; the actions taken are kept in `self.actions`."""
        self.actions, data = [], [self.calls.begun(observation)]
        for t in range(count):
            self.actions.append(self.calls.sample() if actions is None else actions[t])
            step = self.calls.step(self.actions[-1].copy())
            data.append(self.calls.given(step))
            self.varied |= not equal(data[0][0], step.observation)
        return data

    def lasting(self) -> None:
        self.calls.reset(self.seed)
        step = self.calls.step(self.calls.sample())
        kept = copied(step[:7])
        self.env.state()
        picture = self.env.render()
        self.calls.demand(
            picture is None or (picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3),
            "render() must return uint8 [height, width, 3] of environment 0, or None",
        )
        message = "state() or render() changed {what} of the step before: its arrays must last until the next step"
        self.calls.same([kept], [step], message)

    def ends(self) -> None:
        if not self.calls.ended:
            logger.warning(
                "check_env: no episode ended in %d steps, so nothing is known about episode ends; give more steps",
                self.steps,
            )
        self.calls.demand(
            len(self.calls.ended) < 2
            or not all(terminated and truncated for terminated, truncated in self.calls.ended),
            "every episode ended with terminated and truncated both set: terminated means that there is no future, "
            "truncated that only a time limit was reached",
        )
        self.calls.demand(
            len(self.calls.cut) < 3 or not all(self.calls.cut) or not self.varied,
            "next_observation is the reset observation where an episode was truncated: give the observation that the "
            "action led to",
        )

    def streams(self) -> None:
        """All rows equal for two seeds, though the seeds differ: the rows share one stream."""
        if self.env.num_envs == 1:
            return
        runs = [self.rowsequal(seed) for seed in (self.seed, self.seed + 1)]
        if None not in runs:
            self.calls.demand(
                equal(*runs),
                f"all {self.env.num_envs} environments give the same data from one seed: "
                "seed each from (seed, its index)",
            )

    def rowsequal(self, seed: int) -> list | None:
        """The data of row 0 if all rows stayed equal under equal actions, else None."""
        observation, rng, data = self.calls.reset(seed), np.random.default_rng(self.seed), []
        for _ in range(min(self.steps, 100)):
            parts = [as_numpy(leaf) for leaf in leaves(observation)]
            if any((leaf != leaf[:1]).any() for leaf in parts):
                return None
            data.append([leaf[0].copy() for leaf in parts])
            action = self.calls.sample(rng)
            observation = self.calls.step(np.repeat(action[:1], len(action), 0)).observation
        return data

    def saved(self) -> None:
        observation = self.calls.reset(self.seed)
        self.record(observation, min(self.steps, 20))
        state, standing = self.env.state(), copied(self.calls.standing)
        if state is None:
            return
        # more steps than an episode is likely to last: the streams of the resets belong to the state too
        data, actions = self.record(standing, self.steps), self.actions
        back = self.env.load_state(state)
        self.calls.demand(
            equal(back, standing), "load_state(state) must return where each environment stood when state() was called"
        )
        self.calls.stands(back, "load_state()")
        self.calls.same(
            data[1:],
            self.record(back, self.steps, actions)[1:],
            "after load_state(state()) the same actions gave another {what} at step {step}: state() must hold copies "
            "of every array, counter and random stream",
        )
