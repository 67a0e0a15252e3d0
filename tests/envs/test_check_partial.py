"""`check_env` on environments whose single rows restart and step, and on discounts and raw rewards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.envs.walk import Walk, changed
from whorl.envs.check import check_env
from whorl.envs.env import Env, Step
from whorl.errors import EnvError


class Able(Walk):
    """Single rows restart and step; discounts, raw rewards and masks."""

    partial = frozenset({"restart", "rows"})
    discounts = True
    max_episode_steps = Walk.limit

    def reset(self, seed: int | None = None) -> Any:
        observation = super().reset(seed)
        self.raw_reward, self.action_mask = np.zeros(self.num_envs, np.float32), self.allowed()
        return observation

    def allowed(self) -> np.ndarray:
        return np.stack([self.t % 3 < 2, self.t % 3 > 0], 1)

    def move(self, action: np.ndarray) -> None:
        for i in np.flatnonzero(self.moving):
            push = self.rngs[i].uniform(-1, 1)
            self.where[i] = np.clip(self.where[i, 0] + 2 * action[i] - 1 + push, -9, 9), push
            self.t[i] += 1

    def step(self, action: np.ndarray, rows: np.ndarray | None = None) -> Step:
        self.moving = np.ones(self.num_envs, bool) if rows is None else rows.copy()
        step = super().step(action)
        self.raw_reward, self.action_mask = step.reward * self.moving, self.allowed()
        valid = None if rows is None else self.moving
        return step._replace(reward=self.raw_reward / 2, valid=valid, discount=np.full(self.num_envs, 0.9, np.float32))

    def restart(self, rows: np.ndarray) -> Any:
        self.begin(np.flatnonzero(rows))
        self.action_mask = self.allowed()
        return self.where.copy()


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("partial", [{"restart", "rows"}, {"restart"}, {"rows"}, set()])
def test_a_good_one_passes(partial, num_envs):
    class Few(Able):
        pass

    Few.partial, Few.num_envs = frozenset(partial), num_envs
    check_env(Few())


def test_what_is_not_promised_is_not_asked_for():
    class Neither(Able):
        partial = frozenset()
        restart = None

        def step(self, action):
            return super().step(action)

    check_env(Neither())


BROKEN: list[tuple[type[Env], str]] = []


def says(message: str):
    """Registers a broken environment with the sentence that must explain it."""
    return lambda broken: BROKEN.append((broken, message)) or broken


@says("partial must be a set of what single rows can do, 'restart' and 'rows', got True")
class NoSet(Able):
    partial = True


@says(r"partial must be a set of what single rows can do, 'restart' and 'rows', got frozenset\({'reset'}\)")
class UnknownAbility(Able):
    partial = frozenset({"reset"})


@says(r"restart\(rows\) gave another observation for rows \[.+\], which were to stand")
class RestartsAll(Able):
    def restart(self, rows):
        return super().restart(rows | True)


@says(r"restart\(rows\) left all of \d+ rows where they stood: it must begin a new episode there")
class RestartsNone(Able):
    max_episode_steps = None  # else its count is what is found

    def restart(self, rows):
        return super().restart(rows & False)


@says(r"an episode was truncated after \d+ steps, the others last 12: restart\(rows\) begins the count anew")
class KeepsTheClock(Able):
    def restart(self, rows):
        t = self.t.copy()
        here = super().restart(rows)
        self.t[:] = t
        self.action_mask = self.allowed()
        return here


@says(r"restart\(\) changed next_observation of the step before: its arrays hold the true successors and must survive")
class OverwritesTheSuccessor(Able):
    def step(self, action, rows=None):
        step = super().step(action, rows)
        self.there = None if step.next_observation is step.observation else step.next_observation
        return step

    def restart(self, rows):
        here = super().restart(rows)
        if self.there is not None:
            self.there[:] = here
        return here


@says(r"restart\(\) changed valid of the step before: its arrays hold the true successors and must survive")
class OverwritesValid(Able):
    def restart(self, rows):
        self.moving[:] = rows
        return super().restart(rows)


@says(r"restart\(\) changed what the restart before it returned: give another array")
class OneArray(Able):
    def restart(self, rows):
        self.given = getattr(self, "given", np.zeros_like(self.where))
        self.given[:] = super().restart(rows)
        return self.given


@says(r"restart\(\) must return where each environment stands; load_state\(state\(\)\) says otherwise")
class ReturnsElsewhere(Able):
    def move(self, action):
        super().move(action)
        self.lies = np.zeros(3, bool)

    def restart(self, rows):
        here = super().restart(rows)
        self.lies |= rows
        here[self.lies] = 1
        return here


@says(r"restart\(\) must return where each environment stands; a step of no row says otherwise")
class ReturnsElsewhereUnsaved(ReturnsElsewhere):
    def state(self):
        return None


@says(r"restart\(\) gave an observation of dtype float64, expected float32")
class RestartsInDouble(Able):
    def restart(self, rows):
        return super().restart(rows).astype(float)


@says(r"restart\(\) changed the rows it was given: copy them first")
class EatsRows(Able):
    def restart(self, rows):
        here = super().restart(rows)
        rows[:] = False
        return here


@says(r"step\(\) changed the rows it was given: copy them first")
class EatsRowsInSteps(Able):
    def step(self, action, rows=None):
        step = super().step(action, rows)
        if rows is not None:
            rows[:] = False
        return step


@says(r"restart\(rows\) changed the action_mask of rows \[.+\], which were to stand")
class RestartsAllMasks(Able):
    def restart(self, rows):
        here = super().restart(rows)
        self.action_mask = np.ones((3, 2), bool)
        return here


@says("action_mask must be there after reset.. and after every step, or never; it came or went in between")
class RestartLosesTheMask(Able):
    def restart(self, rows):
        here = super().restart(rows)
        self.action_mask = None
        return here


@says(r"reset\(seed\) with the same seed, actions and rows gave another observation at step \d+: what restart\(\) and")
class UnseededRestart(Able):
    noise = np.random.default_rng()

    def restart(self, rows):
        super().restart(rows)
        self.where[rows, 1] = UnseededRestart.noise.uniform()
        return self.where.copy()


@says(r"step\(action, rows\) must give `valid`, and False where rows is False")
class NoValid(Able):
    step = changed(Able, valid=lambda step: None)


@says(r"step\(action, rows\) must give `valid`, and False where rows is False")
class AllValid(Able):
    step = changed(Able, valid=lambda step: np.ones(3, bool))


@says(
    r"where valid is False .the engine invented the step, or the row stands. reward must be 0, and no flag set but truncated"
)
class PaysWhoStands(Able):
    step = changed(Able, reward=lambda step: step.reward + 1)


@says(r"step\(action, rows\) ended episodes of rows which were to stand, by `truncated`")
class EndsWhoStands(Able):
    step = changed(Able, truncated=lambda step: step.truncated | (False if step.valid is None else ~step.valid))


@says(r"step\(action, rows\) gave another observation for rows \[.+\], which were to stand")
class StepsAll(Able):
    def move(self, action):
        moving, self.moving = self.moving, np.ones(3, bool)
        super().move(action)
        self.moving = moving


@says(r"step\(action, rows\) changed the action_mask of rows \[.+\], which were to stand")
class StepsAllMasks(Able):
    def step(self, action, rows=None):
        step = super().step(action, rows)
        if rows is not None:
            self.action_mask = np.ones((3, 2), bool)
        return step


@says("`discounts` is True, and step.. gave no discount: set `discounts` to True and give one in every step, or")
class NoDiscount(Able):
    step = changed(Able, discount=lambda step: None)


@says("`discounts` is False, and step.. gave a discount: set `discounts` to True and give one in every step, or")
class UnannouncedDiscount(Able):
    discounts = False


@says("step.. gave a discount of dtype float64, expected float32")
class DoubleDiscount(Able):
    step = changed(Able, discount=lambda step: step.discount.astype(float))


@says(r"step.. gave a discount of shape \(\) *, expected \(3,\)")
class OneDiscount(Able):
    step = changed(Able, discount=lambda step: np.float32(0.9))


@says("step.. gave a discount of 1.5: it weighs the reward after this one, from 0 to 1")
class GrowingDiscount(Able):
    step = changed(Able, discount=lambda step: step.discount + np.array([0, 0.6, 0], np.float32))


@says("raw_reward must be there after reset.. and after every step, or never; it came or went in between")
class RawRewardComesLate(Able):
    def reset(self, seed=None):
        observation = super().reset(seed)
        self.raw_reward = None
        return observation


@says("there is a raw_reward of dtype float64, expected float32")
class DoubleRawReward(Able):
    def step(self, action, rows=None):
        step = super().step(action, rows)
        self.raw_reward = self.raw_reward.astype(float)
        return step


@pytest.mark.parametrize(("broken", "message"), BROKEN, ids=[broken.__name__ for broken, _ in BROKEN])
def test_says_in_one_sentence_what_to_change(broken, message):
    with pytest.raises(EnvError, match=message) as caught:
        check_env(broken())
    assert str(caught.value).startswith(f"{broken.__name__} (custom, ") and "\n" not in str(caught.value)
