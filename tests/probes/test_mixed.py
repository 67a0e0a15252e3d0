"""A probe whose action is a button and a dial at once: the agents that take mixed actions learn both parts, and play it, film it,
resume it and compare each other in it like any other environment."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import whorl
from tests import seeds
from tests.training.fingerprint import fingerprint
from whorl.envs.adapters.spaces import discrete_sizes
from whorl.envs.make import EnvKind
from whorl.errors import Damaged, Incompatible


class Probe(gymnasium.Env):
    """Shows -1 or 1, for 3 steps; a reward of 1 for the button of that name, less the square of how far the dial is from half of it."""

    def __init__(self, render_mode: str | None = None):
        self.render_mode, self.observation_space = render_mode, spaces.Box(-1, 1, (1,))
        dial = spaces.Box(-3, 3, (), np.float64)
        self.action_space = spaces.Dict({"dial": dial, "press": spaces.Tuple((spaces.Discrete(3, start=-1),))})

    def _look(self):
        self.x = float(self.np_random.choice([-1, 1]))
        return np.float32([self.x])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._look(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        reward = float(action["press"][0] == self.x) - (float(action["dial"]) - self.x / 2) ** 2
        return self._look(), reward, False, self.t == 3, {}

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


FAST = {
    "ppo": {"total_steps": 3_000, "learning_rate": 3e-3, "feed": {"steps": 64, "epochs": 4, "minibatches": 4}},
    "a2c": {"total_steps": 3_000, "learning_rate": 5e-3, "entropy_weight": 0.0},
    "reinforce": {"total_steps": 4_000, "learning_rate": 1e-2, "feed": {"steps": 64}},
}


@pytest.mark.parametrize("agent", FAST)
def test_both_parts_are_learned(agent, tmp_path):
    common = {"num_envs": 4, "seed": seeds.seed(), "runs": tmp_path, "quiet": True}
    run = whorl.train(agent, Probe, **common, **FAST[agent])
    trained = whorl.load(run.path, env=Probe)
    for x in (-1.0, 1.0):
        action = trained.predict(np.float32([x]))
        assert action["press"] == (int(x),) and float(action["dial"]) == pytest.approx(x / 2, abs=0.2)
    assert trained.evaluate(20).returns.mean() > 2.7


SMALL = {"feed": {"steps": 16, "epochs": 1, "minibatches": 2}, "hidden": (4,)}


def test_resumed_to_the_same_bits_evaluated_and_filmed(tmp_path):
    common = {
        "num_envs": 2,
        "total_steps": 320,
        "checkpoint_every": 64,
        "eval_every": 100,
        "eval_episodes": 2,
        "quiet": True,
    }
    whole = whorl.train("ppo", Probe, runs=tmp_path / "a", **common, **SMALL)
    hooks = [lambda rollout, metrics: whorl.last_run().progress.count >= 160]
    cut = whorl.train("ppo", Probe, runs=tmp_path / "b", hooks=hooks, **common, **SMALL)
    assert cut.steps < 320
    (cut.path / "eval.json").unlink()
    (cut.path / "curve.png").unlink()
    assert fingerprint(whorl.resume(cut.path, env=Probe, quiet=True).path) == fingerprint(whole.path)
    assert whorl.load(whole.path, env=Probe).film(tmp_path / "film.gif")[1] == 3


def test_a_saved_action_that_is_none_is_refused():
    env = EnvKind(Probe).make(2)
    env.replay_steps = 10
    env.reset(0)
    assert discrete_sizes(env.action_space) == [3]
    env.step(np.float32([[0, 5.0], [2, -5.0]]))
    state = env.state()
    env.load_state(state)
    for wrong in (3, -1, 0.5, np.nan):
        with pytest.raises(Damaged, match="a saved action is none of"):
            env.load_state(state | {"actions": np.float32([[wrong, 0], [0, 0]])})


def test_other_agents_say_who_takes_such_actions(tmp_path):
    for agent, words in (
        ("dqn", "use ppo, a2c or reinforce"),
        ("sac", "use ppo, a2c or reinforce"),
        ("td3", "acts in"),
    ):
        with pytest.raises(
            Incompatible, match=rf"got Tuple\(MultiDiscrete\(3\), Box\(1\)\).*{words}|{words}.*got Tuple"
        ):
            whorl.train(agent, Probe, runs=tmp_path, total_steps=10, quiet=True)
