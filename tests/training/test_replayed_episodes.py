"""Runs in environments that cannot save their state: their episodes are played again, to the same bits, or the run says why not."""

from __future__ import annotations

import re
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import whorl
from tests.faults.kills import Warm, check_same_bits
from tests.training.fingerprint import fingerprint
from whorl.envs.make import EnvKind
from whorl.errors import Damaged, NotReplayed


class Drift(gymnasium.Env):
    """A random walk: its noise is of the seed, or of numpy's own stream where it is `loose`."""

    loose = False

    def __init__(self):
        self.observation_space, self.action_space = spaces.Box(-99, 99, (2,)), spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.normal(size=2).astype(np.float32), 0
        return self.x.copy(), {}

    def step(self, action):
        noise = np.random.default_rng() if self.loose else self.np_random
        self.t += 1
        self.x = (0.9 * self.x + 0.1 * action + 0.01 * noise.normal(size=2)).astype(np.float32)
        return self.x.copy(), -float(abs(self.x).sum()), False, self.t >= 37, {}


class Loose(Drift):
    loose = True


class Keeping(gymnasium.RewardWrapper):
    """Counts over all episodes: nothing of it is seen but in the rewards."""

    count = 0

    def reward(self, reward):
        self.count += 1
        return reward + self.count


ENVS = {"HalfCheetah-v5": "mujoco", "LunarLander-v3": "Box2D", "Drift": ""}
SMALL = {
    "ppo": {"feed": {"steps": 32, "epochs": 2, "minibatches": 2}, "hidden": (8,)},
    "sac": {"hidden": (8,), "feed": {"batch_size": 8, "capacity": 2000, "replay_ratio": 0.05, "warmup": 100}},
    "dqn": {"hidden": (8,), "feed": {"batch_size": 8, "capacity": 2000, "replay_ratio": 0.05, "warmup": 100}},
}
PAIRS = [("ppo", "HalfCheetah-v5"), ("sac", "HalfCheetah-v5"), ("ppo", "LunarLander-v3"), ("dqn", "LunarLander-v3"),
         ("ppo", "Drift"), ("sac", "Drift")]  # fmt: skip
RUN = {"num_envs": 2, "eval_every": 300, "eval_episodes": 2, "checkpoint_every": 128, "log_every": 100, "quiet": True}
RUN |= {"max_episode_steps": 70}


def needs(env: str) -> None:
    if ENVS[env]:
        pytest.importorskip(ENVS[env], reason=f"needs the package {ENVS[env]}")


def options(agent: str, env: str, runs: Path, steps: int) -> dict:
    return (
        {"agent": agent, "env": Drift if env == "Drift" else env, "runs": runs, "total_steps": steps}
        | RUN
        | SMALL[agent]
    )


@pytest.mark.parametrize(("agent", "env"), PAIRS)
def test_stopped_and_resumed_to_the_same_bits(agent, env, tmp_path):
    needs(env)
    given = options(agent, env, tmp_path / "whole", 700)
    whole = whorl.train(**given)

    parts = options(agent, env, tmp_path / "parts", 700)
    hooks = [lambda rollout, metrics: whorl.last_run().progress.count >= 450]
    cut = whorl.train(**parts, hooks=hooks)
    assert cut.steps < 700
    (cut.path / "eval.json").unlink()
    (cut.path / "curve.png").unlink()
    said: list[str] = []
    own = {"env": Drift} if env == "Drift" else {}
    resumed = whorl.resume(cut.path, quiet=True, loggers=[Said(said)], **own)
    assert not [line for line in said if "fresh episodes" in line]
    assert fingerprint(resumed.path) == fingerprint(whole.path)


def test_a_chain_that_restarts_single_environments_resumes_to_the_same_bits(tmp_path):
    given = RUN | SMALL["ppo"] | {"transforms": [{"name": "time_limit", "steps": 11}], "max_episode_steps": None}
    whole = whorl.train("ppo", Drift, runs=tmp_path / "whole", total_steps=256, **given)
    hooks = [lambda rollout, metrics: whorl.last_run().progress.count >= 180]
    cut = whorl.train("ppo", Drift, runs=tmp_path / "parts", total_steps=256, hooks=hooks, **given)
    assert cut.steps < 256
    (cut.path / "eval.json").unlink()
    (cut.path / "curve.png").unlink()
    assert fingerprint(whorl.resume(cut.path, quiet=True, env=Drift).path) == fingerprint(whole.path)


