"""Workers are killed at random moments, also between two steps and while their state is saved: what is collected joins no two episodes.

WHORL_KILLS (1) is how many tens of kills there are.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest
import torch

from tests.envs.working import Marked
from tests.processes import Held, children
from whorl.batch import get
from whorl.collectors.serial import SerialCollector
from whorl.envs.env import Processes
from whorl.envs.make import EnvKind
from whorl.envs.process import READY
from whorl.policies.random import Random

KILLS = 10 * int(os.environ.get("WHORL_KILLS", 1))
STEPS, ROWS, WORKERS = 32, 7, 3

pytestmark = pytest.mark.fault


def check_apart(rollout, before):
    """That each transition is of one episode, and where the next one begins another it says so. before: where all stood after the last
    rollout, whose rows these go on from. Returns where all stand now, and whether an episode begins there."""
    seen, successor, is_first = rollout["observation"], get(rollout, "next.observation"), rollout["is_first"]
    valid = get(rollout, "mask", torch.ones_like(is_first))
    over = (get(rollout, "next.terminated") | get(rollout, "next.truncated")).bool()
    assert (seen[..., 0] == successor[..., 0])[valid].all(), "a transition joins two episodes"
    assert (seen[..., 1] + 1 == successor[..., 1])[valid].all()
    assert (get(rollout, "next.reward") == successor[..., 1])[valid].all()
    assert (seen[..., 1] == 0)[is_first & valid].all() and not (seen[..., 1] == 0)[~is_first & valid].any()
    stood, begins = before
    stood = successor[:-1] if stood is None else torch.cat([stood[None], successor[:-1]])
    begins = (over | ~valid)[:-1] if begins is None else torch.cat([begins[None], (over | ~valid)[:-1]])
    goes_on = ~is_first[-len(stood) :]
    assert (goes_on == ~begins).all()
    assert (stood == seen[-len(stood) :]).all(-1)[goes_on].all(), "a row goes on from where it did not stand"
    return successor[-1].clone(), (over | ~valid)[-1].clone()


def test_kills_join_no_two_episodes():
    env = EnvKind(Marked).make(ROWS, 3, processes=Processes(WORKERS, max_restarts=KILLS))
    policy = Random(env.action_space)
    collector, moments = SerialCollector(env, policy, STEPS), random.Random(0)
    kills, through = 0, threading.Event()

    def kill():
        nonlocal kills
        while kills < KILLS:
            time.sleep(moments.uniform(0, 0.1))
            if up := [each.pid for each in env.processes_of() if each.state == READY and each.pid]:
                os.kill(moments.choice(up), signal.SIGKILL)
                kills += 1
                while env.restarts < kills:  # until it is noticed, long before there is another one
                    time.sleep(0.001)
        through.set()

    held, before, episodes, more = None, (None, None), [], 20
    killer = threading.Thread(target=kill, daemon=True)
    while more:
        before = check_apart(collector.collect(), before)
        episodes += collector.episodes
        env.state()  # as for a checkpoint
        if held is None:
            held = Held.by(os.getpid())
            killer.start()
        more -= through.is_set() and all(each.state == READY for each in env.processes_of())
    killer.join()
    assert env.restarts == kills == KILLS and collector.lost > 0
    assert all(one.length * (one.length + 1) / 2 == one.ret for one in episodes) and len(episodes) > KILLS
    assert Held.by(os.getpid())[1:] == held[1:] and len(children(os.getpid())) == WORKERS
    env.close()
