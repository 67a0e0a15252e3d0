"""The binary routes: the same bytes as the environment in process, exact spaces, states in and out, refusals."""

from __future__ import annotations

import base64
import io
import zipfile
from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("starlette", reason="needs the extra server: pip install 'whorl[server]'")

import whorl
from whorl.envs.env import Env, Step
from whorl.envs.make import make_env

NEXT, VALID, MASK = 1, 2, 4


class Remote:
    """What a client does: reads every byte of a reply, in the order of the protocol."""

    def __init__(self, http: Any, env_id: str, num_envs: int, **fields: Any) -> None:
        self.http = http
        answer = http.post("/whorl/v1/vectors", {"env_id": env_id, "num_envs": num_envs, **fields})
        assert answer.status == 200, answer
        self.about = answer.json
        self.path = f"/whorl/v1/vectors/{self.about['vector_id']}"
        self.n = num_envs

    def space(self, given: dict[str, Any]) -> spaces.Space:
        match given["type"]:
            case "Box":
                dtype = np.dtype(given["dtype"])
                low, high = (
                    np.frombuffer(base64.b64decode(given[end]), dtype.newbyteorder("<")) for end in ("low", "high")
                )
                shape = tuple(given["shape"])
                return spaces.Box(low.reshape(shape), high.reshape(shape), shape, dtype.type)
            case "Discrete":
                return spaces.Discrete(given["n"], start=given["start"], dtype=np.dtype(given["dtype"]).type)
            case "MultiDiscrete":
                return spaces.MultiDiscrete(given["nvec"], np.dtype(given["dtype"]).type, start=given["start"])
            case "MultiBinary":
                return spaces.MultiBinary(given["n"])
        return spaces.Dict([(key, self.space(part)) for key, part in given["spaces"]])

    @property
    def observation_space(self) -> spaces.Space:
        return self.space(self.about["observation_space"])

    @property
    def action_space(self) -> spaces.Space:
        return self.space(self.about["action_space"])

    def _leaves(self, file: io.BytesIO, space: Any) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: self._leaves(file, part) for key, part in space.spaces.items()}
        shape = (self.n, *(space.shape or ()))
        return np.frombuffer(file.read(int(np.prod(shape)) * space.dtype.itemsize), space.dtype).reshape(shape)

    def _mask(self, file: io.BytesIO, flags: int) -> Any:
        space: Any = self.action_space
        width = int(np.sum(space.nvec)) if isinstance(space, spaces.MultiDiscrete) else int(getattr(space, "n", 0))
        return np.frombuffer(file.read(self.n * width), bool).reshape(self.n, width) if flags & MASK else None

    def stands(self, answer: Any) -> tuple[Any, Any]:
        assert answer.status == 200 and answer.headers["content-type"] == "application/octet-stream", answer
        file = io.BytesIO(answer.body)
        flags = file.read(1)[0]
        observation, mask = self._leaves(file, self.observation_space), self._mask(file, flags)
        assert file.read() == b"" and flags in (0, MASK)
        return observation, mask

    def reset(self, seed: int | None = None) -> tuple[Any, Any]:
        return self.stands(self.http.post(f"{self.path}/reset", {"seed": seed}))

    def post(self, action: Any) -> Any:
        return self.http.post(f"{self.path}/step", np.asarray(action, self.action_space.dtype).tobytes())

    def step(self, action: Any) -> tuple[Step, Any]:
        answer = self.post(action)
        assert answer.status == 200, answer
        file = io.BytesIO(answer.body)
        flags = file.read(1)[0]
        observation = self._leaves(file, self.observation_space)
        reward = np.frombuffer(file.read(4 * self.n), "<f4")
        terminated, truncated = (np.frombuffer(file.read(self.n), bool) for _ in range(2))
        successor = self._leaves(file, self.observation_space) if flags & NEXT else observation
        valid = np.frombuffer(file.read(self.n), bool) if flags & VALID else None
        mask = self._mask(file, flags)
        assert file.read() == b""
        return Step(observation, reward, terminated, truncated, successor, valid), mask

    def close(self) -> None:
        assert self.http.ask("DELETE", self.path).status == 204


