"""The examples, as real processes with a short budget, and what each must leave behind. (`test_docs.py` runs the python ones in full.)"""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import whorl

EXAMPLES = Path(__file__).parents[1] / "examples"
RUNS = {  # script -> (folder of its runs, arguments that shorten it)
    "cartpole-pg": ("CartPole-v0/reinforce", "-nIterations 12 -timestepsPerBatch 50"),
    "cartpole-random": ("CartPole-v0/random", "-nIterations 5"),
    "cartpole-td": ("CartPole-v0/td", "-nIterations 12 -video 0"),
    "mountain-car": ("MountainCar-v0/td", "-nIterations 200"),
    "pendulum-pg": ("Pendulum-v1/reinforce", "-nIterations 2 -timestepsPerBatch 20 -nSteps 20"),
}


def run(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(EXAMPLES / script), *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_every_script_is_tested() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.sh")}
    assert scripts == {*RUNS, "sweep"}
    assert all(os.access(EXAMPLES / f"{name}.sh", os.X_OK) for name in scripts)


@pytest.mark.parametrize("name", RUNS)
def test_run(name: str, tmp_path: Path) -> None:
    place, words = RUNS[name]
    done = run(f"{name}.sh", tmp_path, *words.split(), "-seed", "3", "-json", "true")
    line = json.loads(done.stdout.splitlines()[-1])
    folder = tmp_path / line["run"]
    assert folder.parent == tmp_path / "runs" / place
    assert line["episodes"] == int(words.split()[1])  # the last of two -nIterations
    assert len((folder / "episodes.csv").read_text().splitlines()) > line["episodes"]
    assert (folder / "curve.png").stat().st_size > 1000
    assert json.loads((folder / "config.json").read_text())["seed"] == 3
    assert "not used" not in done.stderr
    if name == "cartpole-pg":
        update = r"^update: episode \d+, learning rate 0\.\d+, \d+ episodes and \d+ steps in the batch$"
        assert re.search(update, done.stdout, re.M)
        assert re.search(r"^episode 10: return \S+ \+- \S+ over the last 10", done.stdout, re.M)
    if name == "pendulum-pg":
        (picture,) = tmp_path.glob("board/entries/*/best.gif")  # -uploadResults true
        assert picture.stat().st_size > 1000
    if name == "mountain-car":
        assert line["best_mean_100"] > -190  # the goal has been reached, again and again


def test_sweep(tmp_path: Path) -> None:
    run("sweep.sh", tmp_path, "--seeds", "1", "--total-steps", "200", "--eval-episodes", "2", "--slots", "2")
    (table,) = tmp_path.glob("runs/sweeps/*/table.csv")
    rows = table.read_text().splitlines()
    assert len(rows) == 1 + 7 and rows[0].startswith("learning_rate,")


@pytest.mark.parametrize(
    ("agent_of", "env", "parts"),
    [
        ("random", "CartPole-v0", {"policy": "Random"}),
        ("policy_gradient", "CartPole-v0", {"policy": "Stochastic", "policy.encoder": "Encoder"}),
        (
            "sarsa_lambda",
            "MountainCar-v0",
            {"policy": "Greedy", "policy.q": "LinearQ", "policy.q.features": "TileCoding"},
        ),
    ],
)
def test_triple(agent_of: str, env: str, parts: dict[str, str]) -> None:
    """Each is made of the parts that its lines name, and all of it learns (the random one nothing)."""
    example = runpy.run_path(str(EXAMPLES / "triple.py"))
    torch.manual_seed(0)
    fresh = example[agent_of](whorl.make_env(env))
    torch.manual_seed(0)
    agent = example["learn"](example[agent_of], env, 2_000)
    modules = dict(agent.named_modules())
    assert {name: type(modules[name]).__name__ for name in parts} == parts
    before, after = fresh.policy.state_dict(), agent.policy.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "weight" in name or "bias" in name}
    assert agent.env_steps >= 2_000
