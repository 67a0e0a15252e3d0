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
@pytest.mark.parametrize("setting", bench.SETTINGS, ids=lambda s: f"{s.agent}-{s.env}")
def test_reaches_the_bar(setting):
    result = bench.run(setting)
    assert result["passed"], [r["best"]["mean"] for r in result["runs"]]
