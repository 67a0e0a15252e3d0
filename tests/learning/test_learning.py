"""Real environments to a stated return, 5 seeds each (`make learn`). The settings and bars are those of benchmarks/learning.py."""

import importlib.util
import sys
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "learning_bench", Path(__file__).parents[2] / "benchmarks" / "learning.py"
)
bench = importlib.util.module_from_spec(spec)
sys.modules["learning_bench"] = bench
spec.loader.exec_module(bench)


@pytest.mark.learning
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("setting", bench.SETTINGS, ids=lambda s: s.name)
def test_reaches_the_bar(setting):
    result = bench.run(setting)
    assert result["passed"], [r["best"]["mean"] for r in result["runs"]]


@pytest.mark.learning
@pytest.mark.timeout(3600)
def test_sac_learns_with_bfloat16_products(tmp_path):
    """-200 on Pendulum at 10,000 steps, 4 of 5 seeds."""
    import whorl

    found = []
    for seed in range(5):
        run = whorl.train(
            "sac", "Pendulum-v1", runs=tmp_path, name=str(seed), seed=seed, total_steps=10_000, num_envs=1, precision="bfloat16",
            eval_every=0, quiet=True, logger="none",
        )  # fmt: skip
        found.append(run.evaluate(episodes=100).mean)
    assert sorted(found)[1] >= -200, found
