"""Asynchronous training with real processes: the same steps as the loop, shared state, deaths, errors, signals."""

import copy
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.processes import all_gone, gone, wait_until
from whorl.agents.a2c import A2C, A2CConfig
from whorl.envs.make import make_env
from whorl.errors import Incompatible, NotFinite, WhorlError
from whorl.feeds import Shared
from whorl.functional.streams import stream
from whorl.nets.heads import Critic
from whorl.nets.normalizer import Normalizer
from whorl.policies.stochastic import Stochastic
from whorl.presets.a3c import DEFAULT
from whorl.training.build import assemble, build
from whorl.training.evaluate import evaluate
from whorl.training.loops import hogwild, plain

ROOT = Path(__file__).parents[3]


def parts(env="CartPole-v1", num_envs=1, seed=0, workers=2, steps=20, **fields):
    config = A2CConfig(feed=Shared(workers=workers, steps=steps), **fields)
    return build("a3c", env, config, num_envs=num_envs, seed=seed)


def learn_once(agent, p):
    p.buffer.add(agent.prepare(p.collector.collect()))
    return agent.learn(p.buffer)


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(hogwild.tensors(one), hogwild.tensors(other), strict=True))


# ------------------------------------------------------------------------------------------------------------ the step


def test_a_copy_steps_on_the_shared_weights_and_moments():
    """Gradient at the copy's weights, clipped, applied to the others with their moments: the bits of an ordinary step."""
    p = parts()
    shared, local = copy.deepcopy(p.agent), copy.deepcopy(p.agent)
    before = [w.detach().clone() for w in local.parameters()]
    hogwild.step_on(shared, local)
    rollout = p.collector.collect().clone()
    for agent in (p.agent, local):
        p.buffer.add(agent.prepare(rollout))
        metrics = agent.learn(p.buffer)
    assert float(metrics["grad_norm"]) > p.agent.config.max_grad_norm  # so it was clipped
    assert all(torch.equal(a, b) for a, b in zip(p.agent.parameters(), shared.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, local.parameters(), strict=True))
    another = copy.deepcopy(p.agent)
    hogwild.step_on(shared, another)
    p.buffer.add(another.prepare(rollout))
    another.learn(p.buffer)
    assert {float(state["step"]) for state in shared.optimizer.state.values()} == {2.0}


def test_a_void_step_leaves_the_shared_weights():
    p = parts()
    shared, local = copy.deepcopy(p.agent), copy.deepcopy(p.agent)
    hogwild.step_on(shared, local)
    prepared = local.prepare(p.collector.collect())
    prepared["advantage"][3] = float("nan")
    p.buffer.add(prepared)
    with pytest.raises(NotFinite, match="the loss became NaN"):
        local.learn(p.buffer)
    assert equal(shared, p.agent)


# ------------------------------------------------------------------------------------------------------------ the run


def test_one_worker_is_the_serial_loop():
    """The same streams give the same bits, in the weights, the moments and the episodes; a second call goes on."""
    alone, serial = parts(workers=1, anneal_steps=4_000, seed=3), parts(workers=1, anneal_steps=4_000, seed=3)
    seen, steps = [], []

    def hook(rollout, metrics):
        before = [t.clone() for t in hogwild.tensors(alone.agent)]
        seen.extend(alone.collector.episodes)
        steps.append(alone.collector.steps)
        assert all(torch.equal(a, b) for a, b in zip(before, hogwild.tensors(alone.agent), strict=True))

    for begun, total in ((0, 1_000), (1_000, 2_010)):
        seed = stream(3, "worker", 0, begun)
        fresh = assemble(serial.agent, make_env("CartPole-v1", 1, seed=seed), seed)
        episodes = []
        plain.train(
            serial.agent,
            fresh.collector,
            fresh.buffer,
            total - begun,
            [lambda r, m, c=fresh.collector, e=episodes: e.extend(c.episodes)],
        )
        seen.clear()
        hogwild.train(alone.agent, alone.collector, alone.buffer, total, [hook])
        assert equal(alone.agent, serial.agent)
        assert [(e.env, e.ret, e.length) for e in seen] == [(e.env, e.ret, e.length) for e in episodes]
    assert steps == sorted(steps) and steps[-1] == alone.collector.steps == int(alone.agent.env_steps) == 2_020
    assert float(alone.agent.optimizer.param_groups[0]["lr"]) == pytest.approx(7e-4 * (1 - 2_020 / 4_000))
    assert not any(t.is_shared() for t in hogwild.tensors(alone.agent))  # views of the actors stay valid
    assert not active_children()