class Every(gymnasium.Env):
    """Every kind of observation that whorl knows, with a mask; ends at random."""

    observation_space = spaces.Dict(
        {
            "z": spaces.Box(0, 255, (2, 2), np.uint8),
            "a": spaces.Dict({"b": spaces.MultiBinary(3), "c": spaces.Discrete(5, start=2)}),
        }
    )
    action_space = spaces.MultiDiscrete([2, 3])

    def __init__(self) -> None:
        self.observation_space = deepcopy(self.observation_space)  # each has its own stream

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), self._mask()

    def step(self, action: Any) -> Any:
        return (
            self.observation_space.sample(),
            float(action[1]),
            bool(self.np_random.random() < 0.2),
            False,
            self._mask(),
        )

    def _mask(self) -> dict[str, Any]:
        return {"action_mask": np.array([1, int(self.np_random.integers(2)), 1, 1, 1], np.int8)}


def same(remote: Remote, env: Env, steps: int, seed: int) -> int:
    """Both play the same actions; everything that comes back is equal. Returns the steps in which an episode ended."""
    observation, mask = remote.reset(seed)
    np.testing.assert_equal(observation, env.reset(seed))
    np.testing.assert_equal(mask, env.action_mask)
    env.action_space.seed(0)
    ends = 0
    for _ in range(steps):
        action = np.array([env.action_space.sample() for _ in range(env.num_envs)])
        (got, mask), expected = remote.step(action), env.step(action)
        for name in ("observation", "reward", "terminated", "truncated", "next_observation"):
            np.testing.assert_equal(getattr(got, name), getattr(expected, name), name)
        np.testing.assert_equal(mask, env.action_mask)
        assert (got.next_observation is got.observation) == (expected.next_observation is expected.observation)
        ends += bool((got.terminated | got.truncated).any())
    return ends


@pytest.mark.parametrize(
    ("env_id", "n"),
    [
        ("CartPole-v1", 8),
        ("Pendulum-v1", 3),
        ("BitFlipping8-v0", 2),
        ("GridWorld-v0", 5),
        ("CartPole-v0", 1),
        ("FrozenLake-v1", 4),
    ],
)
def test_the_same_as_in_process(http: Any, env_id: str, n: int) -> None:
    remote, env = Remote(http, env_id, n, seed=3), make_env(env_id, n, 3)
    assert remote.observation_space == env.observation_space and remote.action_space == env.action_space
    about = {"env_id": env_id, "origin": env.origin, "num_envs": n, "max_episode_steps": env.max_episode_steps}
    about |= {"reward_threshold": env.reward_threshold, "saves_state": env.state() is not None}
    assert {key: remote.about[key] for key in about} == about and len(remote.about["vector_id"]) == 32
    np.testing.assert_equal(remote.reset()[0], env.reset())  # the seed of its making
    assert same(remote, env, 250, seed=11) > 0
    remote.close()


def test_nested_observations_and_masks(http: Any, world: Any) -> None:
    env_id = world(Every)
    remote, env = Remote(http, env_id, 3), make_env(env_id, 3, 0)
    assert same(remote, env, 60, seed=1) > 0
    remote.close()


