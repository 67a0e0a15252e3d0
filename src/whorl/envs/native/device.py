"""The classic-control worlds in torch operations, for accelerators and for gradients: the same streams and numbers as the compiled ones.

The arithmetic is that of `cartpole.py`, `mountain_car.py`, `acrobot.py` and `pendulum.py`, written for whole batches
[...] without branches, so that no step waits for the device: pure functions of states [..., S] and actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from whorl.counted import bits, mix
from whorl.envs.env import Env, Step
from whorl.envs.native import acrobot, cartpole, mountain_car, pendulum
from whorl.envs.native.world import NO_LIMIT, Classic, checked, picture, positive, wrapped
from whorl.errors import BadInput


def cartpole_dynamics(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    c = cartpole
    x, velocity, angle, spin = state.unbind(-1)
    force = torch.where(action == 1, c.FORCE, -c.FORCE)
    cos, sin = angle.cos(), angle.sin()
    push = (force + c.POLE_MOMENT * (spin * spin) * sin) / c.TOTAL_MASS
    spin_rate = (c.GRAVITY * sin - cos * push) / (
        c.HALF_LENGTH * (4.0 / 3.0 - c.POLE_MASS * (cos * cos) / c.TOTAL_MASS)
    )
    rate = push - c.POLE_MOMENT * spin_rate * cos / c.TOTAL_MASS
    state = state + c.SECONDS * torch.stack((velocity, rate, spin, spin_rate), -1)
    terminated = (state[..., 0].abs() > c.MAX_POSITION) | (state[..., 2].abs() > c.MAX_ANGLE)
    return state, torch.ones_like(x), terminated


def mountain_car_dynamics(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    c = mountain_car
    position, velocity = state.unbind(-1)
    velocity = velocity + ((action - 1).to(state.dtype) * c.FORCE + (3 * position).cos() * (-c.GRAVITY))
    velocity = velocity.clamp(-c.MAX_SPEED, c.MAX_SPEED)
    position = (position + velocity).clamp(c.LEFT, c.RIGHT)
    velocity = velocity.masked_fill((position <= c.LEFT) & (velocity < 0), 0.0)
    terminated = (position >= c.GOAL) & (velocity >= 0)
    return torch.stack((position, velocity), -1), torch.full_like(position, -1.0), terminated


def continuous_mountain_car_dynamics(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    c = mountain_car
    position, velocity = state.unbind(-1)
    slope = (c.GRAVITY * (3 * position).double().cos()).to(state.dtype)
    velocity = velocity + (action[..., 0].clamp(-1, 1) * c.POWER - slope)
    velocity = velocity.clamp(-c.MAX_SPEED, c.MAX_SPEED)
    position = (position + velocity).clamp(c.LEFT, c.RIGHT)
    velocity = velocity.masked_fill((position <= c.LEFT) & (velocity < 0), 0.0)
    terminated = (position >= c.CONTINUOUS_GOAL) & (velocity >= 0)
    wanted = action[..., 0].double()
    return torch.stack((position, velocity), -1), 100.0 * terminated - wanted * wanted * 0.1, terminated


def acrobot_rates(state: Tensor, torque: Tensor) -> Tensor:
    angle_1, angle_2, spin_1, spin_2 = state.unbind(-1)
    gravity, cos, sin = acrobot.GRAVITY, angle_2.cos(), angle_2.sin()
    d1 = 0.25 + (1.25 + cos) + 2.0
    d2 = 0.25 + 0.5 * cos + 1.0
    phi2 = 0.5 * gravity * (angle_1 + angle_2 - math.pi / 2).cos()
    phi1 = -0.5 * spin_2**2 * sin - spin_2 * spin_1 * sin + 1.5 * gravity * (angle_1 - math.pi / 2).cos() + phi2
    rate_2 = (torque + d2 / d1 * phi1 - 0.5 * spin_1**2 * sin - phi2) / (1.25 - d2**2 / d1)
    return torch.stack((spin_1, spin_2, -(d2 * rate_2 + phi1) / d1, rate_2), -1)


def acrobot_dynamics(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    c, torque = acrobot, (action - 1).to(state.dtype)
    k1 = acrobot_rates(state, torque)
    k2 = acrobot_rates(state + c.SECONDS / 2 * k1, torque)
    k3 = acrobot_rates(state + c.SECONDS / 2 * k2, torque)
    k4 = acrobot_rates(state + c.SECONDS * k3, torque)
    angles, spins = (state + c.SECONDS / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)).split(2, -1)
    angles = angles - 2 * math.pi * ((angles - math.pi) / (2 * math.pi)).ceil()
    spin_1, spin_2 = spins.unbind(-1)
    spins = torch.stack((spin_1.clamp(-c.MAX_SPIN_1, c.MAX_SPIN_1), spin_2.clamp(-c.MAX_SPIN_2, c.MAX_SPIN_2)), -1)
    terminated = -angles[..., 0].cos() - angles.sum(-1).cos() > 1.0
    return torch.cat((angles, spins), -1), terminated.to(state.dtype) - 1.0, terminated


def acrobot_observation(state: Tensor) -> Tensor:
    angles, spins = state.split(2, -1)
    return torch.cat((torch.stack((angles.cos(), angles.sin()), -1).flatten(-2), spins), -1)


def pendulum_dynamics(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    c = pendulum
    angle, speed = state.unbind(-1)
    torque = action[..., 0].clamp(-c.MAX_TORQUE, c.MAX_TORQUE)
    from_upright = (angle + math.pi) % (2 * math.pi) - math.pi
    cost = from_upright**2 + 0.1 * speed**2 + 0.001 * (torque * torque)
    speed = speed + (1.5 * c.GRAVITY * angle.sin() + 3 * torque) * c.SECONDS
    speed = speed.clamp(-c.MAX_SPEED, c.MAX_SPEED)
    return torch.stack((angle + speed * c.SECONDS, speed), -1), -cost, torch.zeros_like(angle, dtype=torch.bool)


def pendulum_observation(state: Tensor) -> Tensor:
    angle, speed = state.unbind(-1)
    return torch.stack((angle.cos(), angle.sin(), speed), -1)


class TorchWorld(NamedTuple):
    """What a world in torch is made of."""

    sibling: type[Classic]  # the compiled one
    step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    observe: Callable[[Tensor], Tensor] = Tensor.clone
    dtype: torch.dtype = torch.float64  # the precision in which the compiled one steps


WORLDS: dict[str, TorchWorld] = {
    "CartPole-v0": TorchWorld(cartpole.CartPoleV0, cartpole_dynamics),
    "CartPole-v1": TorchWorld(cartpole.CartPole, cartpole_dynamics),
    "MountainCar-v0": TorchWorld(mountain_car.MountainCar, mountain_car_dynamics),
    "MountainCarContinuous-v0": TorchWorld(
        mountain_car.MountainCarContinuous, continuous_mountain_car_dynamics, dtype=torch.float32
    ),
    "Acrobot-v1": TorchWorld(acrobot.Acrobot, acrobot_dynamics, acrobot_observation),
    "Pendulum-v1": TorchWorld(pendulum.Pendulum, pendulum_dynamics, pendulum_observation),
}


class Dynamics(NamedTuple):
    """A world as pure functions of tensors with any leading axes, differentiable where the world is smooth. S: numbers of a state.

    start(seed, index, episode) -> state [..., S] float64: where the episode of that number starts in environment `index` of that seed,
        as it does in `make_env(id, seed=seed)`; whole numbers or int64 tensors that broadcast.
    step(state [..., S], action) -> (state [..., S], reward [...], terminated [...] bool). action: [..., D] for a Box, else [...]; in the
        precision of the state and the action. No time limit, no reset.
    observe(state [..., S]) -> observation [..., *obs] in the state's precision.
    """

    start: Callable[[Tensor | int, Tensor | int, Tensor | int], Tensor]
    step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    observe: Callable[[Tensor], Tensor]


def torch_world(id: str) -> TorchWorld:
    """Raises BadInput for an id without a version in torch."""
    if id not in WORLDS:
        raise BadInput(
            f"{id} has no version in torch, which prefer='torch' and devices other than the CPU need; those that have one: "
            f"{', '.join(WORLDS)}"
        )
    return WORLDS[id]


def dynamics(id: str, device: str = "cpu") -> Dynamics:
    """See `whorl.envs.native.dynamics`."""
    world = torch_world(id)
    return Dynamics(starts(world.sibling, device), world.step, world.observe)


def starts(world: type[Classic], device: str) -> Callable[[Tensor | int, Tensor | int, Tensor | int], Tensor]:
    """(seed, index, episode) -> the state [..., S] float64 where that episode starts: `stream` and `uniform` of world.py."""
    low, high = (torch.tensor(x, dtype=torch.float64, device=device) for x in (world.low, world.high))
    numbers = torch.arange(len(world.low), device=device)

    def start(seed: Tensor | int, index: Tensor | int, episode: Tensor | int) -> Tensor:
        seed, index, episode = (
            x if isinstance(x, Tensor) else torch.tensor(wrapped(x), device=device) for x in (seed, index, episode)
        )
        key = mix(mix(mix(seed) ^ index) ^ episode)
        return low + (high - low) * (bits(key[..., None], numbers).double() * 2.0**-53)

    return start


class DeviceWorld(Env):
    """A classic-control world as tensors on `device`, the CPU included (its `origin` is "torch" there). Differs from the compiled
    world of the same id in this only:

    `next_observation` is always a tensor of its own and every `Step` has new tensors; values of discrete actions are
    not checked. Both would make the host wait. `state()` and `load_state` speak the compiled world's format, so that a
    run can go on elsewhere.
    """

    origin = "native"
    partial = frozenset({"restart", "rows"})

    def __init__(
        self, id: str, num_envs: int = 1, seed: int = 0, max_episode_steps: int | None = None, device: str = "cuda"
    ):
        sibling, self._dynamics, self._observation, self._dtype = torch_world(id)
        self._sibling, self._start = sibling, starts(sibling, device)
        if str(device) == "cpu":
            self.origin = "torch"  # beside the compiled one, and unlike all others there it gives tensors
        self.id, self.device, self.reward_threshold = id, str(device), sibling.reward_threshold
        self.num_envs = positive("num_envs", num_envs)
        self.max_episode_steps = sibling.max_episode_steps
        if max_episode_steps is not None:
            self.max_episode_steps = positive("max_episode_steps", max_episode_steps)
        self.observation_space, self.action_space = deepcopy(sibling.observation_space), deepcopy(sibling.action_space)
        self._index = torch.arange(num_envs, device=device)
        self._seed = torch.tensor(wrapped(seed), device=device)
        self._state = torch.zeros(num_envs, len(sibling.low), dtype=torch.float64, device=device)
        self._episode, self._elapsed = torch.full_like(self._index, -1), torch.zeros_like(self._index)
        self._begun = False
        self._action_shape = (num_envs, *(self.action_space.shape or ()))
        self._action_dtype = torch.float32 if self.action_space.shape else torch.int64

    def _fresh(self) -> Tensor:
        """The state in which each environment's present episode starts, [N, S]."""
        return self._start(self._seed, self.first + self._index, self._episode)

    def _observe(self) -> Tensor:
        return self._observation(self._state).float()

    def reset(self, seed: int | None = None) -> Tensor:
        if seed is not None:
            self._seed.fill_(wrapped(seed))
            self._episode.fill_(-1)
        self._episode += 1
        self._elapsed.zero_()
        self._state, self._begun = self._fresh(), True
        return self._observe()

    def restart(self, rows: Any) -> Tensor:
        rows = torch.as_tensor(rows, device=self.device)
        self._episode += rows
        self._elapsed.masked_fill_(rows, 0)
        self._state = torch.where(rows[:, None], self._fresh(), self._state)
        return self._observe()

    def step(self, action: Any, rows: Any = None) -> Step:
        if not self._begun:
            raise BadInput(f"{self.id}: step before the first reset; call reset() once after making the environment")
        action = torch.as_tensor(action, dtype=self._action_dtype, device=self.device)
        if action.shape != self._action_shape:
            raise BadInput(f"{self.id}: expected actions of shape {self._action_shape}, got {tuple(action.shape)}")
        state, reward, terminated = self._dynamics(self._state.to(self._dtype), action)
        state = state.double()
        if rows is None:
            self._state = state
            self._elapsed += 1
        else:
            rows = torch.as_tensor(rows, device=self.device).clone()
            self._state = torch.where(rows[:, None], state, self._state)
            self._elapsed += rows
            reward, terminated = reward * rows, terminated & rows
        successor = self._observe()
        truncated = self._elapsed >= (self.max_episode_steps or NO_LIMIT)
        ended = terminated | truncated
        self._episode += ended
        self._elapsed.masked_fill_(ended, 0)
        self._state = torch.where(ended[:, None], self._fresh(), self._state)
        return Step(self._observe(), reward.float(), terminated, truncated, successor, rows)

    def state(self) -> dict[str, np.ndarray]:
        """{state [N, S] float64, episode [N], elapsed [N], seed []} on the host."""
        parts = {"state": self._state, "episode": self._episode, "elapsed": self._elapsed, "seed": self._seed}
        return {name: part.cpu().numpy().copy() for name, part in parts.items()}

    def load_state(self, state: dict[str, np.ndarray]) -> Tensor:
        state = checked(self._sibling, self.num_envs, state)
        for name in ("state", "episode", "elapsed", "seed"):
            mine = getattr(self, f"_{name}")
            mine.copy_(torch.as_tensor(state[name]))
        self._begun = bool((self._episode >= 0).all())
        return self._observe()

    def render(self) -> np.ndarray:
        return picture(self.id, self._state[0].cpu().numpy())
