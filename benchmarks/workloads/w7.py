"""W7: replay alone, 1,000,000 rows of observation 17 and action 6."""

from workloads.workload import Goal, Program, Workload

NAMES = {"whorl": "whorl", "Stable-Baselines3": "sb3", "TorchRL": "torchrl", "cpprb": "cpprb"}


def replay(title, operation, *others, goals=()):
    programs = {
        name: Program(
            "whorl" if name == "whorl" else "peers", "replay.py", {"library": NAMES[name], "operation": operation}
        )
        for name in ("whorl", *others)
    }
    return Workload(f"replay of 1,000,000: {title}", "calls/s", programs, list(goals))


ADD = replay("64 rows added", "add", "Stable-Baselines3", "TorchRL", goals=[Goal("whorl", "Stable-Baselines3", 1.0)])
SAMPLE = replay("256 rows drawn", "sample", "Stable-Baselines3", "TorchRL", "cpprb")
PRIORITIZED = replay("256 rows drawn by priority", "prioritized sample", "cpprb")
UPDATE = replay("256 priorities", "priority update", "cpprb")