def test_rows_that_the_engine_invented(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment that an id can make here has such rows, so one is put in the way."""
    from whorl.apps.gym_server import vectors

    class Invents(Env):
        id, origin, num_envs = "Invents", "custom", 2
        observation_space, action_space = spaces.Box(-1, 1, (1,), np.float32), spaces.Discrete(2)

        def reset(self, seed: int | None = None) -> Any:
            return np.zeros((2, 1), np.float32)

        def step(self, action: Any) -> Step:
            seen, flags = np.ones((2, 1), np.float32), np.array([False, True])
            return Step(seen, action.astype(np.float32), flags, ~flags, seen, np.array([True, False]))

    monkeypatch.setattr(vectors, "make_env", lambda *args, **options: Invents())
    remote = Remote(http, "CartPole-v1", 2)
    remote.reset()
    step, mask = remote.step([0, 1])
    assert step.valid is not None and step.valid.tolist() == [True, False] and mask is None
    assert (step.reward.tolist(), step.terminated.tolist(), step.truncated.tolist()) == (
        [0, 1],
        [False, True],
        [True, False],
    )
    remote.close()


def test_retired_ids_and_options(http: Any) -> None:
    remote = Remote(http, "Pendulum-v0", 2, max_episode_steps=3)
    assert (remote.about["env_id"], remote.about["max_episode_steps"]) == ("Pendulum-v0", 3)
    remote.reset(0)
    ends = [bool(remote.step(np.zeros((2, 1)))[0].truncated.all()) for _ in range(6)]
    assert ends == [False, False, True] * 2
    remote.close()


def test_pictures(http: Any) -> None:
    remote = Remote(http, "GridWorld-v0", 2)
    remote.reset(0)
    picture = np.load(io.BytesIO(http.get(f"{remote.path}/render").body), allow_pickle=False)
    assert picture.dtype == np.uint8 and picture.shape == (120, 120, 3)
    remote.close()
    for render, status in ((False, 204), (True, 200)):
        remote = Remote(http, "FrozenLake-v1", 1, render=render)
        remote.reset(0)
        assert http.get(f"{remote.path}/render").status == status
        remote.close()


def test_a_state_goes_out_and_back(http: Any) -> None:
    remote, other = Remote(http, "CartPole-v1", 4), Remote(http, "CartPole-v1", 4, seed=9)
    remote.reset(5)
    for _ in range(30):
        here = remote.step([0, 1, 1, 0])[0].observation
    state = http.get(f"{remote.path}/state")
    assert state.status == 200
    stands, _ = other.stands(http.ask("PUT", f"{other.path}/state", state.body))
    np.testing.assert_array_equal(stands, here)
    for _ in range(100):  # also into the next episodes
        (a, _), (b, _) = remote.step([1, 0, 1, 1]), other.step([1, 0, 1, 1])
        np.testing.assert_array_equal(a.observation, b.observation)
    remote.close()
    other.close()


def test_environments_without_a_state(http: Any) -> None:
    remote = Remote(http, "FrozenLake-v1", 2)
    assert remote.about["saves_state"] is False
    assert http.get(f"{remote.path}/state").status == 204
    answer = http.ask("PUT", f"{remote.path}/state", b"")
    assert answer.status == 400 and answer.message.startswith("this environment cannot save its state")
    remote.close()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def bomb() -> bytes:
    """A file of 1 MB that would be 1 GB of zeros, under the right name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("state", "episode", "elapsed", "seed"):
            archive.writestr(f"{name}.npy", bytes(64 << 20))
    return file.getvalue()


def test_forged_states_are_refused(http: Any) -> None:
    remote, env = Remote(http, "CartPole-v1", 2), make_env("CartPole-v1", 2)
    remote.reset(0)
    env.reset(0)
    good: Any = env.state()
    big = io.BytesIO()
    np.lib.format.write_array_header_1_0(big, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 4)})
    with zipfile.ZipFile(claims := io.BytesIO(), "w") as archive:
        for name in good:
            archive.writestr(f"{name}.npy", big.getvalue())
    forged = [
        b"",
        b"not a zip",
        npz(**good)[:-30],
        npz(**good).replace(good["state"].tobytes(), good["state"].tobytes()[::-1]),  # checksum
        bomb(),
        claims.getvalue(),
        npz(state=good["state"]),
        npz(**good, more=np.zeros(1)),
        npz(**{**good, "state": good["state"][:1]}),
        npz(**{**good, "state": good["state"].astype(np.float32)}),
        npz(**{**good, "state": np.full((2, 4), np.nan)}),
        npz(**{**good, "episode": np.array([{}, []], dtype=object)}),  # pickled
    ]
    for body in forged:
        answer = http.ask("PUT", f"{remote.path}/state", body)
        assert answer.status == 400 and answer.message.startswith("expected "), (body[:20], answer)
    expected = env.step(np.zeros(2, np.int64))
    np.testing.assert_array_equal(remote.step([0, 0])[0].observation, expected.observation)  # nothing has changed
    remote.close()


