"""Native worlds: N environments of one kind in one compiled call. A table: a world is imported when it is made."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from whorl.envs.env import Env
from whorl.errors import BadInput

if TYPE_CHECKING:
    from whorl.envs.native.device import Dynamics

WORLDS: dict[str, str] = {  # id -> "file:class"
    "CartPole-v0": "cartpole:CartPoleV0",
    "CartPole-v1": "cartpole:CartPole",
    "MountainCar-v0": "mountain_car:MountainCar",
    "MountainCarContinuous-v0": "mountain_car:MountainCarContinuous",
    "Acrobot-v1": "acrobot:Acrobot",
    "Pendulum-v1": "pendulum:Pendulum",
    "CliffWalking-v1": "cliff_walking:CliffWalking",
    "GridWorld-v0": "grid_world:GridWorld",
    "RandomWalk-v0": "random_walk:RandomWalk",
    "BitFlipping8-v0": "bit_flipping:BitFlipping8",
    "BitFlipping15-v0": "bit_flipping:BitFlipping",
    "TMaze20-v0": "memory:TMaze",
    "RepeatPrevious-v0": "memory:RepeatPrevious",
    "CartPoleP-v1": "memory:CartPoleP",
    "PendulumP-v1": "memory:PendulumP",
    "ProbeConstant-v0": "probes:ProbeConstant",
    "ProbeObservation-v0": "probes:ProbeObservation",
    "ProbeDiscount-v0": "probes:ProbeDiscount",
    "ProbeAction-v0": "probes:ProbeAction",
    "ProbePolicy-v0": "probes:ProbePolicy",
    "ProbeConstantContinuous-v0": "probes:ProbeConstantContinuous",
    "ProbeObservationContinuous-v0": "probes:ProbeObservationContinuous",
    "ProbeDiscountContinuous-v0": "probes:ProbeDiscountContinuous",
    "ProbeActionContinuous-v0": "probes:ProbeActionContinuous",
    "ProbePolicyContinuous-v0": "probes:ProbePolicyContinuous",
}


def make(
    id: str,
    num_envs: int = 1,
    seed: int = 0,
    device: str = "cpu",
    max_episode_steps: int | None = None,
    torch: bool = False,
) -> Env:
    """A native world: compiled for the CPU, in torch operations for any other device, and there, too, if `torch` says so.

    Raises BadInput for an id that is not in WORLDS, or that has no version in torch where that is needed.
    """
    if torch or device != "cpu":
        from whorl.envs.native.device import DeviceWorld

        return DeviceWorld(id, num_envs, seed, max_episode_steps, device)
    if id not in WORLDS:
        raise BadInput(f"no native world is called {id!r}; there are {', '.join(WORLDS)}")
    file, name = WORLDS[id].split(":")
    return getattr(import_module(f"{__name__}.{file}"), name)(num_envs, seed, max_episode_steps)


def dynamics(id: str, device: str = "cpu") -> Dynamics:
    """A classic-control world as pure functions of tensors with any leading axes: `start`, `step` and `observe` of `Dynamics` in
    envs/native/device.py. They are differentiable, and give the numbers of `make_env(id)`.

    device: where `start` gives states. Raises BadInput for an id without a version in torch.
    """
    from whorl.envs.native import device as worlds

    return worlds.dynamics(id, device)
