"""Many clients at once, clients that vanish, an environment that crashes under load."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

import pytest
from gymnasium.envs.classic_control import CartPoleEnv

pytest.importorskip("starlette", reason="needs the extra server: pip install 'whorl[server]'")

CLIENTS, STEPS = (64, 10_000) if "WHORL_KILLS" in os.environ else (16, 1_000)  # in all; make faults


class Counted(CartPoleEnv):
    """CartPole that says how many of it are open."""

    open: set[int]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.open.add(id(self))

    def close(self) -> None:
        super().close()
        self.open.discard(id(self))


@pytest.fixture
def counted(world: Any) -> tuple[str, set[int]]:
    kind = type("Counted", (Counted,), {"open": set()})
    return world(kind, max_episode_steps=100), kind.open


def together(work: Any, count: int) -> None:
    """`work(i)` in so many threads; the first failure is raised."""
    failures: list[BaseException] = []

    def guarded(i: int) -> None:
        try:
            work(i)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(280)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


@pytest.mark.fault
def test_many_clients_at_once_no_error_no_leak(
    start: Any, connect: Any, counted: tuple[str, set[int]], until: Any
) -> None:
    env_id, opened = counted
    http = start(max_envs=CLIENTS)
    url, before = f"http://127.0.0.1:{http.port}", threading.active_count()
    gate, steps, crowd = threading.Barrier(CLIENTS), [0] * CLIENTS, []

    def client(i: int) -> None:
        own = connect(url)
        id = own.create(env_id, seed=i)
        assert len(own.reset(id)) == 4
        if gate.wait(120) == 0:
            crowd.append(len(opened))
        while steps[i] < -(-STEPS // CLIENTS):
            answer = own.step(id, steps[i] % 2)
            assert answer.status == 200, answer
            steps[i] += 1
            if answer.json["done"]:
                own.reset(id)
        assert own.post(f"/v1/envs/{id}/close/").status == 204
        own.close()

    together(client, CLIENTS)
    assert sum(steps) >= STEPS and crowd == [CLIENTS]
    assert http.listed() == {} and opened == set()
    until(lambda: threading.active_count() <= before)  # their threads have ended


def test_no_cross_talk(start: Any, connect: Any) -> None:
    """Each client sees the episode of its own seed, as in process."""
    http = start()

    def client(i: int) -> None:
        from whorl.apps.gym_server.ids import single

        own, env = connect(f"http://127.0.0.1:{http.port}"), single("CartPole-v1")
        id = own.create("CartPole-v1", seed=i)
        assert own.reset(id) == env.reset(seed=i)[0].tolist()
        for step in range(60):
            observation, _, terminated, *_ = env.step(step % 2)
            assert own.step(id, step % 2).json["observation"] == observation.tolist()
            if terminated:
                assert own.reset(id) == env.reset()[0].tolist()
        own.close()

    together(client, 16)


def test_clients_that_vanish_leave_nothing(start: Any, connect: Any, counted: tuple[str, set[int]], until: Any) -> None:
    env_id, opened = counted
    http = start(idle=0.3, max_envs=8)
    for vanish in ("politely", "in mid-request", "in mid-answer", "with a reset") * 2:
        own = connect(f"http://127.0.0.1:{http.port}")
        assert own.post("/v1/envs/", {"env_id": env_id}).status == 200
        head = f"POST /v1/envs/ HTTP/1.1\r\nHost: {http.name}\r\nContent-Length: 100\r\n\r\n".encode()
        raw = own._socket
        if vanish == "in mid-request":
            raw.sendall(head + b'{"env_id"')
        elif vanish == "in mid-answer":
            raw.sendall(f"GET /v1/envs/ HTTP/1.1\r\nHost: {http.name}\r\n\r\n".encode())
        elif vanish == "with a reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        own.close()
    until(lambda: opened == set() and http.listed() == {})
    vector = {"env_id": env_id, "num_envs": 8}
    until(lambda: http.post("/whorl/v1/vectors", vector).status == 200)  # all eight places are free
    until(lambda: opened == set())


def test_crashes_under_load_hurt_nobody_else(start: Any, connect: Any, world: Any) -> None:
    class Crashes(CartPoleEnv):
        steps = 0

        def step(self, action: Any) -> Any:
            self.steps += 1
            if self.steps % 5 == 0:
                raise RuntimeError("boom")
            return super().step(action)

    env_id, http = world(Crashes), start()
    seen: list[int] = []

    def client(i: int) -> None:
        own = connect(f"http://127.0.0.1:{http.port}")
        id = own.create(env_id if i % 2 else "CartPole-v1")
        for _ in range(40):
            own.reset(id)
            answer = own.step(id, 0)
            if i % 2 == 0:
                assert answer.status == 200
            elif answer.status != 200:
                seen.append(answer.status)
                assert "RuntimeError: boom" in answer.message
        assert own.post(f"/v1/envs/{id}/close/").status == 204
        own.close()

    together(client, 16)
    assert seen == [500] * 8 * 8
    assert http.listed() == {}


def test_a_busy_server_stops_in_an_orderly_way(start: Any, connect: Any, counted: tuple[str, set[int]]) -> None:
    from whorl.apps.gym_server.serve import running

    env_id, opened = counted
    stop = threading.Event()
    with running() as url:

        def client() -> None:
            own = connect(url)
            id = own.create(env_id)
            try:
                while not stop.is_set():
                    own.reset(id)
            except (AssertionError, OSError):
                pass  # the server has gone

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        while len(opened) < 8:
            time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert opened == set()
