"""N remote environments as one vector of whorl's own server: one request and one binary answer a step.

All under /whorl/v1/vectors; numbers are little endian, without padding. An answer to reset and state is

    flags (1 byte), observation leaves, [action_mask]

and an answer to step

    flags, observation leaves, reward f4 [N], terminated bool [N], truncated bool [N], [next_observation leaves],
    [valid bool [N]], [action_mask bool [N, A]]

with the leaves in the order of the space, depth first. Flags: 1 next_observation follows (else it is the observation),
2 valid follows, 4 action_mask follows. States are .npz files of plain arrays, pictures .npy files.
"""

from __future__ import annotations

import base64
import io
import math
import re
import zipfile
from contextlib import suppress
from typing import Any

import numpy as np
from gymnasium import spaces

from whorl.envs.adapters.gym_client import GONE, MAKING, MOST, NO_SERVER, Connection, from_json, to_json
from whorl.envs.adapters.spaces import discrete_sizes
from whorl.envs.env import Observation, Step
from whorl.errors import BadInput, EnvError

ROUTE = "/whorl/v1/vectors"
SUCCESSOR, VALID, MASK = 1, 2, 4  # flags
REFUSED = (400, 401, 403, 413, 422)  # what was asked for is at fault


class Vector:
    """One vector of N environments on whorl's server. `wanted`: the request that makes it, but for the seed.

    What `reset` and `load_state` return is (observation, action mask or None).
    """

    pictures = True

    def __init__(self, name: str, connection: Connection, wanted: dict[str, Any], seed: int) -> None:
        self._name, self._connection, self._wanted = name, connection, wanted
        self.num_envs: int = wanted["num_envs"]
        self._at = ""  # the vector's route
        self._spaces: tuple[spaces.Space, spaces.Space] | None = None  # of observations and of actions
        self._create(seed)

    def _create(self, seed: int | None) -> None:
        self._send("POST", ROUTE, self._wanted | {"seed": seed})
        data = self._checked(*self._connection.receive(timeout=MAKING))
        made = from_json(data, self._connection.asked)
        try:
            there = space(made["observation_space"]), space(made["action_space"])
            self.max_episode_steps, self.reward_threshold = made["max_episode_steps"], made["reward_threshold"]
            self.saves_state = bool(made["saves_state"])
            for number in (self.max_episode_steps, self.reward_threshold):
                if not isinstance(number, int | float | None):
                    raise ValueError(f"{number!r} is no number")
            self._at = f"{ROUTE}/{re.fullmatch('[0-9a-f]{32}', made['vector_id'])[0]}"  # type: ignore[index]
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError, AssertionError) as error:
            raise self._malformed(f"it does not describe an environment ({type(error).__name__}: {error})") from error
        if self._spaces not in (None, there):
            self._free()
            raise EnvError(
                f"{self._name} came back with other spaces than it had: make a new environment, start a new run"
            )
        self.observation_space, self.action_space = self._spaces = there
        n, sizes = self.num_envs, discrete_sizes(self.action_space)
        self._mask_shape = (n, sum(sizes or ()))
        seen = sum(math.prod((n, *leaf.shape)) * leaf.dtype.itemsize for leaf in _leaves(self.observation_space))
        self._most = 1 + 2 * seen + 7 * n + math.prod(self._mask_shape)  # bytes of an answer to step
        if self._most > MOST:
            raise self._malformed(f"a step of it would take {self._most:,} bytes, at most {MOST:,} are read")

    def reset(self, seed: int | None) -> tuple[Observation, np.ndarray | None]:
        status, data = self._answer("POST", f"{self._at}/reset", {"seed": seed})
        if (
            status == 404 and seed is not None
        ):  # freed while it was idle: a seed begins everything anew, so nothing is lost
            self._create(seed)
            status, data = self._answer("POST", f"{self._at}/reset", {"seed": seed})
        return self._standing(self._checked(status, data))

    def step(self, action: np.ndarray) -> tuple[Step, np.ndarray | None]:
        self._send("POST", f"{self._at}/step", action.astype(action.dtype.newbyteorder("<"), copy=False).tobytes())
        cursor, n = _Cursor(self._checked(*self._connection.receive(max(self._most, 1 << 16)))), self.num_envs
        try:
            flags = cursor.flags(SUCCESSOR | VALID | MASK)
            observation = cursor.tree(self.observation_space, n)
            reward = cursor.take((n,), "f4")
            terminated, truncated = cursor.take((n,), "?"), cursor.take((n,), "?")
            successor = cursor.tree(self.observation_space, n) if flags & SUCCESSOR else observation
            valid = cursor.take((n,), "?") if flags & VALID else None
            mask = cursor.take(self._mask_shape, "?") if flags & MASK else None
            cursor.end()
        except ValueError as error:
            raise self._malformed(str(error)) from error
        return Step(observation, reward, terminated, truncated, successor, valid), mask

    def state(self) -> dict[str, np.ndarray] | None:
        data = self._ask("GET", f"{self._at}/state") if self.saves_state else b""
        try:
            return unpacked(data) if data else None
        except (ValueError, zipfile.BadZipFile, EOFError) as error:
            raise self._malformed(f"it is not a state ({error})") from error

    def load_state(self, state: dict[str, Any]) -> tuple[Observation, np.ndarray | None]:
        return self._standing(self._ask("PUT", f"{self._at}/state", packed(state)))

    def render(self) -> np.ndarray | None:
        data = self._ask("GET", f"{self._at}/render")
        try:
            picture = _array(data) if data else None
        except (ValueError, EOFError) as error:
            raise self._malformed(f"it is not a picture ({error})") from error
        if picture is not None and (picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3):
            raise self._malformed(f"expected a picture uint8 [height, width, 3], got {picture.dtype} {picture.shape}")
        return picture

    def close(self) -> None:
        self._connection.hurry()
        self._free()
        self._connection.close()

    def _free(self) -> None:
        with suppress(EnvError):  # a server that cannot be reached frees it after its idle time
            self._answer("DELETE", self._at)

    # requests

    def _send(self, method: str, path: str, body: dict[str, Any] | bytes | None) -> None:
        if isinstance(body, dict):
            self._connection.send(method, path, to_json(body))
        else:
            self._connection.send(method, path, body, "application/octet-stream")

    def _answer(self, method: str, path: str, body: dict[str, Any] | bytes | None = None) -> tuple[int, bytes]:
        self._send(method, path, body)
        return self._connection.receive()

    def _ask(self, method: str, path: str, body: dict[str, Any] | bytes | None = None) -> bytes:
        return self._checked(*self._answer(method, path, body))

    def _checked(self, status: int, data: bytes) -> bytes:
        """The body of a good answer; the error that a bad one means."""
        if status in (200, 204):
            return data
        text = self._connection.refusal(status, data)
        if status == 404 and self._at and self._at in self._connection.asked:
            raise EnvError(f"{self._name} is gone. {text}. {GONE}")
        raise (BadInput if status in REFUSED else EnvError)(text)

    def _standing(self, data: bytes) -> tuple[Observation, np.ndarray | None]:
        """Where each environment stands, from an answer to reset or state."""
        cursor = _Cursor(data)
        try:
            flags = cursor.flags(MASK)
            observation = cursor.tree(self.observation_space, self.num_envs)
            mask = cursor.take(self._mask_shape, "?") if flags & MASK else None
            cursor.end()
        except ValueError as error:
            raise self._malformed(str(error)) from error
        return observation, mask

    def _malformed(self, what: str) -> EnvError:
        return EnvError(f"{self._connection.asked}: the answer is malformed: {what}. {NO_SERVER}")


