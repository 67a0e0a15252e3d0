"""What enters from an environment of the user's own is checked; what hangs is named."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from whorl.envs import watchdog
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.adapters.infos import Infos
from whorl.envs.env import Env, Step
from whorl.envs.guard import Guard, close, guarded
from whorl.envs.make import make_env
from whorl.errors import BadInput, EnvError, NotFinite, WhorlError

ROOT = Path(__file__).parents[2]


class Mine(Env):
    """Two environments in arrays; `change` alters the fields of the third step. Episodes have two steps."""

    num_envs, id = 2, "Mine"
    observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32), "b": spaces.Discrete(3)})
    action_space = spaces.MultiDiscrete([2, 3])

    def __init__(self, **change: Any) -> None:
        self.change, self.t = change, 0

    def reset(self, seed: int | None = None) -> Any:
        self.t = 0
        self.action_mask = np.ones((2, 5), bool)
        return {"a": np.zeros((2, 2), np.float32), "b": np.zeros(2, np.int64)}

    def step(self, action: np.ndarray) -> Any:
        self.t += 1
        over, here = np.full(2, self.t % 2 == 0), {"a": np.ones((2, 2), np.float32), "b": np.array([1, 2])}
        step = Step(here, np.ones(2, np.float32), over, np.zeros(2, bool), {**here} if over.any() else here)
        change = self.change if self.t == 3 else {}
        if "raises" in change:
            raise change["raises"]
        self.action_mask = change.get("action_mask", self.action_mask)
        if "observation" in change:
            change = change | {"next_observation": change["observation"]}
        return change.get("all") or step._replace(**{k: v for k, v in change.items() if k in Step._fields})


AT = r"\(seed 7, episode 1, step 1, last action \[1, 2\]\) of Mine"
ALL = r"one of the environments \(seed 7, step 3 of each\) of Mine .*: "
GOOD, STUCK = np.zeros((2, 2), np.float32), np.array([[1, 1, 0, 0, 1], [1, 0, 0, 0, 0]], bool)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"all": (1, 2)}, EnvError, ALL + "step must return a whorl.envs.env.Step, it returned tuple"),
        ({"observation": GOOD}, EnvError, ALL + "observation.a is missing: expected a dict with the key .a., got a ndarray"),
        ({"observation": {"a": GOOD}}, EnvError, ALL + "observation.b is missing: .* got the keys a"),
        ({"observation": {"a": GOOD[:1], "b": np.zeros(2, int)}}, EnvError, r"observation.a must have shape \(2, 2\), got \(1, 2\)"),
        ({"observation": {"a": GOOD.astype(complex), "b": np.zeros(2, int)}}, EnvError, "observation.a must be float32, got complex128"),
        ({"observation": {"a": [0], "b": np.zeros(2, int)}}, EnvError, r"observation.a must be an array of shape \(2, 2\), got list"),
        ({"observation": {"a": GOOD, "b": np.zeros(2)}}, EnvError, "observation.b must be int64, got float64"),
        ({"observation": {"a": GOOD, "b": np.array([0, 3])}}, EnvError, f"environment 1 {AT} .*: observation.b must .* 0 to 2, got 3"),
        ({"next_observation": {"a": GOOD, "b": np.array([-1, 0])}}, EnvError, f"environment 0 {AT} .*: next.observation.b must .* got -1"),
        ({"observation": {"a": GOOD * np.nan, "b": np.zeros(2, int)}}, NotFinite, f"observation.a of environment 0 {AT} .* became .nan"),
        ({"observation": {"a": GOOD.astype(np.float64) - np.inf, "b": np.zeros(2, int)}}, NotFinite, "became .-inf, -inf."),
        ({"reward": np.array([0, np.inf], np.float32)}, NotFinite, f"reward of environment 1 {AT} .* became inf"),
        ({"reward": np.ones((2, 1), np.float32)}, EnvError, r"reward must have shape \(2,\), got \(2, 1\)"),
        ({"reward": 1.0}, EnvError, r"reward must be an array of shape \(2,\), got float"),
        ({"terminated": np.zeros(2, int)}, EnvError, "terminated must be bool, got int64"),
        ({"valid": np.zeros(3, bool)}, EnvError, r"valid must have shape \(2,\), got \(3,\)"),
        ({"action_mask": None}, EnvError, "the action mask has gone: reset gave one. Give it after reset and after every step, or never"),
        ({"action_mask": np.ones((2, 4), bool)}, EnvError, r"action_mask must have shape \(2, 5\), got \(2, 4\)"),
        ({"action_mask": STUCK}, EnvError, f"environment 1 {AT} .*: action_mask allows no action: .1, 0, 0, 0, 0."),
        ({"raises": SystemExit(3)}, EnvError, ALL + "step raised SystemExit: 3"),
        ({"raises": EnvError("broken")}, EnvError, r"^broken \(seed 7, step 3 of each\)$"),
        ({"raises": BadInput("yours")}, BadInput, "^yours$"),
        ({"raises": KeyboardInterrupt()}, KeyboardInterrupt, None),
    ],
)  # fmt: skip
def test_what_enters_is_checked(change, error, text):
    guard = Guard(Mine(**change))
    guard.reset(7)
    guard.step(np.array([[0, 0], [0, 0]]))
    guard.step(np.array([[0, 0], [0, 0]]))
    with pytest.raises(error, match=text):
        guard.step(np.array([[1, 2], [1, 2]]))


def test_the_last_observation_of_an_episode_and_that_of_the_reset_are_checked():
    env = Mine()
    env.reset = lambda seed: {"a": GOOD, "b": np.array([0, 10**9])}  # type: ignore[method-assign]
    with pytest.raises(
        EnvError, match=r"environment 1 \(seed 0, episode 0, step 0, last action none yet\).* got 1000000000"
    ):
        Guard(env).reset(0)


def test_a_mask_that_comes_in_mid_run():
    env = Mine()
    guard = Guard(env)
    env.reset = lambda seed: {"a": GOOD, "b": np.zeros(2, int)}  # type: ignore[method-assign]
    guard.reset(0)
    env.action_mask = np.ones((2, 5), bool)
    with pytest.raises(EnvError, match="the action mask has come in mid-run: reset gave none"):
        guard.step(np.zeros((2, 2), int))


def test_native_worlds_are_not_guarded():
    env = make_env("CartPole-v1")
    assert guarded(env) is env


# ------------------------------------------------------------------------------------------------ infos


def test_infos_of_other_types_in_every_environment():
    infos = Infos(3)
    infos.add(
        0,
        {
            "n": 1,
            "who": "me",
            "path": np.zeros(2),
            "deep": {"x": 1.5},
            "big": 10**25,
            "action_mask": np.ones(2, np.int8),
        },
    )
    infos.add(2, {"n": 2.5, "who": None, "path": np.zeros(3), "deep": {"x": 2}, "action_mask": np.zeros(2, np.int8)})
    assert infos["n"].tolist() == [1, 0, 2.5] and infos["_n"].tolist() == [True, False, True]
    assert infos["who"].tolist() == ["me", None, None] and infos["_who"].tolist() == [True, False, True]
    assert infos["path"].dtype == object and infos["path"][2].shape == (3,) and infos["path"][1] is None
    assert infos["deep"]["x"].tolist() == [1.5, 0, 2] and infos["big"][0] == 10**25
    assert infos["action_mask"].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert "m" not in infos and infos.get("_m") is None and set(infos) >= {"n", "_n"} and len(infos) == 12


class Talks(gymnasium.Env):
    """Episodes of five steps whose info differs from environment to environment."""

    made = 0
    observation_space, action_space = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2)

    def __init__(self, info: Any) -> None:
        Talks.made += 1
        self.number, self.info = Talks.made, info

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(2, np.float32), 1.0, False, self.t == 5, self.info(self)


@pytest.mark.parametrize(
    "info",
    [
        lambda e: {"winner": 1 if e.number % 2 else None},
        lambda e: {"note": 1 if e.number % 2 else "lost"},
        lambda e: {"path": np.zeros(e.t + e.number)},
        lambda e: {"big": 10**25},
        lambda e: {"deep": {"x": 1} if e.number % 2 else 3},
    ],
)
def test_infos_that_nobody_reads_do_no_harm(info):
    env = Gymnasium(lambda: Talks(info), 2)
    env.reset(0)
    for _ in range(6):
        step = env.step(np.zeros(2, np.int64))
    assert [len(step.info[key]) for key in step.info if not key.startswith("_")]


# ------------------------------------------------------------------------------------------------ the watchdog

HANGS = """
import time, gymnasium, numpy as np, whorl

