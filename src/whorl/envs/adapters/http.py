"""Environments of another process, language or machine, over HTTP. `whorl serve-gym` is such a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from whorl.envs.adapters.gym_client import Connection, from_json
from whorl.envs.adapters.http_instances import Instances
from whorl.envs.adapters.http_vector import Vector
from whorl.envs.adapters.spaces import discrete_sizes
from whorl.envs.env import Env, Observation, Step
from whorl.envs.ids import place
from whorl.errors import BadInput, EnvError

PROTOCOL = 1  # of whorl's server


class Http(Env):
    """N environments on a server: `Http("http://127.0.0.1:5000/CartPole-v1", num_envs=8)`. What follows the host is the
    environment's id.

    protocol: "vector" is that of whorl's own server: one request steps all N, and all that the environments on the server
        give comes back bit for bit, states and pictures included. "v1" is gym-http-api, which the original server and those
        of other languages speak: N instances over N connections, Box and Discrete spaces, neither states nor pictures; seeds
        are those of the Gymnasium adapter. "auto" asks the server whether it is whorl's.
    seed: of the first episodes. max_episode_steps: a time limit (with "v1" counted here). render_mode: None, or
        "rgb_array" for `render` to give pictures.
    timeout: seconds that an answer may take; by default those of the environment variable WHORL_GYM_TIMEOUT, or 120.

    A token is the URL's password, or the environment variable WHORL_GYM_TOKEN; `id` is the URL without it.

    An environment that its server gave up, because it was idle too long, is made again by `reset(seed)`, which begins
    everything anew. Any other loss raises EnvError, and the next call must be a `reset` or `load_state`.
    Raises BadInput for what the server refuses as asked wrongly, Incompatible for spaces that the protocol does not carry,
    EnvError for a server that is unreachable, silent, lost or makes no sense, and for an environment that crashed.
    """

    origin = "http"

    def __init__(
        self,
        url: str,
        num_envs: int = 1,
        seed: int = 0,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        protocol: str = "auto",
        timeout: float | None = None,
    ) -> None:
        base, env_id, token = place(url)
        if not env_id:
            raise BadInput(f"{base} names a server: add the environment's id, such as {base}/CartPole-v1")
        self.id = f"{base}/{env_id}"
        for name, number in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps)):
            if number is not None and number < 1:
                raise BadInput(f"{name} must be at least 1, got {number}")
        if render_mode not in (None, "rgb_array"):
            raise BadInput(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        if protocol not in ("auto", "vector", "v1"):
            raise BadInput(f"protocol must be 'auto', 'vector' or 'v1', got {protocol!r}")
        self.num_envs = num_envs
        self._remote = self._open(base, token, timeout, protocol, seed, {
            "env_id": env_id,
            "num_envs": num_envs,
            **({} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}),
            "render": render_mode is not None,
        })  # fmt: skip
        self.observation_space, self.action_space = self._remote.observation_space, self._remote.action_space
        self.max_episode_steps, self.reward_threshold = self._remote.max_episode_steps, self._remote.reward_threshold
        self._sizes = discrete_sizes(self.action_space)
        self._action_shape = (num_envs, *(self.action_space.shape or ()))
        self._seed: int | None = seed  # of the first reset
        self._standing = self._closed = False

    def _open(
        self, base: str, token: str | None, timeout: float | None, protocol: str, seed: int, wanted: dict[str, Any]
    ) -> Vector | Instances:
        connection = Connection(base, token, timeout)
        own = _is_whorl(connection)
        if protocol == "vector" and not own:
            raise BadInput(f"{base} is not a server of whorl's, so it has no protocol 'vector': use 'v1', or 'auto'")
        if protocol == "vector" or (protocol == "auto" and own):
            return Vector(self.id, connection, wanted, seed)
        connection.close()
        if wanted["render"]:
            raise BadInput(
                f"{self.id}: gym-http-api (/v1) has no pictures: serve it with `whorl serve-gym`, or leave render_mode out"
            )
        return Instances(self.id, lambda: Connection(base, token, timeout), wanted, seed, seeds_at_reset=own)

    def reset(self, seed: int | None = None) -> Observation:
        self._begin()
        seed = self._seed if seed is None else self.part_seed(seed)
        observation, self.action_mask = self._remote.reset(seed)
        self._seed, self._standing = None, True
        return observation

    def step(self, action: Any, rows: np.ndarray | None = None) -> Step:
        action = self._checked(action)
        if not self._standing:
            raise BadInput(f"{self.id}: reset() before step(): nothing was begun yet, or the last call failed")
        self._begin()
        step, self.action_mask = self._remote.step(action)
        self._standing = True
        return step

    def state(self) -> dict[str, Any] | None:
        return self._vector.state() if self._remote.saves_state else None

    def load_state(self, state: dict[str, Any]) -> Observation:
        if not self._remote.saves_state:
            raise BadInput(f"{self!r} cannot save its state, so there is none to load")
        self._begin()
        observation, self.action_mask = self._vector.load_state(state)
        self._seed, self._standing = None, True
        return observation

    def render(self) -> np.ndarray | None:
        return self._vector.render() if self._remote.pictures else None

    def close(self) -> None:
        """Frees the environments on the server. One that cannot be reached frees them itself after its idle time."""
        if self._closed:
            return
        self._closed, self._standing = True, False
        self._remote.close()

    @property
    def _vector(self) -> Vector:
        self._open_still()
        assert isinstance(self._remote, Vector)
        return self._remote

    def _open_still(self) -> None:
        if self._closed:
            raise BadInput(f"{self.id} was closed: make a new one")

    def _begin(self) -> None:
        """A call that moves the environments: until it went well, nobody knows where they stand."""
        self._open_still()
        self._standing = False

    def _checked(self, action: Any) -> np.ndarray:
        """The action in the space's dtype. Raises BadInput for one of another shape or kind, or that does not exist."""
        action, dtype = np.asarray(action), np.dtype(self.action_space.dtype)
        if action.shape != self._action_shape or not np.can_cast(action.dtype, dtype, "same_kind"):
            raise BadInput(
                f"{self.id}: expected actions {dtype} of shape {self._action_shape}, got {action.dtype} of {action.shape}"
            )
        if self._sizes is not None:
            wrong = (action.reshape(self.num_envs, -1) < 0) | (action.reshape(self.num_envs, -1) >= self._sizes)
            if wrong.any():
                i = int(wrong.any(-1).argmax())
                raise BadInput(f"{self.id}: an action of {self.action_space} cannot be {action[i]} (environment {i})")
        return np.ascontiguousarray(action, dtype)


