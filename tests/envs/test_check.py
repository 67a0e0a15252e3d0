from __future__ import annotations

import logging

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from tests.envs.walk import Walk, changed
from whorl.envs.check import check_env
from whorl.envs.env import Env
from whorl.envs.native import WORLDS, make
from whorl.errors import EnvError


def test_a_good_one_passes():
    check_env(Walk())
    check_env(Walk(), steps=500, seed=7)


BROKEN: list[tuple[type[Env], str]] = []


def says(message: str):
    """Registers a broken environment with the sentence that must explain it."""
    return lambda broken: BROKEN.append((broken, message)) or broken


@says("num_envs must be an integer of at least 1, got None")
class NoNumber(Walk):
    def __init__(self):
        super().__init__()
        self.num_envs = None


@says(r"action_space must be a gymnasium space \(of ONE environment\), got 2")
class NoSpace(Walk):
    def __init__(self):
        super().__init__()
        self.action_space = 2


@says("observation_space holds Text.*: only Box, Discrete, MultiDiscrete, MultiBinary and Dict are known")
class TextSpace(Walk):
    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Dict({"x": spaces.Text(3)})


@says("action_space holds .*: count from 0, without start")
class Start(Walk):
    def __init__(self):
        super().__init__()
        self.action_space = spaces.Discrete(2, start=1)


@says("observation_space holds a Box of float64: use float32, or uint8 for images")
class Double(Walk):
    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Box(-9, 9, (2,), np.float64)


@says("action_space must not be a Dict: lay its parts side by side")
class DictAction(Walk):
    def __init__(self):
        super().__init__()
        self.action_space = spaces.Dict({"a": spaces.Discrete(2)})


@says(r"reset\(\) gave an observation that must be an array, got list")
class ListObservation(Walk):
    def reset(self, seed=None):
        return super().reset(seed).tolist()


@says(r"reset\(\) gave an observation of dtype float64, expected float32")
class WrongDtype(Walk):
    def reset(self, seed=None):
        return super().reset(seed).astype(float)


@says(r"reset\(\) gave an observation of shape \(2,\), expected \(3, 2\): one row for each of the 3 environments")
class OneRow(Walk):
    def reset(self, seed=None):
        return super().reset(seed)[0]


@says(r"reset\(\) gave an observation that must be a dict with the keys \['x'\], got ndarray")
class NotADict(Walk):
    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Dict({"x": self.observation_space})


@says(r"gave an observation outside of Box.* in environment \d \(.*\): widen the space or mend the observation")
class Outside(Walk):
    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)


@says(r"step\(\) gave an observation with NaN or infinity in environments \[1\]: end the episode before")
class NaN(Walk):
    step = changed(observation=lambda step: np.where([[False], [True], [False]], np.float32("nan"), step.observation))


@says(r"step\(\) must return a whorl.envs.env.Step, it returned tuple")
class Tuple(Walk):
    def step(self, action):
        return tuple(super().step(action))


@says(r"step.. gave a reward of dtype float64, expected float32")
class DoubleReward(Walk):
    step = changed(reward=lambda step: step.reward.astype(float))


@says(r"step.. gave a reward of shape \(3, 1\), expected \(3,\)")
class TrailingOne(Walk):
    step = changed(reward=lambda step: step.reward[:, None])


@says(r"step.. gave a reward with NaN or infinity in environments \[2\]")
class InfiniteReward(Walk):
    step = changed(reward=lambda step: step.reward + np.array([0, 0, np.inf], np.float32))


@says("step.. gave terminated flags of dtype int64, expected bool")
class IntFlags(Walk):
    step = changed(terminated=lambda step: step.terminated.astype(int))


@says("step.. gave truncated flags that must be an array, got bool")
class OneFlag(Walk):
    step = changed(truncated=lambda step: bool(step.truncated.any()))


@says("every episode ended with terminated and truncated both set: terminated means that there is no future")
class BothFlags(Walk):
    step = changed(terminated=lambda s: s.terminated | s.truncated, truncated=lambda s: s.terminated | s.truncated)