class Said(whorl.Logger):
    def __init__(self, lines: list[str]):
        self.lines = lines

    def message(self, text):
        self.lines.append(text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"env": Loose}, "is not decided by its seed and actions: environment 0, played again, showed something else"),
        ({"env": Drift, "wrappers": [Keeping]}, "is not decided by its seed and actions"),
        ({"env": Drift, "replay_steps": 5}, "was .* steps long, and no more than replay_steps = 5 are played again"),
        ({"env": Drift, "replay_steps": 0}, "cannot save its state"),
    ],
)
def test_what_cannot_be_played_again_is_said(given, message, tmp_path):
    run = whorl.train(
        "ppo", runs=tmp_path, total_steps=128, **given, **(RUN | SMALL["ppo"] | {"max_episode_steps": None})
    )
    said: list[str] = []
    again = {key: value for key, value in given.items() if key != "replay_steps"}
    resumed = whorl.resume(run.path, 256, quiet=True, loggers=[Said(said)], **again)
    [line] = [line for line in said if "fresh episodes begin here" in line]
    assert resumed.steps == 256
    assert re.search(message, line), line


def walked(env, steps: int, seed: int = 3):
    env.replay_steps, rng = 1000, np.random.default_rng(0)
    observation = env.reset(seed)
    for _ in range(steps):
        observation = env.step(rng.uniform(-1, 1, (env.num_envs, 1)).astype(np.float32)).observation
    return observation


@pytest.mark.parametrize("steps", [0, 1, 36, 37, 300])
def test_state(steps):
    env, other = (EnvKind(Drift).make(3) for _ in range(2))
    standing = walked(env, steps)
    other.replay_steps = 1000
    assert np.array_equal(other.load_state(env.state()), standing)
    for _ in range(80):
        action = np.ones((3, 1), np.float32)
        one, two = env.step(action), other.step(action)
        assert all(np.array_equal(a, b) for a, b in zip(one[:5], two[:5], strict=True))
    assert all(np.array_equal(env.state()[key], value) for key, value in other.state().items())


def test_long_episodes_keep_what_is_needed():
    env = EnvKind(Drift).make(2)
    env.replay_steps = 20
    env.reset(1)
    for t in range(200):
        env.step(np.zeros((2, 1), np.float32))
        state = env.state()
        assert (state["length"] == (t + 1) % 37).all()
        assert len(state["actions"]) == (0 if state["length"][0] > 20 else 2 * state["length"][0])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("length", np.array([10**12, 1, 1])),
        ("length", np.array([-5, 1, 1])),
        ("length", np.array([1, 1])),
        ("length", np.array([2.0, 1, 1])),
        ("episode", np.array([-7, 0, 0])),
        ("actions", np.full((30, 1), np.nan, np.float32)),
        ("actions", np.zeros((29, 1), np.float32)),
        ("actions", np.zeros((30, 2), np.float32)),
        ("actions", np.zeros((), np.float32)),
        ("seen", np.zeros((3, 5), np.uint8)),
        ("seed", np.zeros(2, np.int64)),
    ],
)
def test_arrays_of_a_stranger(key, value):
    env = EnvKind(Drift).make(3)
    walked(env, 10)
    with pytest.raises((Damaged, NotReplayed)):
        env.load_state(env.state() | {key: value})
    with pytest.raises(Damaged, match="saved"):
        env.load_state({name: array for name, array in env.state().items() if name != key})


def train(agent: str, env: str, runs: str) -> None:
    whorl.train(**options(agent, env, Path(runs), 3000))


def resume(path: str, env: str, quiet: bool) -> None:
    whorl.resume(path, quiet=quiet, **({"env": Drift} if env == "Drift" else {}))


@pytest.mark.soak
@pytest.mark.parametrize(("agent", "env"), PAIRS)
def test_killed_at_a_random_moment(agent, env, tmp_path):
    needs(env)
    calls = {name: f"{__name__}:{name}" for name in ("train", "resume")}
    with Warm() as warm:
        check_same_bits(
            warm,
            tmp_path,
            {"agent": agent, "env": env},
            kills=5,
            call=calls["train"],
            resume=calls["resume"],
            changed={"env": env},
        )
