"""W8: generalized advantage estimation, [T, N]; TorchRL's is the faster of its two estimators."""

from workloads.workload import REUSE, Program, Workload


def advantages(steps, num_envs):
    asked = {"whorl": "whorl", "TorchRL": "torchrl"}
    options = {"shape": [steps, num_envs]}
    programs = {
        name: Program("peers", "gae_both.py", {"who": who, **options}, env=REUSE) for name, who in asked.items()
    }
    return Workload(f"advantages [{steps}, {num_envs}]", "calls/s", programs)


W8_LONG, W8_WIDE = advantages(2048, 64), advantages(128, 4096)
