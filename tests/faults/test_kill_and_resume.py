"""train 2N = train, SIGKILL, `whorl resume`: equal SHA-256, for each agent, at WHORL_KILLS random moments.

Each moment is drawn from a part of the run of its own, so that few kills (3) hit its beginning, its middle and its end.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.fingerprint import fingerprint
from whorl.training import checkpoint

KILLS = int(os.environ.get("WHORL_KILLS", 3))
OPTIONS = {
    "ppo": {"feed": {"steps": 64}, "normalize_observation": True, "normalize_return": True, "total_steps": 6_000},
    "a2c": {"anneal_steps": 6_000, "total_steps": 6_000},
    "reinforce": {"feed": {"steps": 40}, "total_steps": 8_000},
    "random": {"feed": {"steps": 32}, "total_steps": 30_000},
    "dqn": {  # the ring wraps, rows are drawn by priority
        "feed": {
            "batch_size": 16,
            "capacity": 1200,
            "replay_ratio": 0.1,
            "warmup": 200,
            "n_step": 3,
            "prioritized": True,
        },
        "total_steps": 6_000,
    },
    "sac": {
        "env": "Pendulum-v1",
        "hidden": (16,),
        "sde": True,  # exploration matrices are a carry
        "sde_every": 9,
        "feed": {"batch_size": 16, "capacity": 1000, "replay_ratio": 0.1, "warmup": 400},
        "total_steps": 4_000,
    },
    "ddpg": {
        "env": "Pendulum-v1",
        "hidden": (16,),
        "noise": "ou",
        "feed": {"batch_size": 16, "capacity": 1000, "replay_ratio": 0.1, "storage": "memmap"},
        "total_steps": 4_000,
    },
    "td3": {  # packed steps of three networks, one of them late; transforms with memory, and two that learn
        "env": "Pendulum-v1",
        "transforms": [
            "scale_action",
            "running_normalize",
            {"name": "stack_frames", "count": 2},
            {"name": "time_limit", "steps": 70},
            "normalize_reward",
        ],
        "hidden": (16,),
        "feed": {"batch_size": 16, "capacity": 1000, "replay_ratio": 0.1, "warmup": 400},
        "total_steps": 3_000,
    },
}


class Warm:
    def __init__(self):
        code = Path(__file__).with_name("warm.py")
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def ask(self, **request) -> int:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def warm():
    warm = Warm()
    yield warm
    warm.process.stdin.close()
    warm.process.wait()


def options(agent, runs):
    common = {
        "env": "CartPole-v1",
        "num_envs": 4,
        "eval_every": 2000,
        "eval_episodes": 4,
        "checkpoint_every": 700,
        "log_every": 300,
    }
    return {"call": "train", "agent": agent, "runs": str(runs), "quiet": True} | common | OPTIONS[agent]


def start(warm, agent, runs):
    """A child that trains; returns once its run folder is complete."""
    child = warm.ask(**options(agent, runs))
    while not (runs / "last").exists():
        time.sleep(0.002)
    return child


@pytest.mark.fault
@pytest.mark.parametrize("agent", OPTIONS)
def test_killed_at_a_random_moment(agent, warm, tmp_path):
    began = time.monotonic()
    start(warm, agent, tmp_path / "whole")
    assert warm.ask(call="wait") == 0
    length = time.monotonic() - began
    whole = fingerprint(tmp_path / "whole" / "last")
    moments = random.Random(agent)
    killed = 0
    while killed < KILLS:
        runs = tmp_path / f"{killed}_{time.monotonic_ns()}"
        child = start(warm, agent, runs)
        time.sleep((killed + moments.random()) / KILLS * 0.8 * length)
        os.kill(child, signal.SIGKILL)
        if warm.ask(call="wait") != -signal.SIGKILL:
            length *= 0.8  # it was done before the signal came: the machine is faster now
            continue
        killed += 1
        path = (runs / "last").resolve()
        if not (path / "eval.json").exists():
            warm.ask(call="resume", path=str(path), quiet=True)
            assert warm.ask(call="wait") == 0
        assert fingerprint(path) == whole
        litter = [p for p in (path / "checkpoints").iterdir() if p.name.startswith(".")]
        assert (
            litter == []
            and (path / "checkpoints" / "last").resolve() == checkpoint.newest(path / "checkpoints").resolve()
        )
