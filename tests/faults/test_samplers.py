"""Samplers that are killed, that hang, and whose learner is killed."""

import gc
import os
import random
import signal
import subprocess
import sys
import time

import gymnasium
import numpy as np
import pytest
import torch

from whorl.collectors.async_ import AsyncCollector
from whorl.envs.make import EnvKind
from whorl.envs.watchdog import watching
from whorl.errors import EnvError
from whorl.policies.random import Random

KILLS = int(os.environ.get("WHORL_KILLS", 3))


class Counts(gymnasium.Env):
    """The observation is the step of the episode, which ends after 50; step `hangs` never comes back."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, hangs=0, dies=0):
        self.hangs, self.dies = hangs, dies

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        if self.count == self.hangs:
            time.sleep(1000)
        if self.count == self.dies:
            os._exit(3)
        return np.full(1, self.count, np.float32), 1.0, self.count == 50, False, {}


def collector(steps=16, **options):
    env = EnvKind(Counts, options.pop("env", {})).make(4, 0)
    return AsyncCollector(env, Random(env.action_space), steps, **options)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except FileNotFoundError:
        return False


def gone(pids, seconds):
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(map(alive, pids))


def samplers_of(pid):
    found = subprocess.run(["pgrep", "-P", str(pid), "-f", "whorl.collectors.sampler"], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


@pytest.mark.fault
def test_killed_samplers_come_back_and_join_no_two_episodes():
    draw = random.Random(0)
    ours = collector(samplers=2)
    try:
        last, lost, rollouts = None, 0, 0
        for _ in range(KILLS):
            for _ in range(draw.randrange(1, 6)):
                rollout, rollouts = ours.collect(), rollouts + 1
                here, there = rollout["observation"][..., 0], rollout["next", "observation"][..., 0]
                first = rollout["is_first"]
                assert torch.equal(there, here + 1)
                assert torch.equal(here[1:][~first[1:]], there[:-1][~first[1:]])
                assert torch.equal(first[1:], rollout["next", "terminated"][:-1])
                if last is not None:
                    begun = first[0] & ~last["next", "terminated"][-1]
                    lost += int(begun.sum())
                    assert torch.equal(here[0][~first[0]], last["next", "observation"][-1, :, 0][~first[0]])
                last = rollout.clone()
                ours.sync(ours.policy)
            victim = draw.choice(samplers_of(os.getpid()))
            time.sleep(draw.random() * 0.02)
            os.kill(victim, signal.SIGKILL)
        while ours.report()["time/sampler_restarts"] < KILLS:
            ours.collect()
            rollouts += 1
        assert ours.steps == rollouts * 16 * 4
        assert ours.lost >= lost
        assert all(episode.length == 50 == episode.ret for episode in ours.episodes)
    finally:
        ours.close()
    assert samplers_of(os.getpid()) == []


@pytest.mark.soak
def test_one_that_dies_again_and_again_or_hangs_ends_the_run(monkeypatch, capfd):
    monkeypatch.setattr("whorl.collectors.crew.MOST_DEATHS", 1)
    for env, seconds, said in (({"dies": 3}, 0, "exit code 3"), ({"hangs": 3}, 0.3, "exit code 1")):
        ours = collector(env=env)
        with watching(seconds), pytest.raises(EnvError, match=f"{said}, as 1 times before within 10 minutes"):
            ours.collect()
        ours.close()
    assert "step has not come back for 0.3 seconds" in capfd.readouterr().err


LEARNER = """
import sys, time
from tests.faults.test_samplers import collector
ours = collector(samplers=2)
while True:
    ours.collect()
    print("collected", flush=True)
    time.sleep(float(sys.argv[1]))
"""


@pytest.mark.fault
@pytest.mark.parametrize("pause", [pytest.param(0.0, marks=pytest.mark.soak), 100.0])
def test_samplers_die_with_their_learner_and_heed_no_ctrl_c(pause):
    command = [sys.executable, "-c", LEARNER, str(pause)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=os.getcwd()) as learner:
        learner.stdout.readline()
        pids = samplers_of(learner.pid)
        for pid in pids:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.2)
        assert len(pids) == 2 and all(map(alive, pids))
        learner.kill()
    assert gone(pids, 30)


@pytest.mark.soak
def test_nothing_is_left_open():
    def files():
        return len(os.listdir("/proc/self/fd"))

    before = files()
    for close in (True, False):
        ours = collector()
        ours.collect()
        pids = samplers_of(os.getpid())
        assert len(pids) == 1
        if close:
            ours.close()
            ours.close()
        del ours
        gc.collect()
        assert gone(pids, 30)
    assert files() == before
