"""Fifty kinds of bad environment: each is one clear error at the step at which it comes, and no row of it is kept."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from whorl import feeds
from whorl.agents.agent import Agent
from whorl.agents.dqn import DQNConfig
from whorl.agents.ppo import PPOConfig
from whorl.agents.sac import SACConfig
from whorl.agents.td import TDConfig
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.errors import EnvError, NotFinite
from whorl.training import checkpoint
from whorl.training.build import assemble
from whorl.training.evaluate import evaluate
from whorl.training.new_agent import new_agent
from whorl.training.start import train

BOX, TABLE = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(4)
MOVES, FORCE = spaces.Discrete(3), spaces.Box(-1, 1, (1,), np.float32)
LENGTH = 4  # steps of an episode
REPLAY = feeds.Replay(steps=1, batch_size=4, capacity=64, warmup=8)
AGENTS: dict[str, tuple[Any, spaces.Space, spaces.Space]] = {
    "ppo": (PPOConfig(feed=feeds.Rollouts(steps=8, epochs=1, minibatches=1), hidden=(4,)), BOX, MOVES),
    "dqn": (DQNConfig(feed=REPLAY, hidden=(4,)), BOX, MOVES),
    "sac": (SACConfig(feed=REPLAY, hidden=(4,)), BOX, FORCE),
    "td": (TDConfig(), TABLE, MOVES),
}


class Bad(gymnasium.Env):
    """Episodes of four steps; `fault` changes what the second of them gives in the step, the end or the reset that `at` names."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, at: str, fault: Any, masked: bool):
        self.observation_space, self.action_space = observation_space, action_space
        self.at, self.fault, self.masked, self.episode = at, fault, masked, -1

    def seen(self) -> Any:
        return self.t % 4 if isinstance(self.observation_space, spaces.Discrete) else np.full(2, self.t / 4, np.float32)

    def given(self, what: str, **values: Any) -> dict[str, Any]:
        values |= {
            "observation": self.seen(),
            "info": {"action_mask": np.array([1, 0, 1], np.int8)} if self.masked else {},
        }
        return self.fault(values) if self.episode == 1 and what == self.at else values

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        values = self.given("reset")
        return values["all"] if "all" in values else (values["observation"], values["info"])

    def step(self, action):
        self.t += 1
        what = "end" if self.t == LENGTH else "step" if self.t == 2 else ""
        values = self.given(what, reward=1.0, terminated=False, truncated=self.t == LENGTH)
        names = ("observation", "reward", "terminated", "truncated", "info")
        return values["all"] if "all" in values else tuple(values[name] for name in names)


class Strange(BaseException):
    """No Exception."""


class Silent(Exception):
    """Not even its text can be had."""

    def __str__(self) -> str:
        raise RuntimeError


def gives(name: str, value: Any) -> Any:
    return lambda values: values | {name: value}


def raises(error: BaseException) -> Any:
    def fault(values: dict[str, Any]) -> Any:
        raise error

    return fault


def says(mask: Any) -> Any:
    return lambda values: values | {"info": {} if mask is None else {"action_mask": mask}}