def test_two_workers_learn_together():
    """Both are in the optimizer's one state; what they learn is the probe's policy and value."""
    config = {"learning_rate": 3e-3, "anneal_steps": 48_000, "entropy_weight": 0.0}
    p = parts("ProbeAction-v0", num_envs=4, steps=5, **config)
    each, last = [0, 0], []

    def hook(rollout, metrics):
        last.append(p.collector.steps)
        for episode in p.collector.episodes:
            each[episode.env // 4] += 1  # an episode of this probe is one step

    hogwild.train(p.agent, p.collector, p.buffer, 24_000, [hook])
    assert sum(each) == p.collector.steps == p.collector.finished == last[-1] and 24_000 <= last[-1] <= 24_020
    assert last.count(last[-1]) == 1  # the end is seen once, with everything in it
    updates = float(p.agent.optimizer.state[p.agent.critic.head.bias]["step"])
    assert min(each) > 0 and max(each) / 20 < updates <= sum(each) / 20
    assert float(p.agent.optimizer.param_groups[0]["lr"]) == pytest.approx(1.5e-3, rel=0.01)  # by the steps of both
    assert evaluate(p.agent.policy, make_env("ProbeAction-v0", 4), 40, 0).summary()["mean"] == 1.0
    assert p.agent.value(torch.zeros(1, 1)).item() == pytest.approx(1.0, abs=0.15)


def test_ends_after_so_many_episodes_of_the_same_environment():
    """The workers step what the collector was given: here Gymnasium's, with a time limit; and they wait for slow hooks."""
    env = make_env("CartPole-v1", 2, prefer="gymnasium", max_episode_steps=15)
    p = assemble(A2C.build(env.observation_space, env.action_space, config := DEFAULT), env)
    p.collector.ledger.most_episodes = 200
    steps, finished, lengths, of_env = [], [], [], defaultdict(list)

    def slow(rollout, metrics):
        steps.append(p.collector.steps)
        finished.append(p.collector.finished)
        lengths.extend(episode.length for episode in p.collector.episodes)
        for episode in p.collector.episodes:
            of_env[episode.env].append(episode.length)
        time.sleep(0.5)  # some thousand steps

    hogwild.train(p.agent, p.collector, p.buffer, 10**9, [slow])
    assert finished[-1] == p.collector.finished == len(lengths) >= 200 > max(finished[:-1])
    assert max(lengths) == 15
    first = [of_env[i][:20] for i in range(4)]  # two environments each of two workers
    assert all(len(found) == 20 for found in first) and len({tuple(found) for found in first}) == 4
    report = hogwild.REPORT * config.feed.steps * 2
    assert max(b - a for a, b in zip(steps, steps[1:], strict=False)) <= 3 * 2 * report


def test_nothing_is_started_when_there_is_nothing_to_do():
    p = parts()
    p.collector.ledger.count = 100
    hogwild.train(p.agent, p.collector, p.buffer, 100, [lambda *_: pytest.fail("a hook ran")])


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: setattr(p.env, "made_from", None), "an environment object will not do: pass an id"),
        (lambda p: setattr(p.agent, "compiled", True), "use update='auto'"),
        (lambda p: p.agent.double().to("meta"), "use device='cpu'"),
        (lambda p: setattr(p.agent.policy, "normalizer", Normalizer((4,))), "normalize_observation=False"),
        (
            lambda p: setattr(p.agent, "optimizer", torch.optim.SGD(p.agent.parameters())),
            "of A2C's weights are an Adam's",
        ),
        (lambda p: p.agent.optimizer.param_groups[0]["params"].pop(), "of A2C's weights are an Adam's"),
        (lambda p: setattr(p.agent, "config", A2CConfig(feed=Shared(epochs=3))), "must be 1, got 3 and 1"),
    ],
)
def test_refuses_before_anything_is_started(change, message):
    p = parts()
    change(p)
    with pytest.raises(Incompatible, match=message):
        hogwild.train(p.agent, p.collector, p.buffer, 100)
    assert not active_children() and p.collector.steps == 0


# ------------------------------------------------------------------------------------------------------------ faults


def shared_memory(pids):
    """Names in /dev/shm that belong to these processes."""
    folder = Path("/dev/shm")
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return [name for name in names if any(str(pid) in name.replace("-", "_").split("_") for pid in pids)]


