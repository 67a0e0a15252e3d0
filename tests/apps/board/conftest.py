"""One trained run and its entry, which all files here share: who changes them changes a copy."""

from __future__ import annotations

import pytest

import whorl
from whorl.apps.board.entry import Entry
from whorl.apps.board.submit import submit
from whorl.training.run import Run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A thousand steps of PPO with five evaluations."""
    return whorl.train(
        "ppo",
        "CartPole-v1",
        seed=3,
        total_steps=1000,
        num_envs=8,
        eval_every=200,
        eval_episodes=8,
        feed={"steps": 25, "epochs": 4, "minibatches": 4},
        quiet=True,
        runs=tmp_path_factory.mktemp("board") / "runs",
    )


@pytest.fixture(scope="session")
def made(run: Run) -> Entry:
    """The run's entry, on a board of its own."""
    return submit(run.path, run.path / "board", "Ada", "first <b>try</b> \N{GRINNING FACE} Zürich")
