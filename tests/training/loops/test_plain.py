"""A hook's True ends the run, in every loop, after the other hooks of that rollout have run."""

from multiprocessing import active_children

import pytest

from whorl.agents.a2c import A2CConfig
from whorl.feeds import Shared
from whorl.training.build import build
from whorl.training.loops import compiled_td, hogwild, plain

LOOPS = [
    (plain, "a2c", "ProbeConstant-v0", None),
    (plain, "td", "CliffWalking-v1", None),
    (compiled_td, "td", "CliffWalking-v1", None),
    (hogwild, "a2c", "ProbeConstant-v0", A2CConfig(feed=Shared(workers=1))),
]


@pytest.mark.parametrize(("loop", "agent", "env", "config"), LOOPS, ids=["rollouts", "stream", "compiled", "hogwild"])
def test_a_hook_ends_the_run(loop, agent, env, config):
    p = build(agent, env, config, num_envs=1, seed=0)
    calls = []

    def enough(rollout, metrics):
        calls.append("enough")
        return p.collector.steps > 0 and len(calls) >= 4

    def after(rollout, metrics):
        calls.append("after")

    loop.train(p.agent, p.collector, p.buffer, 10**12, [enough, after])
    assert calls[-1] == "after" and calls.count("after") == calls.count("enough") >= 3
    steps = p.collector.steps
    assert 0 < steps < 10**6 and not active_children()
    loop.train(p.agent, p.collector, p.buffer, steps, [enough])  # what is done already calls nobody
    assert len(calls) == 2 * calls.count("after")