EVERYWHERE, STEPS = ("step", "end", "reset"), ("step", "end")
MISFIT = "does not fit"
OBSERVATIONS = {
    "a wrong shape": (np.zeros(3, np.float32), MISFIT),
    "complex numbers": (np.zeros(2, complex), MISFIT),
    "None": (None, MISFIT),
    "text": ("left", MISFIT),
    "a dict": ({"a": 1}, MISFIT),
}
NUMBERS = {
    "NaN": (np.array([0, np.nan], np.float32), "observation of environment 1 .* became .0.0, nan."),
    "infinity": (np.array([np.inf, 0], np.float32), "became .inf, 0.0."),
    "beyond float32": (np.array([1e300, 0]), "became .inf, 0.0."),
}
INDEXES = {
    "4 of 0..3": (4, "observation must be whole numbers from 0 to 3, got 4"),
    "a million": (10**6, "from 0 to 3, got 1000000"),
    "a milliard": (10**9, "from 0 to 3, got 1000000000"),
    "a negative one": (-(10**6), "from 0 to 3, got -1000000"),
    "beyond int64": (10**25, MISFIT),
    "a fraction": (1.5, MISFIT),
}
REWARDS = {
    "an array": (np.ones(1), r"the reward must be one number, got an array of shape \(1,\)"),
    "two numbers": ([1.0, 2.0], "the reward must be one number, got 2 things"),
    "nothing": (None, "the reward must be one number, got NoneType None"),
    "text": ("much", "the reward must be one number, got str 'much'"),
    "NaN": (float("nan"), "reward of environment 1 .* became nan"),
    "infinity": (-np.inf, "reward of environment 1 .* became -inf"),
    "beyond float32": (1e300, "reward of environment 1 .* became inf"),
    "beyond all floats": (10**400, "environment 1: its reward fits no float: OverflowError"),
}
FLAGS = {
    "None": (None, "must be True or False, got NoneType"),
    "2": (2, "must be True or False, got int 2"),
    "two of them": (np.zeros(2, bool), r"must be True or False, got an array of shape \(2,\)"),
    "text": ("no", "must be True or False, got str 'no'"),
}
WHOLES = {
    "four things": ((0, 1.0, False, {}), "must return .*, got 4 things"),
    "nothing": (None, "must return .*, got NoneType None"),
}
ERRORS = [
    ValueError, KeyError, ZeroDivisionError, RuntimeError, OSError, AssertionError, MemoryError, RecursionError, StopIteration,
    NotImplementedError, SystemExit, GeneratorExit, Strange,
]  # fmt: skip
MASKS = {
    "nothing is allowed": ([0, 0, 0], r"action_mask allows no action: \[0, 0, 0\]"),
    "of another size": ([1, 1], "has 3 entries, got 2"),
    "no flags": ([0.5, 1, 1], "is made of 0 and 1, got 0.5"),
    "it vanishes": (None, "the action mask has gone from info"),
}

KINDS: list[tuple[str, str, Any, str]] = []  # name, moment, fault, what is said
KINDS += [
    (f"observation: {k}", at, gives("observation", v), text)
    for k, (v, text) in OBSERVATIONS.items()
    for at in EVERYWHERE
]
KINDS += [(f"number: {k}", at, gives("observation", v), text) for k, (v, text) in NUMBERS.items() for at in EVERYWHERE]
KINDS += [(f"index: {k}", at, gives("observation", v), text) for k, (v, text) in INDEXES.items() for at in EVERYWHERE]
KINDS += [(f"reward: {k}", at, gives("reward", v), text) for k, (v, text) in REWARDS.items() for at in STEPS]
KINDS += [(f"terminated: {k}", at, gives("terminated", v), text) for k, (v, text) in FLAGS.items() for at in STEPS]
KINDS += [(f"all: {k}", at, gives("all", v), text) for k, (v, text) in WHOLES.items() for at in EVERYWHERE]
KINDS += [("info: a list", at, gives("info", []), "must") for at in EVERYWHERE]
KINDS += [
    (f"raises {e.__name__}", at, raises(e("boom")), f"raised {e.__name__}: .*boom")
    for e in ERRORS
    for at in ("step", "reset")
]
KINDS += [("raises silently", at, raises(Silent()), "environment 1: .* raised Silent \\(") for at in ("step", "reset")]
KINDS += [
    ("raises much", at, raises(ValueError("a\nb\x1b[31m" + "x" * 5000)), r"raised ValueError: a b\?\[31mx{292} \(")
    for at in STEPS
]
KINDS += [(f"mask: {k}", at, says(v), text) for k, (v, text) in MASKS.items() for at in ("step", "reset")]
KINDS += [("appearing mask", at, says([1, 1, 1]), "the action mask has come into info") for at in ("step", "reset")]


@pytest.fixture(scope="module")
def agents() -> dict[tuple[str, bool], Agent]:
    return {}


def taken(name: str, observation_space: spaces.Space, action_space: spaces.Space) -> bool:
    if name.startswith("number"):
        return observation_space is BOX
    if name.startswith("index"):
        return observation_space is TABLE
    return "mask" not in name or action_space is MOVES


