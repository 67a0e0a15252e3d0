"""What `whorl check` advises: the decision by a table of numbers, the measuring by what environments are."""

import time

import gymnasium
import numpy as np
import pytest

from whorl.envs.make import EnvKind
from whorl.training.advice import Costs, advise, measure
from whorl.training.build import build

BASE = Costs(num_envs=8, cores=4, step=4.0, cpu=4.0, decide=4.0, half=2.4)


@pytest.mark.parametrize(
    ("changed", "workers", "collector", "why"),
    [
        ({}, 2, "alternating", "half of 8 rows is decided in 60%"),
        ({"compiled": True}, 0, "serial", "a native world"),
        ({"compiled": True, "cpu": 0.1}, 0, "serial", "a native world"),
        ({"compiled": True, "half": 0.05}, 0, "serial", "a native world"),
        ({"workers": False}, 0, "serial", "of its own process"),
        ({"num_envs": 1}, 0, "serial", "there is one environment"),
        # short beside the exchange, and just not
        ({"step": 0.25, "cpu": 0.25}, 0, "serial", "a step is short beside the 0.1 ms"),
        ({"step": 0.35, "cpu": 0.35}, 4, "serial", "with 4 workers a step is short beside the exchange"),
        # cores bound what computes, environments what sleeps
        ({"cores": 1}, 0, "serial", "there is one core"),
        ({"cores": 2}, 1, "alternating", "60%"),
        ({"cores": 64}, 4, "alternating", "60%"),
        ({"cores": 1, "cpu": 0.2}, 4, "alternating", "a step mostly waits"),
        ({"cpu": 0.2, "step": 0.2}, 0, "serial", "a step is short"),
        ({"cpu": 12.0}, 0, "serial", "several cores already"),
        # decisions
        ({"half": 3.1}, 2, "alternating", "78%"),
        ({"half": 3.3}, 4, "serial", "82% of the time of all: too much"),
        ({"half": 4.8}, 4, "serial", "120% of the time of all: too much"),
        ({"decide": 0.05, "half": 0.03}, 4, "serial", "little can be saved"),
        ({"decide": 40.0, "half": 24.0}, 4, "serial", "little can be saved"),
        ({"alternating": False}, 4, "serial", "cannot be here"),
    ],
)
def test_advice(changed, workers, collector, why):
    found = advise(BASE._replace(**changed))
    assert (found.workers, found.collector) == (workers, collector)
    assert why in f"{found.why_workers}; {found.why_collector}"


@pytest.mark.parametrize("changed", [{}, {"alternating": False}, {"step": 0.469, "cpu": 0.467}])
def test_figures_that_contradict_each_other_are_no_advice(changed):
    """Seen with numpy's BLAS on two cores that others used: 7.4 ms for 8 rows, 0.05 for 4."""
    found = advise(BASE._replace(decide=7.393, half=0.05, **changed))
    assert (found.workers, found.collector) == (0, "serial")
    assert found.doubt.startswith("half of the rows is decided in 0.7%") and "OPENBLAS_NUM_THREADS=1" in found.doubt
    assert advise(BASE._replace(half=1.7)).doubt == ""


class Sleeps(gymnasium.Env):
    """A step waits for 5 ms, which no processor is needed for."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        time.sleep(0.005)
        return np.zeros(3, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize(
    ("agent", "env", "compiled", "workers", "alternating"),
    [
        ("ppo", "CartPole-v1", True, True, True),
        ("ppo", EnvKind(Sleeps), False, True, True),
        ("a3c", "CartPole-v1", True, False, False),
        ("reinforce", "CartPole-v1", True, True, False),  # whole episodes
    ],
)
def test_what_is_measured(agent, env, compiled, workers, alternating):
    parts = build(agent, env, num_envs=4)
    costs = measure(parts.env, parts.agent.policy, parts.agent.config.feed, seconds=0.1)
    assert (costs.compiled, costs.workers, costs.alternating) == (compiled, workers, alternating)
    assert costs.num_envs == 4 and costs.cores >= 1 and min(costs[2:6]) > 0
    if env != "CartPole-v1":
        assert costs.step >= 20 > costs.cpu  # no sleep is shorter than asked for
    parts.env.close()


@pytest.mark.parametrize("agent", ["random", "dqn", "sac"])
def test_policies_with_and_without_noise_or_memory_are_measured(agent):
    parts = build(agent, "MountainCar-v0" if agent == "dqn" else "Pendulum-v1", num_envs=3)
    assert measure(parts.env, parts.agent.policy, parts.agent.config.feed, seconds=0.05).half > 0
    parts.env.close()
