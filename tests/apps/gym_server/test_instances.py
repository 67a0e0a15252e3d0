"""Instances: seeds, the order of calls, one call at a time, limits, idle time, environments that crash or hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("starlette", reason="needs the extra server: pip install 'whorl[server]'")

from whorl.apps.gym_server.instances import Instances, Session
from whorl.envs.adapters.http import Http as Remote


class World(gymnasium.Env):
    """Does what it is told when it is stepped or closed."""

    observation_space, action_space = spaces.Discrete(10), spaces.Discrete(10)

    def __init__(
        self, stepped: Callable[[int], Any] = lambda action: None, closed: Callable[[], Any] = lambda: None
    ) -> None:
        self.stepped, self.closed = stepped, closed

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return 0, {}

    def step(self, action: Any) -> Any:
        self.stepped(int(action))
        return int(action), 1.0, False, False, {}

    def close(self) -> None:
        self.closed()


def session(**options: Any) -> Session:
    env = gymnasium.make("CartPole-v1", disable_env_checker=True)
    return Session("CartPole-v1", env, **{"seed": None, "bounds": "accept", "lenient": False, **options})


# --------------------------------------------------------------------------------------------- seeds


@pytest.mark.parametrize("seed", [0, 7])
def test_a_seed_at_creation_is_that_of_the_first_episode_and_of_samples(http: Any, seed: int) -> None:
    """0 counts, though the original took it for none."""
    env = gymnasium.make("CartPole-v1")
    env.action_space.seed(seed)
    expected = [env.reset(seed=seed)[0].tolist(), env.reset()[0].tolist()]
    actions = [int(env.action_space.sample()) for _ in range(20)]
    id = http.create("CartPole-v1", seed=seed)
    assert [http.reset(id), http.reset(id)] == expected
    assert [http.get(f"/v1/envs/{id}/action_space/sample").json["action"] for _ in range(20)] == actions


def test_a_seed_at_reset(http: Any) -> None:
    env = gymnasium.make("CartPole-v1")
    env.action_space.seed(5)
    expected, actions = env.reset(seed=5)[0].tolist(), [int(env.action_space.sample()) for _ in range(20)]
    id = http.create("CartPole-v1", seed=1)
    assert http.reset(id) != expected
    for _ in range(2):
        assert http.reset(id, seed=5) == expected
        assert [http.get(f"/v1/envs/{id}/action_space/sample").json["action"] for _ in range(20)] == actions
    assert http.reset(id) == env.reset()[0].tolist()


def test_without_a_seed_episodes_differ(http: Any) -> None:
    assert len({str(http.reset(http.create("CartPole-v1"))) for _ in range(4)}) == 4


# --------------------------------------------------------------------------------------------- the order of calls


def test_steps_need_an_episode(http: Any) -> None:
    id = http.create("CartPole-v1", seed=0)
    assert http.step(id, 0).message == "CartPole-v1: no episode is under way: call reset"
    http.reset(id)
    while not http.step(id, 0).json["done"]:
        pass
    answer = http.step(id, 0)
    assert answer.status == 400 and answer.message == "CartPole-v1: the episode is over: call reset"
    http.reset(id)
    http.step(id, 0)
    http.reset(id)  # in mid-episode
    assert http.step(id, 0).json["done"] is False


@pytest.mark.filterwarnings("ignore:.*even though this environment has already returned")
def test_lenient_servers_hand_steps_after_the_end_on(start: Any) -> None:
    http = start(lenient=True)
    id = http.create("CartPole-v1", seed=0)
    assert http.step(id, 0).status == 400
    http.reset(id)
    while not http.step(id, 0).json["done"]:
        pass
    assert http.step(id, 0).json["reward"] == 0.0


def test_lenient_native_worlds_go_on_in_the_next_episode(start: Any) -> None:
    http = start(lenient=True)
    id = http.create("BitFlipping8-v0")
    http.reset(id)
    while not http.step(id, 0).json["done"]:
        pass
    assert http.step(id, 0).json["done"] is False


def test_a_reset_that_fails_leaves_no_episode(world: Any, http: Any) -> None:
    class Fails(World):
        times = 0

        def reset(self, **options: Any) -> Any:
            self.times += 1
            if self.times == 2:
                raise OSError("no disk")
            return 0, {}

    id = http.create(world(Fails, order_enforce=False))
    http.reset(id)
    answer = http.post(f"/v1/envs/{id}/reset/")
    assert answer.status == 500 and answer.message.endswith(": OSError: no disk")
    assert "no episode is under way: call reset" in http.step(id, 0).message
    http.reset(id)
    assert http.step(id, 0).status == 200


def test_the_seed_of_creation_outlives_a_reset_that_fails() -> None:
    class Fails(World):
        seeds: list[int | None] = []

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.seeds.append(seed)
            if len(self.seeds) == 1:
                raise OSError("no disk")
            return 0, {}

    one = Session("World", Fails(), seed=7, bounds="accept", lenient=False)
    with pytest.raises(OSError, match="no disk"):
        one.reset()
    one.reset()
    one.reset()
    assert Fails.seeds == [7, 7, None]


def test_info_of_an_end_says_what_cut_it() -> None:
    one = session(seed=0)
    one.reset()
    done: dict[str, Any] = {"done": False}
    while not done["done"]:
        done = one.step(0, render=False)
        assert ("TimeLimit.truncated" in done["info"]) == done["done"]
    assert done["info"]["TimeLimit.truncated"] is False


def test_time_limits_truncate(http: Any) -> None:
    id = http.create("MountainCar-v0", seed=0)
    http.reset(id)
    for _ in range(199):
        assert http.step(id, 1).json["done"] is False
    last = http.step(id, 1).json
    assert (last["done"], last["terminated"], last["truncated"]) == (True, False, True)
    assert last["info"] == {"TimeLimit.truncated": True}


# --------------------------------------------------------------------------------------------- threads


def test_a_slow_environment_keeps_nobody_waiting(http: Any, connect: Any, world: Any) -> None:
    entered, release = threading.Event(), threading.Event()

    def stepped(action: int) -> None:
        entered.set()
        release.wait(60)

    slow, quick = http.create(world(lambda: World(stepped))), http.create("CartPole-v1")
    http.reset(slow)
    other, answers = connect(f"http://127.0.0.1:{http.port}"), []
    thread = threading.Thread(target=lambda: answers.append(other.step(slow, 1)))
    thread.start()
    assert entered.wait(60)
    http.reset(quick)
    assert http.step(quick, 0).status == 200
    assert answers == []  # the slow one is still at it
    release.set()
    thread.join(60)
    assert answers[0].json["observation"] == 1
    other.close()


def test_one_call_at_a_time_in_one_thread(http: Any, connect: Any, world: Any) -> None:
    inside, overlaps, threads = [0], [], set()

    def stepped(action: int) -> None:
        inside[0] += 1
        overlaps.append(inside[0])
        threads.add(threading.get_ident())
        time.sleep(0.002)
        inside[0] -= 1

    id = http.create(world(lambda: World(stepped)))
    http.reset(id)

    def client() -> None:
        own = connect(f"http://127.0.0.1:{http.port}")
        for _ in range(10):
            assert own.step(id, 1).status == 200
        own.close()

    clients = [threading.Thread(target=client) for _ in range(6)]
    for each in clients:
        each.start()
    for each in clients:
        each.join(120)
    assert overlaps == [1] * 60 and len(threads) == 1


# --------------------------------------------------------------------------------------------- limits


def test_limit_of_environments(start: Any, world: Any) -> None:
    http = start(max_envs=4)
    ids = [http.create("CartPole-v1") for _ in range(3)]
    refused = http.post("/whorl/v1/vectors", {"env_id": "CartPole-v1", "num_envs": 2})
    assert refused.status == 400
    assert refused.message.startswith("3 of 4 environments are open and 2 more were asked for: close some")
    refused = http.post("/whorl/v1/vectors", {"env_id": "CartPole-v1", "num_envs": 5})
    assert refused.message == "'num_envs' must be an integer from 1 to 4, got 5"
    http.post(f"/v1/envs/{ids.pop()}/close/")
    vector = http.post("/whorl/v1/vectors", {"env_id": "CartPole-v1", "num_envs": 2}).json["vector_id"]
    assert http.post("/v1/envs/", {"env_id": "CartPole-v1"}).status == 400
    assert http.ask("DELETE", f"/whorl/v1/vectors/{vector}").status == 204
    ids += [http.create("CartPole-v1") for _ in range(2)]
    assert set(http.listed()) == set(ids)


def test_environments_that_cannot_be_made_do_not_count(start: Any, world: Any) -> None:
    def broken() -> World:
        raise RuntimeError("no such planet")

    http, env_id = start(max_envs=1), world(broken)
    for _ in range(3):
        answer = http.post("/v1/envs/", {"env_id": env_id})
        assert answer.status == 500 and answer.message.endswith(": RuntimeError: no such planet")
        assert http.post("/v1/envs/", {"env_id": "nothing"}).status == 400
        assert http.post("/whorl/v1/vectors", {"env_id": env_id}).status == 500
    assert http.create("CartPole-v1")


def test_idle_environments_are_closed(start: Any, world: Any, until: Any) -> None:
    closed: list[str] = []
    http = start(idle=0.2, max_envs=3)
    http.create(world(lambda: World(closed=lambda: closed.append("single"))))
    http.post(
        "/whorl/v1/vectors", {"env_id": world(lambda: World(closed=lambda: closed.append("one of two"))), "num_envs": 2}
    )
    until(lambda: sorted(closed) == ["one of two", "one of two", "single"])
    assert http.listed() == {}
    for _ in range(3):  # their places are free
        http.create("CartPole-v1")


def test_environments_at_work_are_not_idle(start: Any, world: Any) -> None:
    entered, release = threading.Event(), threading.Event()
    at_work: list[World] = []
    closed: list[World] = []

    def made() -> World:
        env = World()
        env.stepped = lambda action: (at_work.append(env), entered.set(), release.wait(60))
        env.closed = lambda: closed.append(env)
        return env

    http, env_id, answers = start(idle=0.05), world(made), []

    def work() -> None:
        while not answers:  # on a busy machine it may be closed before it is stepped
            id = http.create(env_id)
            http.post(f"/v1/envs/{id}/reset/")
            answers.extend([answer] if (answer := http.step(id, 2)).status == 200 else [])

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(60)
    time.sleep(0.5)  # many times the idle time
    assert at_work[0] not in closed
    release.set()
    thread.join(60)
    assert answers[0].json["observation"] == 2


def test_a_client_that_asks_keeps_all_of_its_environments(start: Any, monkeypatch: Any) -> None:
    """An evaluation may take longer than the idle time, and training goes on after it."""
    seen, tables = Instances.seen, []
    monkeypatch.setattr(Instances, "seen", lambda self, client: (tables.append(self), seen(self, client)))
    http = start(idle=1e9)
    url = f"http://{http.name}"
    envs = [Remote(f"{url}/CartPole-v1", 2), Remote(f"{url}/CartPole-v1", 2, protocol="v1")]
    foreign = http.create("CartPole-v1")
    table = tables[0]._table
    for env in envs:
        for instance in table.values():
            instance.used = -1.0
        env.reset(0)
        assert len(table) == 4 and [id for id, instance in table.items() if instance.used < 0] == [foreign]
    for env in envs:
        env.close()


# --------------------------------------------------------------------------------------------- crashes


def raiser(error: BaseException) -> Callable[[int], None]:
    def stepped(action: int) -> None:
        if action:
            raise error

    return stepped


@pytest.mark.parametrize(
    "error", [RuntimeError("boom"), SystemExit(3), KeyboardInterrupt(), StopIteration(), TimeoutError("late"), np.linalg.LinAlgError()],
    ids=repr,
)  # fmt: skip
def test_a_crash_is_a_500_and_the_server_lives(http: Any, world: Any, error: BaseException, caplog: Any) -> None:
    id, other = http.create(world(lambda: World(raiser(error)))), http.create("CartPole-v1")
    http.reset(id)
    http.reset(other)
    answer = http.step(id, 1)
    assert answer.status == 500 and f": {type(error).__name__}: {error}" in answer.message
    number = answer.message.split()[2].rstrip(":")
    logged = [record for record in caplog.records if f"internal error {number} " in record.getMessage()]
    assert len(logged) == 1 and logged[0].exc_info[1].__cause__ is error
    assert "no episode is under way: call reset" in http.step(id, 0).message
    http.reset(id)
    assert http.step(id, 0).status == 200
    assert http.step(other, 0).status == 200


def test_an_environment_that_cannot_be_closed_is_gone(start: Any, world: Any, caplog: Any) -> None:
    def closed() -> None:
        raise RuntimeError("stuck lid")

    http = start(max_envs=1)
    id = http.create(world(lambda: World(closed=closed)))
    answer = http.post(f"/v1/envs/{id}/close/")
    assert answer.status == 500 and answer.message.endswith("RuntimeError: stuck lid")
    assert http.listed() == {}
    assert http.create("CartPole-v1")


def test_an_environment_that_hangs_is_given_up(start: Any, world: Any, until: Any) -> None:
    release, closed = threading.Event(), []
    http = start(patience=1.0, max_envs=1)
    id = http.create(world(lambda: World(lambda action: release.wait(60), lambda: closed.append(1))))
    http.reset(id)
    answer = http.step(id, 1)
    assert (
        answer.status == 500
        and "-v0 has not answered for 1 seconds; a server may wait longer (--patience)" in answer.message
    )
    answer = http.step(id, 1)
    assert answer.status == 500 and answer.message.endswith("is still busy with an earlier call: wait, or close it")
    assert http.listed()
    assert http.post(f"/v1/envs/{id}/close/").status == 204
    assert http.listed() == {}
    assert (
        "1 of 1 environments are open" in http.post("/v1/envs/", {"env_id": "CartPole-v1"}).message
    )  # it is still there
    release.set()
    until(lambda: closed == [1] and http.post("/v1/envs/", {"env_id": "CartPole-v1"}).status == 200)


def test_an_environment_that_answers_late_goes_on(start: Any, world: Any, until: Any) -> None:
    release = threading.Event()
    http = start(patience=1.0)
    id = http.create(world(lambda: World(lambda action: release.wait(60))))
    http.reset(id)
    assert http.step(id, 1).status == 500
    release.set()
    until(lambda: http.step(id, 3).status == 200)
