"""Where a run computes: the device that it is asked for, and that of its environments."""

from __future__ import annotations

import torch

from whorl.errors import BadInput
from whorl.training.settings import check_one_device


def check(device: str) -> None:
    """Raises BadInput for a device that cannot be used here."""
    check_one_device(device)
    if device == "meta":
        raise BadInput("device 'meta' holds no numbers, so nothing can be learned on it")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"device {device!r} cannot be used here ({reason}); `whorl doctor` lists those that can"
        ) from error


def of_env(env: str, device: str) -> str:
    """Native worlds with a device version step where the agent learns; every other environment steps on the CPU."""
    if device == "cpu":
        return device
    from whorl.envs.native.device import WORLDS

    return device if env in WORLDS else "cpu"