def make(
    id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any]
) -> Env:
    """For `make_env`: `Http`, after a look at what was asked."""
    if wrappers:
        raise BadInput("an environment on a server is stepped there, and takes no wrappers here")
    if device != "cpu" or prefer not in ("native", Http.origin):  # the default, and what `origin` says
        raise BadInput("an environment on a server is stepped there: leave device and prefer out")
    if unknown := set(options) - {"render_mode", "max_episode_steps", "protocol", "timeout"}:
        raise BadInput(
            f"an environment on a server has no option {', '.join(sorted(unknown))}, only render_mode, max_episode_steps, "
            "protocol and timeout"
        )
    return Http(id, num_envs, seed, **options)


def _is_whorl(connection: Connection) -> bool:
    """Whether a server is whorl's. Raises BadInput for one that wants a token, EnvError for a newer one."""
    status, data = connection.ask("GET", "/whorl/v1/")
    if status in (401, 403):
        raise BadInput(connection.refusal(status, data))
    if status >= 500:
        raise EnvError(connection.refusal(status, data))
    try:
        said = from_json(data, connection.asked) if status == 200 else {}
    except EnvError:  # a page of another server
        said = {}
    if said.get("server") == "whorl" and said.get("protocol") != PROTOCOL:
        raise EnvError(
            f"{connection.base} speaks protocol {said.get('protocol')!r}, this whorl speaks {PROTOCOL}: update the older of both"
        )
    return said.get("server") == "whorl"
