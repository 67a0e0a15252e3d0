"""Learning from recorded rows: so many updates and no more, in rounds, to the same bits whenever it was interrupted."""

import pytest
import torch

from whorl.agents.dqn import DQNConfig
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.sample_uniform import Uniform
from whorl.buffers.storage_memory import Memory
from whorl.collectors.ledger import Ledger
from whorl.envs.make import make_env
from whorl.training.build import build
from whorl.training.evaluate import evaluate
from whorl.training.loops import offline

CONFIG = DQNConfig(hidden=(16,), learning_rate=3e-3, epsilon=1.0, epsilon_min=1.0, target_every=50)


def recorded(steps=100):
    """A fresh agent, and 4 x `steps` rows that another one wrote by acting at random."""
    p = build("dqn", "ProbeAction-v0", CONFIG, num_envs=4, seed=0)
    buffer = ReplayBuffer(Memory(capacity=4 * steps, lanes=4), Uniform(0), batch_size=32)
    for _ in range(steps):
        buffer.add(p.collector.collect())
    return p.agent, buffer


def learn(agent, progress, buffer, total, ends=()):
    """The progress and the metrics after each round; the second hook ends the run where `ends` says."""
    seen = []

    def look(rollout, metrics):
        assert rollout is None
        seen.append((progress.count, metrics))

    offline.train(agent, progress, buffer, total, [lambda rollout, metrics: progress.count in ends, look])
    return seen


def test_it_learns_what_was_recorded():
    agent, buffer = recorded()
    progress = Ledger(unit="updates")
    seen = learn(agent, progress, buffer, 350)
    assert [count for count, _ in seen] == [100, 200, 300, 350]
    assert progress.count == agent.updates == 350 and progress.done(350)
    assert buffer.added == 400 and len(buffer) == 400
    assert seen[-1][1]["loss"] < seen[0][1]["loss"]
    assert evaluate(agent.policy, make_env("ProbeAction-v0", 4), 40, 0).summary()["mean"] == 1.0


def test_it_goes_on_where_it_stopped():
    """A stop at the end of a round changes nothing; what has done its updates does no more."""
    (whole, rows), (parts, same) = recorded(), recorded()
    learn(whole, Ledger(unit="updates"), rows, 250)
    progress = Ledger(unit="updates")
    assert [count for count, _ in learn(parts, progress, same, 250, ends=(100,))] == [100]  # and every hook has run
    assert [count for count, _ in learn(parts, progress, same, 250)] == [200, 250]
    assert learn(parts, progress, same, 250) == []
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_an_error_of_a_hook_ends_the_run():
    agent, buffer = recorded(20)
    progress = Ledger(unit="updates")
    with pytest.raises(ZeroDivisionError):
        offline.train(agent, progress, buffer, 300, [lambda rollout, metrics: 1 // 0])
    assert progress.count == agent.updates == 100