@says("info must be a dict, got list")
class ListInfo(Walk):
    step = changed(info=lambda step: [{}] * 3)


@says("step.. gave valid flags of dtype float64, expected bool")
class FloatValid(Walk):
    step = changed(valid=lambda step: np.ones(3))


@says(
    r"where valid is False .the engine invented the step, or the row stands. reward must be 0, and no flag set but truncated"
)
class InventedReward(Walk):
    step = changed(valid=lambda step: np.array([True, False, True]))


@says("next_observation must be the same object as observation when no episode ended: return the array, not a copy")
class CopiedSuccessor(Walk):
    step = changed(next_observation=lambda step: step.next_observation.copy())


@says(r"next_observation differs from observation in rows \[0\] whose episode did not end: they must be equal there")
class OtherRows(Walk):
    def step(self, action):
        step = super().step(action)
        if step.next_observation is not step.observation and not (step.terminated | step.truncated)[0]:
            step.next_observation[0, 1] += 0.01
        return step


@says("next_observation is the reset observation where an episode was truncated: give the observation that")
class LostSuccessor(Walk):
    step = changed(
        next_observation=lambda s: s.observation.copy() if (s.terminated | s.truncated).any() else s.observation
    )


@says("next_observation shares memory with observation, so the reset overwrites the successor: copy")
class SharedSuccessor(Walk):
    step = changed(next_observation=lambda s: s.observation[:] if (s.terminated | s.truncated).any() else s.observation)


@says(r"state\(\) or render\(\) changed observation of the step before: its arrays must last until the next step")
class Fleeting(Walk):
    def step(self, action):
        step = super().step(action)
        self.given = step.observation
        return step

    def state(self):
        self.given[:] = 0
        return super().state()


@says(r"render\(\) must return uint8 \[height, width, 3\] of environment 0, or None")
class FloatPicture(Walk):
    def render(self):
        return np.zeros((4, 4, 3))


@says(r"step\(\) changed the action array it was given: copy it first")
class EatsActions(Walk):
    def step(self, action):
        step = super().step(action)
        action *= 0
        action -= 1
        return step


@says(r"reset\(seed\) with the same seed and the same actions gave another observation at step 0: draw every")
class Unseeded(Walk):
    def seeds(self, seed):
        self.rngs = [np.random.default_rng() for _ in range(self.num_envs)]


@says(r"reset\(seed\) with the same seed and the same actions gave another reward at step 1")
class UnseededReward(Walk):
    noise = np.random.default_rng()
    step = changed(reward=lambda step: UnseededReward.noise.normal(size=3).astype(np.float32))


@says(r"all 3 environments give the same data from one seed: seed each from \(seed, its index\)")
class SameStreams(Walk):
    def seeds(self, seed):
        self.rngs = [np.random.default_rng(seed) for _ in range(self.num_envs)]


@says(r"load_state\(state\) must return where each environment stood when state\(\) was called")
class LoadsNothing(Walk):
    def load_state(self, state):
        super().load_state(state)
        return np.zeros_like(self.where)


@says(r"after load_state\(state\(\)\) the same actions gave another observation at step 0: state\(\) must hold copies")
class ForgetsStreams(Walk):
    def load_state(self, state):
        return super().load_state({**state, "streams": [rng.bit_generator.state for rng in self.rngs]})


@says(r"after load_state\(state\(\)\) the same actions gave another .* at step \d+: state\(\) must hold copies")
class ForgetsTheClock(Walk):
    def load_state(self, state):
        return super().load_state({**state, "t": self.t * 0})


@says(r"load_state\(state\) must return where each environment stood")
class StateIsAView(Walk):
    def state(self):
        return {**super().state(), "where": self.where}


@says("action_mask must be there after reset.. and after every step, or never; it came or went in between")
class MaskComesLate(Walk):
    def step(self, action):
        self.action_mask = np.ones((3, 2), bool)
        return super().step(action)


@says(r"there is an action_mask of shape \(3, 3\), expected \(3, 2\)")
class WideMask(Walk):
    action_mask = np.ones((3, 3), bool)