@pytest.mark.fault
def test_a_killed_worker_ends_the_run():
    p = parts(workers=2)
    pids, kept, lengths = {}, [], ([], [])

    def hook(rollout, metrics):
        for episode in p.collector.episodes:
            lengths[episode.env].append(episode.length)
        pids.update({child.name: child.pid for child in active_children()})
        kept[:] = [t.clone() for t in hogwild.tensors(p.agent)]
        if min(map(len, lengths)) >= 5:
            os.kill(pids["worker 1"], signal.SIGKILL)

    with pytest.raises(WhorlError, match="^worker 1 was killed by SIGKILL; the other workers were stopped") as caught:
        hogwild.train(p.agent, p.collector, p.buffer, 10**9, [hook])
    assert caught.value.exit_code == 1
    assert lengths[0][:5] != lengths[1][:5]  # each has its own streams
    assert not active_children() and len(pids) == 2
    assert shared_memory([os.getpid(), *pids.values()]) == []
    assert all(torch.equal(a, b) for a, b in zip(kept, hogwild.tensors(p.agent), strict=True))


@pytest.mark.fault
def test_nan_in_a_worker_ends_the_run():
    p = parts(workers=1, learning_rate=1e30)
    with pytest.raises(NotFinite, match="^worker 0: .* became NaN or infinite after .* environment steps"):
        hogwild.train(p.agent, p.collector, p.buffer, 10**9)
    assert not active_children()


class Tired(nn.Module):
    """A critic of the user's that breaks."""

    def __init__(self, critic):
        super().__init__()
        self.critic, self.calls = critic, 0

    def forward(self, observation):
        self.calls += 1
        if self.calls > 40:
            raise ZeroDivisionError("tired")
        return self.critic(observation)


@pytest.mark.fault
def test_an_error_in_a_worker_ends_the_run():
    env, config = make_env("CartPole-v1", 1), A2CConfig(feed=Shared(workers=1, steps=20))
    policy = Stochastic.build(env.observation_space, env.action_space)
    p = assemble(A2C(policy, Tired(Critic(env.observation_space)), config), env)
    with pytest.raises(WhorlError, match="^worker 0 raised ZeroDivisionError: tired") as caught:
        hogwild.train(p.agent, p.collector, p.buffer, 10**9)
    assert "in forward" in caught.value.__notes__[0]
    assert not active_children()


SCRIPT = """
import sys
from multiprocessing import active_children
from whorl.presets.a3c import DEFAULT
from whorl.training.loops import hogwild
from whorl.training.build import build
from whorl.training.process import StopSignals

def hook(rollout, metrics):
    if p.collector.steps or "early" in sys.argv:
        print(*(child.pid for child in active_children()), flush=True)
    if stop.number:
        print("saved", flush=True)
        raise SystemExit(128 + stop.number)

if __name__ == "__main__" or "unguarded" in sys.argv:
    p = build("a3c", "CartPole-v1", DEFAULT, num_envs=1)
    with StopSignals() as stop:
        hogwild.train(p.agent, p.collector, p.buffer, 10**9, [hook])
"""


def start(folder, *arguments):
    script = folder / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return process


@pytest.mark.fault
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see that a process is gone")
def test_no_worker_outlives_a_killed_main_process(tmp_path):
    process = start(tmp_path)
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2 and not any(map(gone, workers))
    process.kill()
    process.communicate()
    wait_until(lambda: all_gone(workers))
    assert shared_memory([process.pid, *workers]) == []


@pytest.mark.fault
@pytest.mark.parametrize(("number", "moment"), [(signal.SIGINT, "late"), (signal.SIGTERM, "early")])
def test_a_signal_to_all_processes_is_obeyed_by_the_main_one_alone(number, moment, tmp_path):
    """Ctrl-C reaches the whole group, also while the workers are still importing: the run saves, says one thing, and ends."""
    process = start(tmp_path, moment)
    workers = [int(pid) for pid in process.stdout.readline().split()]
    os.killpg(process.pid, number)
    out, err = process.communicate()
    assert process.returncode == 128 + number
    assert out.splitlines()[-1] == "saved" and err == ""
    assert all_gone(workers)


@pytest.mark.fault
def test_a_script_without_a_guard_is_told(tmp_path):
    process = start(tmp_path, "unguarded")
    out, err = process.communicate()
    assert process.returncode == 1 and out == ""
    assert "would start the training again: put the call under" in err  # from the worker
    assert "ended with exit code 1; the other workers were stopped" in err.splitlines()[-1]
