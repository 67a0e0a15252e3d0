"""whorl: reinforcement learning in PyTorch. Environment -> collector -> rollout -> buffer -> agent, in one visible loop.

This file is a table: a name is imported when it is first used, so that `import whorl` costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "train": "whorl.training.start",
    "resume": "whorl.training.start",
    "load": "whorl.training.trained",
    "make_env": "whorl.transforms.make",
    "check_env": "whorl.envs.check",
    "check_agent": "whorl.training.check_agent",
    "check_buffer": "whorl.buffers.check",
    "check_transform": "whorl.transforms.check",
    "check": "whorl.batch",
    "build": "whorl.training.build",
    "register_agent": "whorl.training.catalog",
    "register_transform": "whorl.transforms.chain",
    "Transform": "whorl.transforms.transform",
    "Transformed": "whorl.transforms.env",
    "sweep": "whorl.training.sweep",
    "Env": "whorl.envs.env",
    "Step": "whorl.envs.env",
    "Agent": "whorl.agents.agent",
    "Policy": "whorl.policies.policy",
    "ModulePolicy": "whorl.policies.module",
    "SerialCollector": "whorl.collectors.serial",
    "rollout": "whorl.collectors.rollout",
    "fake_batch": "whorl.collectors.rollout",
    "RolloutBuffer": "whorl.buffers.rollout",
    "Rollouts": "whorl.feeds",
    "Logger": "whorl.training.loggers",
    "StopAt": "whorl.training.own_hooks",
    "Schedule": "whorl.training.own_hooks",
    "StopTraining": "whorl.errors",
    "last_run": "whorl.training.start",
}
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'whorl' has no attribute {name!r}; it has {', '.join(sorted(_HOME))}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
