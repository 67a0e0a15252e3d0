"""TorchRL's GAE and PPO loss run on our converted batch. Needs the peers' environment: `make peers`."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "benchmarks" / "peers" / ".venv" / "bin" / "python"


@pytest.mark.skipif(not PEERS.exists(), reason="the peers' environment is not installed: make peers")
def test_torchrl_losses_on_a_converted_batch():
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("torchrl_losses.py")
    done = subprocess.run([str(PEERS), str(script)], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "agree" in done.stdout