def test_states_that_no_episode_comes_to_are_refused(http: Any) -> None:
    remote, env = Remote(http, "CliffWalking-v1", 1), make_env("CliffWalking-v1", 1)
    remote.reset(0)
    env.reset(0)
    good: Any = env.state()
    for cell in (-1e6, 48.0, 1e6, 1e12):
        answer = http.ask("PUT", f"{remote.path}/state", npz(**{**good, "state": np.full((1, 1), cell)}))
        assert answer.status == 400 and "entry 0 of a state lies from 0 to 47, got" in answer.message, answer
    assert http.ask("PUT", f"{remote.path}/state", npz(**good)).status == 200
    remote.close()


@pytest.mark.parametrize(
    ("env_id", "body", "message"),
    [
        ("CartPole-v1", b"", r"expected actions of 16 bytes \(int64 of shape \[2\]\), got 0 bytes"),
        ("CartPole-v1", b"\0" * 15, "got 15 bytes"),
        ("CartPole-v1", np.array([0, 2]).tobytes(), "expected actions from 0 to below 2"),
        ("CartPole-v1", np.array([-1, 0]).tobytes(), "expected actions from 0 to below 2"),
        ("FrozenLake-v1", np.array([4, 0]).tobytes(), "expected actions from 0 to below 4"),
        ("Pendulum-v1", np.array([np.nan, 0], np.float32).tobytes(), "expected finite actions"),
        ("Pendulum-v1", np.zeros(2).tobytes(), "expected actions of 8 bytes"),
    ],
)
def test_actions_that_are_none(http: Any, env_id: str, body: bytes, message: str) -> None:
    import re

    remote = Remote(http, env_id, 2)
    answer = http.post(f"{remote.path}/step", b"\0" * 16 if env_id != "Pendulum-v1" else b"\0" * 8)
    assert answer.status == 400 and answer.message == f"{env_id}: no episode has begun: call reset first"
    remote.reset(0)
    answer = http.post(f"{remote.path}/step", body)
    assert answer.status == 400 and re.search(message, answer.message)
    remote.close()


def test_vectors_that_are_none(http: Any) -> None:
    for method, route in (("POST", "/reset"), ("POST", "/step"), ("GET", "/state"), ("GET", "/render"), ("DELETE", "")):
        answer = http.ask(method, f"/whorl/v1/vectors/{'0' * 32}{route}", {})
        assert answer.status == 404 and answer.message.startswith(f"there is no vector {'0' * 32}: it was closed")
    single = http.create("CartPole-v1")
    assert http.post(f"/whorl/v1/vectors/{single}/reset", {}).status == 404


def test_bad_requests(http: Any) -> None:
    for body, message in (
        ({}, "A required request parameter 'env_id' was not provided"),
        ({"env_id": "nothing"}, "Attempted to look up malformed environment ID 'nothing'"),
        ({"env_id": "CartPole-v1", "num_envs": 0}, "'num_envs' must be an integer from 1 to 64, got 0"),
        ({"env_id": "CartPole-v1", "seed": -1}, "'seed' must be an integer"),
        ({"env_id": "CartPole-v1", "max_episode_steps": 0}, "'max_episode_steps' must be an integer from 1"),
        ({"env_id": "CartPole-v1", "render": 3}, "render must be true or false"),
    ):
        answer = http.post("/whorl/v1/vectors", body)
        assert answer.status == 400 and answer.message.startswith(message)


def test_a_space_without_arrays_is_refused(http: Any, world: Any) -> None:
    class Words(gymnasium.Env):
        observation_space, action_space = spaces.Text(5), spaces.Discrete(2)

    answer = http.post("/whorl/v1/vectors", {"env_id": world(Words)})
    assert answer.status == 400 and "it cannot be made here: the observation space is a Text space" in answer.message


def test_hello(http: Any) -> None:
    for path in ("/whorl/v1/", "/whorl/v1"):
        assert http.get(path).json == {"server": "whorl", "version": whorl.__version__, "protocol": 1}


def test_crashes_are_500(http: Any, world: Any) -> None:
    class Crashes(gymnasium.Env):
        observation_space = action_space = spaces.Discrete(2)

        def reset(self, **options: Any) -> Any:
            return 0, {}

        def step(self, action: Any) -> Any:
            raise RuntimeError("boom")

    remote = Remote(http, world(Crashes), 2)
    remote.reset()
    answer = remote.post([0, 0])
    assert answer.status == 500 and answer.message.startswith("internal error ") and "boom" in answer.message
    remote.close()
