"""The asynchronous collector: bits of the serial one where nothing runs ahead, weights of one version in each rollout, what is refused."""

import numpy as np
import pytest
import torch

from whorl.collectors.async_ import AsyncCollector
from whorl.collectors.sampler import Rows, Weights, ring
from whorl.collectors.serial import SerialCollector
from whorl.envs.block import arrays, new_block
from whorl.envs.make import make_env
from whorl.errors import BadInput, EnvError, Incompatible
from whorl.policies.stochastic import Stochastic


def policy_for(env):
    torch.manual_seed(0)
    return Stochastic.build(env.observation_space, env.action_space, hidden=(8,), normalize=True)


def same(x, y):
    return all(
        torch.equal(x[key], y[key])
        for key in (
            "observation",
            "action",
            "log_prob",
            "is_first",
            "version",
            ("next", "observation"),
            ("next", "reward"),
        )
    )


@pytest.fixture
def started():
    made = []
    yield made.append
    for collector in made:
        collector.close()


def test_synchronous_with_one_sampler_gives_the_bits_of_the_serial_collector(started):
    env = make_env("CartPole-v1", 3, seed=5)
    policy = policy_for(env)
    serial = SerialCollector(env, policy, 20, seed=5)
    ours = AsyncCollector(make_env("CartPole-v1", 3, seed=5), policy, 20, seed=5, synchronous=True)
    started(ours)
    for _ in range(5):
        x, y = ours.collect(), serial.collect()
        assert same(x, y)
        assert (ours.steps, ours.episodes) == (serial.steps, serial.episodes)
        with torch.no_grad():  # learned: the next rollout is acted otherwise
            for weight in policy.parameters():
                weight.mul_(1.1)
        policy.normalizer.merge(policy.normalizer.moments(y["observation"], None))
        assert ours.sync(policy) == serial.sync(policy)
    assert ours.finished > 3
    assert ours.report() == {"time/version_lag": 0, "time/sampler_restarts": 0}


def test_samplers_are_at_most_a_slot_ahead_and_old_rows_can_be_masked(started):
    ours = AsyncCollector(
        make_env("Pendulum-v1", 3, seed=0), policy_for(make_env("Pendulum-v1", 3)), 16, samplers=2, slots=3, max_lag=1
    )
    started(ours)
    versions = []
    for _ in range(8):
        rollout = ours.collect()
        for columns in (
            slice(0, 1),
            slice(1, 3),
        ):  # of one sampler: one version in each rollout, and no other in its rows
            assert len(rollout["version"][:, columns].unique()) == 1
        lag = ours.version - rollout["version"]
        versions.append(rollout["version"][0].tolist())
        assert ours.lag == lag.max() <= ours.slots - 1
        assert torch.equal(rollout["mask"], lag <= 1) if "mask" in rollout.keys() else lag.max() <= 1  # noqa: SIM118
        assert ours.steps == (1 + len(versions) - 1) * 48  # rows that are masked were stepped all the same
        ours.sync(ours.policy)
    assert versions == sorted(versions)
    assert not np.array_equal(*ours.collect()["observation"][:, :2].unbind(1))


class Breaks(Exception):
    def __reduce__(self):
        raise TypeError("cannot travel")


def breaking(how):
    import gymnasium

    class Broken(gymnasium.Wrapper):
        def step(self, action):
            if how == "exit":
                raise SystemExit(3)
            raise Breaks("no such lever")

    return Broken(gymnasium.make("CartPole-v1"))


def test_what_a_sampler_raises_is_one_error_with_its_words_and_its_place(started):
    from whorl.envs.make import EnvKind

    env = EnvKind(breaking, {"how": "raise"}).make(2, 0)
    ours = AsyncCollector(env, policy_for(env), 16)
    started(ours)
    with pytest.raises(EnvError, match=r"sampler 0 \(environments 0 to 1 of breaking .*Breaks: no such lever") as found:
        ours.collect()
    assert "raise Breaks" in found.value.__notes__[0]


def test_environments_that_no_other_process_can_make_are_refused():
    env = make_env("CartPole-v1", 2)
    policy = policy_for(env)
    with pytest.raises(BadInput, match="samplers = 3, and there are 2 environments to share"):
        AsyncCollector(env, policy, 16, samplers=3)
    env.made_from = None
    with pytest.raises(Incompatible, match="an environment object will not do"):
        AsyncCollector(env, policy, 16)
    learning = make_env("CartPole-v1", 2)
    learning.learned = lambda: {"mean": np.zeros(1)}
    with pytest.raises(Incompatible, match=r"not what their environments learn \(mean\)"):
        AsyncCollector(learning, policy, 16)


def test_a_reader_never_sees_half_a_version():
    """A writer stops in the middle: the reader waits, and takes the whole of what comes."""
    import threading

    env = make_env("CartPole-v1", 2)
    block = new_block("weights")
    ours, theirs = policy_for(env), policy_for(env)
    written, read = Weights(ours, block), Weights(theirs, block)
    written.write(7)
    assert read.read() == 7
    count = arrays(block, [("int64", (2,))])[0]
    count[0] += 1  # being written
    with torch.no_grad():
        for weight in ours.parameters():
            weight.add_(1.0)
    thread = threading.Thread(target=lambda: found.append(read.read()))
    found: list[int] = []
    thread.start()
    thread.join(0.05)
    assert found == []
    count[0] -= 1
    written.write(8)
    thread.join()
    assert found == [8]
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters()))


def test_a_ring_gives_each_sampler_its_own_columns():
    block = new_block("ring")
    form = {"action": ("int64", ()), "next": {"observation": ("float32", (2,))}}
    whole = ring(block, form, 2, 4, Rows(0, 3, 3))
    part = ring(block, form, 2, 4, Rows(1, 2, 3))
    part[1]["next"]["observation"][:] = 5
    part[0]["action"][3, 1] = 2
    assert whole[1]["next"]["observation"].sum((0, 2)).tolist() == [0, 40, 40]
    assert whole[0]["next"]["observation"].sum() == 0
    assert whole[0]["action"].tolist() == [[0, 0, 0]] * 3 + [[0, 0, 2]]