@says("there is an action_mask of dtype int8, expected bool")
class IntMask(Walk):
    action_mask = np.ones((3, 2), np.int8)


@says(r"action_mask allows no action in rows \[1\]")
class NothingAllowed(Walk):
    action_mask = np.array([[True, True], [False, False], [True, False]])


@says("action_mask needs discrete actions, the action space is Box")
class ContinuousMask(Walk):
    action_mask = np.ones((3, 1), bool)

    def __init__(self):
        super().__init__()
        self.action_space = spaces.Box(-1, 1, (1,))


@pytest.mark.parametrize(("broken", "message"), BROKEN, ids=[broken.__name__ for broken, _ in BROKEN])
def test_says_in_one_sentence_what_to_change(broken, message):
    with pytest.raises(EnvError, match=message) as caught:
        check_env(broken())
    assert str(caught.value).startswith(f"{broken.__name__} (custom, ") and "\n" not in str(caught.value)


def test_actions_that_the_mask_forbids_are_never_taken():
    class Masked(Walk):
        def __init__(self):
            super().__init__()
            self.action_space = spaces.MultiDiscrete([2, 3])

        def begin(self, rows):
            super().begin(rows)
            self.action_mask = np.array([[True, False, False, True, True]] * 3)

        def move(self, action):
            assert (action[:, 0] == 0).all() and (action[:, 1] > 0).all()
            super().move(action[:, 1] - 1)

    check_env(Masked())


def test_a_truncation_with_a_true_successor_that_looks_like_the_start_is_no_breach():
    class Constant(Walk):  # all observations are equal, so nothing was lost
        def move(self, action):
            self.t += 1

        def begin(self, rows):
            self.where[rows], self.t[rows] = 0, 0

    check_env(Constant())


def test_deterministic_worlds_pass():
    class Still(Walk):
        def seeds(self, seed):
            self.rngs = [np.random.default_rng(0) for _ in range(self.num_envs)]

    check_env(Still())


@pytest.mark.parametrize("id", WORLDS)
def test_native_worlds_pass(id):
    check_env(make(id, num_envs=3, seed=1))


def test_gymnasium_objects_are_wrapped():
    check_env(gymnasium.make("CartPole-v1"))
    check_env(gymnasium.make_vec("CartPole-v1", 3))
    env = gymnasium.make("CartPole-v1", disable_env_checker=True)
    env.unwrapped.observation_space = spaces.Box(-0.01, 0.01, (4,))
    with pytest.raises(EnvError, match="gave an observation outside of Box"):
        check_env(env)


def test_warns_when_no_episode_ended(caplog):
    class Endless(Walk):
        limit = 10**9

        def move(self, action):
            super().move(action)
            self.where[:, 0] *= 0.1

    with caplog.at_level(logging.WARNING, "whorl"):
        check_env(Endless(), steps=20)
        check_env(Walk(), steps=20)
    assert [record.getMessage() for record in caplog.records] == [
        "check_env: no episode ended in 20 steps, so nothing is known about episode ends; give more steps"
    ]


@pytest.mark.parametrize(
    ("shape", "dtype", "warns"),
    [
        ((84, 84, 3), np.float32, True),
        ((84, 84), np.uint8, False),
        ((84, 84), np.float32, True),
        ((30, 30, 3), np.uint8, True),
        ((4, 84, 84), np.uint8, False),
        ((84, 84, 3), np.uint8, False),
        ((7, 7), np.float32, False),
        ((300,), np.float32, False),
    ],
)
def test_what_looks_like_an_image_and_is_none_is_said(shape, dtype, warns, caplog):
    class Seen(gymnasium.Env):
        observation_space, action_space = spaces.Box(0, 1, shape, dtype), spaces.Discrete(2)

        def reset(self, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(shape, dtype), {}

        def step(self, action):
            return np.zeros(shape, dtype), 0.0, False, False, {}

    with caplog.at_level(logging.WARNING, "whorl"):
        check_env(Seen(), steps=3)
    assert any("looks like an image" in record.getMessage() for record in caplog.records) == warns