class Hangs(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32), gymnasium.spaces.Discrete(2)
    made = 0

    def __init__(self):
        self.number, self.episode = Hangs.made, -1
        Hangs.made += 1

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.episode = 0, self.episode + 1
        self.wait("reset")
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        self.wait("step")
        return np.zeros(2, np.float32), 1.0, False, self.t == 5, {}

    def wait(self, where):
        if self.number == 1 and self.episode == 14 and where == WHERE and self.t in (0, 3):
            time.sleep(600)

whorl.train("ppo", Hangs, num_envs=2, total_steps=2000, env_timeout=TIMEOUT, checkpoint_every=64, runs=RUNS, quiet=True)
"""


@pytest.mark.parametrize(("where", "timeout"), [("step", 0.5), pytest.param("reset", 0.05, marks=pytest.mark.soak)])
def test_a_hung_environment_is_named(where, timeout, tmp_path):
    from whorl.training import checkpoint

    code = f"WHERE, TIMEOUT, RUNS = {where!r}, {timeout}, {str(tmp_path)!r}" + HANGS
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    place = "episode 14, step 3" if where == "step" else "episode 13, step 5"
    assert f"environment 1 (seed 0, {place}, last action " in done.stderr
    assert (
        f"{where} has not come back for 0.5 seconds" in done.stderr
        and "time.sleep(600)" in done.stderr
        or "in wait" in done.stderr
    )
    saved = checkpoint.newest((tmp_path / "last").resolve() / "checkpoints")
    checkpoint.verify(saved)
    assert issubclass(EnvError, WhorlError) and int(saved.name.removeprefix("step_")) <= 2 * 73


def test_closing_and_drawing_are_watched(monkeypatch):
    waits, said = threading.Event(), []

    class Waits(gymnasium.Env):
        observation_space, action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32), gymnasium.spaces.Discrete(2)
        render_mode = "rgb_array"

        def render(self):
            waits.wait()

        close = render

    def end(where, what, seconds, stepping):
        said.append((where.split(" of ")[-1], what, seconds))
        waits.set()

    monkeypatch.setattr(watchdog, "_end", end)
    env = Gymnasium(Waits, 1)
    for ask, what, seconds in ((Guard(env).render, "render", 0.05), (lambda: close(env), "close", 0.5)):
        waits.clear()
        with watchdog.watching(0.05):
            ask()
        assert said.pop(0)[1:] == (what, seconds) and waits.is_set()