class _Cursor:
    """Reads arrays from an answer, one after the other. Raises ValueError where it does not hold what it should."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 1

    def flags(self, known: int) -> int:
        if not self._data or self._data[0] & ~known:
            raise ValueError(f"its flags are {self._data[:1]!r}")
        return self._data[0]

    def take(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        dtype = np.dtype(dtype)
        begin, count = self._place, math.prod(shape)
        self._place += count * dtype.itemsize
        if self._place > len(self._data):
            raise ValueError(f"it ends after {len(self._data)} bytes, at least {self._place} were expected")
        array = np.frombuffer(self._data, dtype.newbyteorder("<"), count, begin).reshape(shape)
        if dtype.kind == "b" and (array.view(np.uint8) > 1).any():
            raise ValueError("a flag is neither 0 nor 1")
        return array.astype(dtype)  # a copy: aligned, and writable

    def tree(self, space: Any, num_envs: int) -> Observation:
        if isinstance(space, spaces.Dict):
            return {key: self.tree(part, num_envs) for key, part in space.spaces.items()}
        return self.take((num_envs, *space.shape), space.dtype)

    def end(self) -> None:
        if self._place != len(self._data):
            raise ValueError(f"it has {len(self._data)} bytes, {self._place} were expected")


# ------------------------------------------------------------------------------------------------------------ spaces


def space(given: dict[str, Any]) -> spaces.Space:
    """The space that a description stands for. Raises KeyError, TypeError, ValueError or AssertionError for one
    that is none."""
    kind = given["type"]
    if kind == "Dict":
        return spaces.Dict([(str(key), space(part)) for key, part in given["spaces"]])
    if kind == "Box":
        shape, dtype = tuple(map(int, given["shape"])), np.dtype(given["dtype"])
        if dtype not in (np.float32, np.uint8):
            raise ValueError(f"a Box of {dtype}")
        low, high = (
            np.frombuffer(base64.b64decode(given[end], validate=True), dtype.newbyteorder("<")).reshape(shape)
            for end in ("low", "high")
        )
        return spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(int(given["n"]), start=int(given.get("start", 0)))
    if kind == "MultiDiscrete":
        nvec = np.asarray(given["nvec"], np.int64)
        return spaces.MultiDiscrete(nvec, start=np.asarray(given.get("start", np.zeros_like(nvec)), np.int64))
    if kind == "MultiBinary":
        shape = tuple(map(int, given["n"]))
        if math.prod(shape) > MOST:
            raise ValueError(f"a MultiBinary of shape {shape}")
        return spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
    raise ValueError(f"a space of the type {kind!r}")


def _leaves(space: Any) -> list[Any]:
    inner = space.spaces.values() if isinstance(space, spaces.Dict) else None
    return [space] if inner is None else [leaf for part in inner for leaf in _leaves(part)]


# ------------------------------------------------------------------------------------------------------------ arrays


def packed(arrays: dict[str, Any]) -> bytes:
    """Named arrays as an .npz file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)
    return file.getvalue()


def unpacked(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, whose sizes are checked before memory is taken. Raises ValueError or BadZipFile."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not plain or sum(entry.file_size for entry in entries) > len(data):
            raise ValueError("its arrays must be stored, not compressed, and no longer than the file")
        return {entry.filename.removesuffix(".npy"): _array(archive.read(entry)) for entry in entries}


def _array(data: bytes) -> np.ndarray:
    """The array of an .npy file that holds all of it, and no objects."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"its version is {version}")
    shape, fortran, dtype = read(file)
    size = len(data) - file.tell()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"an array {dtype} of shape {shape} does not lie in {size} bytes")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C").copy()
