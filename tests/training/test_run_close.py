"""However a run ends, it closes its environments, and what ended it is what one sees."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import whorl
from tests.envs.http_servers import registered
from whorl.errors import EnvError

COMMON = {"total_steps": 512, "num_envs": 2, "eval_every": 128, "eval_episodes": 2, "log_every": 1, "quiet": True}


class Ends(whorl.Logger):
    """A logger that ends the run after its first evaluation."""

    def log(self, step, metrics):
        if "eval/mean_reward" in metrics:
            raise SystemExit(130)


def test_a_run_that_is_broken_off_frees_the_environments_on_the_server(tmp_path):
    pytest.importorskip("uvicorn", reason="needs the extra server: pip install 'whorl[server]'")
    from whorl.apps.gym_server.serve import running
    from whorl.envs.adapters.gym_client import GymClient

    with running(root=tmp_path / "root", max_envs=5) as url:  # training, evaluation, and one for the best checkpoint
        with pytest.raises(SystemExit, match="130"):
            whorl.train("random", f"{url}/CartPole-v1", runs=tmp_path, loggers=[Ends()], **COMMON)
        run = whorl.train("random", f"{url}/CartPole-v1", runs=tmp_path, **COMMON)
        for episodes in (2, 4, 3):  # of as many environments: those before make room
            assert len(run.evaluate(episodes).returns) == episodes
        run.evaluation.close()
        assert GymClient(url).env_list_all() == {}


class Stuck(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32), gymnasium.spaces.Discrete(2)
    closed = 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        raise RuntimeError("out of fuel")

    def close(self):
        Stuck.closed += 1
        raise RuntimeError("stuck lid")


def test_closing_does_not_hide_what_ended_the_run(tmp_path):
    with registered("Stuck-v0", Stuck), pytest.raises(EnvError, match="out of fuel"):
        whorl.train("random", "Stuck-v0", runs=tmp_path, **COMMON | {"eval_every": 0})
    assert Stuck.closed > 0


class Exits(Stuck):
    def step(self, action):
        return np.zeros(2, np.float32), 1.0, True, False, {}

    def close(self):
        super_closed.append(self)
        raise SystemExit(3)


super_closed: list[Exits] = []


def test_what_closing_raises_is_said_after_a_good_run(tmp_path, caplog):
    run = whorl.train("random", Exits, runs=tmp_path, **COMMON)
    assert (run.path / "eval.json").exists() and len(super_closed) >= 4  # each of two, in training and evaluation
    assert "Exits (gymnasium, 2 at once, on cpu): close raised SystemExit: 3" in caplog.text
