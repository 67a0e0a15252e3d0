"""The /whorl/v1 routes: N environments stepped in one call, arrays as raw bytes. They stand beside /v1 and change nothing there.

    GET    /whorl/v1                      {"server", "version", "protocol"}
    POST   /whorl/v1/vectors              {env_id, num_envs, seed, max_episode_steps, render} -> description, see `Vector.described`
    POST   /whorl/v1/vectors/ID/reset     {"seed": integer or null} -> flags, observation, [action_mask]
    POST   /whorl/v1/vectors/ID/step      actions -> flags, observation, reward, terminated, truncated, [next_observation],
                                          [valid], [action_mask]
    GET    /whorl/v1/vectors/ID/state     npz of named arrays; 204: it cannot be saved
    PUT    /whorl/v1/vectors/ID/state     npz -> as reset: where each environment stands
    GET    /whorl/v1/vectors/ID/render    npy uint8 [height, width, 3]; 204: it has no picture
    DELETE /whorl/v1/vectors/ID           204

Arrays are little-endian, in C order, without padding: observations and actions [N, *shape] in the dtype of the space (the
leaves of a Dict in its order, depth first), reward [N] float32, terminated, truncated and valid [N] bool, action_mask [N, A]
bool. The flags are one byte, the sum of NEXT, VALID and MASK for what follows. Errors are JSON {"message": text}.
"""

from __future__ import annotations

import base64
import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from gymnasium import spaces
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import whorl
from whorl.apps.gym_server import ids
from whorl.apps.gym_server.instances import Instance
from whorl.apps.gym_server.monitor import flag
from whorl.apps.gym_server.service import client, fields, service
from whorl.apps.gym_server.wire import required, whole, written
from whorl.envs.env import Env
from whorl.envs.make import make_env
from whorl.errors import BadInput

PROTOCOL = 1
NEXT, VALID, MASK = 1, 2, 4  # next_observation (where absent, it equals observation), valid (all), action_mask (none)
BINARY = "application/octet-stream"


class Vector:
    """One `Env` behind an id: bytes in and out."""

    def __init__(self, env_id: str, env: Env) -> None:
        self.env_id, self.env = env_id, env
        self._begun = False  # the first episodes have
        self._shape = (env.num_envs, *(env.action_space.shape or ()))
        self.described = {  # what a client is told when it is made
            "env_id": env_id,
            "origin": env.origin,
            "num_envs": env.num_envs,
            "observation_space": exact(env.observation_space),
            "action_space": exact(env.action_space),
            "max_episode_steps": env.max_episode_steps,
            "reward_threshold": env.reward_threshold,
            "saves_state": env.state() is not None,
        }

    def reset(self, seed: int | None) -> bytes:
        self._begun = False  # if the reset fails
        return self._stands(self.env.reset(seed))

    def step(self, body: bytes) -> bytes:
        if not self._begun:
            raise BadInput(f"{self.env_id}: no episode has begun: call reset first")
        step = self.env.step(self._action(body))
        moved, mask = step.next_observation is not step.observation, self.env.action_mask
        parts = [
            bytes([NEXT * moved + VALID * (step.valid is not None) + MASK * (mask is not None)]),
            *raw(self.env.observation_space, step.observation),
            np.asarray(step.reward, "<f4").tobytes(),
            np.asarray(step.terminated, bool).tobytes(),
            np.asarray(step.truncated, bool).tobytes(),
        ]
        if moved:
            parts += raw(self.env.observation_space, step.next_observation)
        parts += [np.asarray(array, bool).tobytes() for array in (step.valid, mask) if array is not None]
        return b"".join(parts)

    def _action(self, body: bytes) -> np.ndarray:
        """Refuses what environments check in their own ways, or not at all."""
        space: Any = self.env.action_space
        dtype, size = space.dtype.newbyteorder("<"), math.prod(self._shape)
        if len(body) != size * dtype.itemsize:
            raise BadInput(
                f"{self.env_id}: expected actions of {size * dtype.itemsize} bytes ({space.dtype} of shape "
                f"{list(self._shape)}), got {len(body)} bytes"
            )
        action = np.frombuffer(body, dtype).reshape(self._shape).astype(space.dtype)
        if isinstance(space, spaces.Box):
            if not np.isfinite(action).all():
                raise BadInput(f"{self.env_id}: expected finite actions, got NaN or infinity")
            return action
        sizes = 2 if isinstance(space, spaces.MultiBinary) else getattr(space, "n", None) or space.nvec
        if ((action < 0) | (action >= sizes)).any():
            raise BadInput(f"{self.env_id}: expected actions from 0 to below {np.max(sizes)}, got others")
        return action

    def state(self) -> bytes | None:
        state, file = self.env.state(), io.BytesIO()
        if state is None:
            return None
        np.savez(file, allow_pickle=False, **state)
        return file.getvalue()

    def load_state(self, body: bytes) -> bytes:
        return self._stands(self.env.load_state(unpacked(body, self.env.state())))

    def render(self) -> bytes | None:
        picture, file = self.env.render(), io.BytesIO()
        if picture is None:
            return None
        np.save(file, np.asarray(picture, np.uint8), allow_pickle=False)
        return file.getvalue()

    def close(self) -> None:
        self.env.close()

    def _stands(self, observation: Any) -> bytes:
        self._begun, mask = True, self.env.action_mask
        parts = [bytes([MASK * (mask is not None)]), *raw(self.env.observation_space, observation)]
        return b"".join(parts if mask is None else [*parts, np.asarray(mask, bool).tobytes()])