def test_there_are_more_than_fifty():
    assert len(KINDS) > 50 and len({(name, at) for name, at, _, _ in KINDS}) == len(KINDS)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("agent", AGENTS)
def test_every_kind_is_one_clear_error_where_it_comes(agent, agents):
    config, observation_space, action_space = AGENTS[agent]
    for name, at, fault, text in KINDS:
        if not taken(name, observation_space, action_space):
            continue
        one = iter([False, True])  # the second environment is the bad one

        def make(one=one, at=at, fault=fault, name=name):
            moment = at if next(one) else "never"
            return Bad(observation_space, action_space, moment, fault, name.startswith("mask"))

        env = Gymnasium(make, 2)
        if agent not in agents:
            agents[agent] = new_agent(agent, env, config, 0)
        parts = assemble(agents[agent], env, 0)
        kind = (agent, name, at)
        with pytest.raises((EnvError, NotFinite), match=f"(?s){text}") as raised:
            parts.train(100)
        # the reset that follows an end is part of the step that ended
        episode, step = {"step": (1, 2), "end": (1, LENGTH), "reset": (0, LENGTH)}[at]
        said = str(raised.value)
        assert "environment 1" in said and "\n" not in said, (kind, said)
        assert f"(seed 0, episode {episode}, step {step}, last action " in said, (kind, said)
        assert parts.progress.count < 2 * (LENGTH * episode + step), kind  # the bad step is not counted
        if config.feed.replays:
            rows = parts.buffer.storage.ordered()
            assert all(value.isfinite().all() for value in rows.values(True, True) if value.is_floating_point()), kind


@pytest.mark.parametrize(
    ("name", "at"), [("number: NaN", "reset"), ("reward: an array", "end"), ("raises SystemExit", "step")]
)
def test_evaluation_looks_as_well(name, at):
    config, observation_space, action_space = AGENTS["dqn"]
    fault, text = next((fault, text) for kind, moment, fault, text in KINDS if (kind, moment) == (name, at))
    env = Gymnasium(lambda: Bad(observation_space, action_space, at, fault, False), 1)
    with pytest.raises((EnvError, NotFinite), match=f"(?s){text}".replace("environment 1", "environment 0")) as raised:
        evaluate(new_agent("dqn", env, config, 0).policy, env, 4, seed=3)
    episode, step = {"step": (1, 2), "end": (1, LENGTH), "reset": (0, LENGTH)}[at]
    assert f"episode {episode}, step {step}, last action " in str(raised.value)


@pytest.mark.parametrize("agent", ["dqn", "td"])
def test_no_checkpoint_holds_a_bad_row(agent, tmp_path):
    config, observation_space, action_space = AGENTS[agent]
    fault = gives("observation", 10**9 if agent == "td" else np.array([np.nan, 0]))
    with pytest.raises((EnvError, NotFinite)):
        train(agent, lambda: Bad(observation_space, action_space, "reset", fault, False), config=config, num_envs=1, total_steps=100,
              checkpoint_every=1, runs=tmp_path, quiet=True)  # fmt: skip
    saved = checkpoint.newest((tmp_path / "last").resolve() / "checkpoints")
    tensors, state = checkpoint.load(saved)
    assert state["collector"]["ledger"]["count"] in (LENGTH - 1, LENGTH)
    assert all(
        torch.as_tensor(x).isfinite().all()
        for group in tensors.values()
        for x in group.values()
        if x.is_floating_point()
    )


Named = namedtuple("Named", "observation reward terminated truncated info")


class NamesThem(Bad):
    def step(self, action):
        return Named(*super().step(action))


def test_a_step_may_be_a_named_tuple():
    env = Gymnasium(lambda: NamesThem(BOX, MOVES, "never", None, False), 1)
    env.reset()
    assert env.step(np.zeros(1, np.int64)).reward[0] == 1


def test_spaces_that_gymnasium_does_not_take():
    def make():
        env = Bad(BOX, spaces.Box(-1, 1, (1,)), "never", None, False)
        env.action_space.low[:] = np.nan
        return env

    with pytest.raises(EnvError, match="its spaces cannot be used: ValueError"):
        Gymnasium(make, 2)