def exact(space: Any) -> dict[str, Any]:
    """A space as JSON that loses nothing: bounds are the raw bytes of their arrays, little-endian, in base64."""
    match space:
        case spaces.Box():
            low, high = (base64.b64encode(_little(end, space.dtype)).decode() for end in (space.low, space.high))
            return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape), "low": low, "high": high}
        case spaces.Discrete():
            return {"type": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}
        case spaces.MultiDiscrete():
            bounds = {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
            return {"type": "MultiDiscrete", **bounds, "dtype": str(space.dtype)}
        case spaces.MultiBinary():
            return {"type": "MultiBinary", "n": list(map(int, space.shape))}
        case spaces.Dict():
            return {"type": "Dict", "spaces": [[key, exact(part)] for key, part in space.spaces.items()]}
    raise BadInput(
        f"a {type(space).__name__} space has no raw form: an environment with mixed actions is not served, train where it is"
    )


def raw(space: Any, observation: Any) -> Iterator[bytes]:
    """The leaves of an observation [N, ...], each as bytes."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from raw(part, observation[key])
    else:
        yield _little(observation, space.dtype)


def _little(array: Any, dtype: Any) -> bytes:
    return np.asarray(array).astype(dtype.newbyteorder("<"), copy=False).tobytes()


def unpacked(body: bytes, like: dict[str, Any] | None) -> dict[str, np.ndarray]:
    """An npz as arrays of the names, shapes and dtypes of `like`.

    Not `numpy.load`, which allocates what a file's header claims. Raises BadInput for anything else, and for numbers that
    are not finite.
    """
    if like is None:
        raise BadInput("this environment cannot save its state, so it cannot be given one")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            names = sorted(archive.namelist())
            if names != sorted(f"{name}.npy" for name in like):
                raise ValueError(f"it holds {names[:10]}")
            return {name: _array(archive.open(f"{name}.npy"), np.asarray(array)) for name, array in like.items()}
    except (ValueError, OSError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"expected an npz of {', '.join(like)} as GET gives it: {error}") from error


def _array(file: IO[bytes], like: np.ndarray) -> np.ndarray:
    """The header has to be the one that numpy writes for `like`, byte for byte: numpy's reader of headers parses Python literals,
    which fails in many ways."""
    header, described = io.BytesIO(), np.lib.format.header_data_from_array_1_0(like)
    np.lib.format.write_array_header_1_0(header, described)
    start = header.getvalue()
    data = file.read(len(start) + like.nbytes + 1)
    if not data.startswith(start) or len(data) != len(start) + like.nbytes:
        raise ValueError(f"expected {like.dtype} of shape {list(like.shape)}, it holds something else")
    array = np.frombuffer(data, like.dtype, offset=len(start))
    array = array.reshape(like.shape, order="F" if described["fortran_order"] else "C")
    if not np.isfinite(array).all():
        raise ValueError("its numbers are not finite")
    return array


# --------------------------------------------------------------------------------------------------- the routes


def vector(request: Request) -> Instance:
    id = request.path_params["id"]
    if found := service(request).instances.find(id, Vector):
        return found
    raise HTTPException(404, f"there is no vector {id[:100]}: it was closed, or has been idle for too long")


def binary(content: bytes | None) -> Response:
    if content is None:
        return Response(status_code=204)
    return Response(content, 200, media_type=BINARY)


async def hello(request: Request) -> Response:
    about = {"server": "whorl", "version": whorl.__version__, "protocol": PROTOCOL}
    return Response(written(about), 200, media_type="application/json")


async def create(request: Request) -> Response:
    body, here = await fields(request), service(request)
    env_id, most = required(body, "env_id"), here.settings.max_envs
    num_envs = whole(body, "num_envs", 1, most) or 1
    seed, limit = whole(body, "seed") or 0, whole(body, "max_episode_steps", 1)
    today, options = ids.resolved(env_id, here.settings.allow)
    if limit is not None:
        options["max_episode_steps"] = limit
    if flag(body.get("render"), "render"):
        options["render_mode"] = "rgb_array"

    def make() -> Vector:
        try:
            env = make_env(today, num_envs, seed, **options)
        except BadInput as error:
            raise ids.malformed(env_id, f"it cannot be made here: {error}") from error
        try:
            return Vector(env_id, env)
        except BaseException:
            env.close()
            raise

    made = await here.instances.open(env_id, make, client(request), num_envs, secret=True)
    return Response(written({"vector_id": made.id, **made.holds.described}), 200, media_type="application/json")


async def reset(request: Request) -> Response:
    here, body = vector(request), await fields(request)
    seed = whole(body, "seed")
    return binary(await here.ask(lambda: here.holds.reset(seed)))


async def step(request: Request) -> Response:
    here, body = vector(request), await request.body()
    return binary(await here.ask(lambda: here.holds.step(body)))


async def get_state(request: Request) -> Response:
    here = vector(request)
    return binary(await here.ask(here.holds.state))


async def put_state(request: Request) -> Response:
    here, body = vector(request), await request.body()
    return binary(await here.ask(lambda: here.holds.load_state(body)))


async def render(request: Request) -> Response:
    here = vector(request)
    return binary(await here.ask(here.holds.render))


async def close(request: Request) -> Response:
    await service(request).instances.close(vector(request))
    return Response(status_code=204)


ROUTES: dict[str, dict[str, Any]] = {
    "/whorl/v1": {"GET": hello},
    "/whorl/v1/vectors": {"POST": create},
    "/whorl/v1/vectors/{id}": {"DELETE": close},
    "/whorl/v1/vectors/{id}/reset": {"POST": reset},
    "/whorl/v1/vectors/{id}/step": {"POST": step},
    "/whorl/v1/vectors/{id}/state": {"GET": get_state, "PUT": put_state},
    "/whorl/v1/vectors/{id}/render": {"GET": render},
}
