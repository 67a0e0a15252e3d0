"""The limits of a running gym server: environments, bodies, JSON, idle time, states from outside."""

from __future__ import annotations

import io
import json
import os
import re
import threading
import urllib.parse
import zipfile
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="needs the extra server: pip install 'whorl[server]'")
pytest.importorskip("starlette", reason="needs the extra server: pip install 'whorl[server]'")

from tests.apps.gym_server.counting import Counting, files
from tests.apps.gym_server.hostile import ROUTES, ask, filled, listed, make, make_vector, refused, until
from whorl.apps.gym_server import instances
from whorl.apps.gym_server.serve import running


def test_the_number_of_environments(root):
    with running(root=root, max_envs=3) as url:
        ids = [make(url), make(url)]
        full = "of 3 environments are open and"
        refused(ask(url, "POST", "/whorl/v1/vectors", {"env_id": "CartPole-v1", "num_envs": 2}), 400, "2 " + full)
        refused(ask(url, "POST", "/whorl/v1/vectors", {"env_id": "CartPole-v1", "num_envs": 10**9}), 400, "num_envs")
        vector = make_vector(url, num_envs=1)
        refused(ask(url, "POST", "/v1/envs/", {"env_id": "CartPole-v1"}), 400, "3 " + full)
        assert ask(url, "POST", f"/v1/envs/{ids[0]}/close/")[0] == 204
        assert ask(url, "DELETE", f"/whorl/v1/vectors/{vector}")[0] == 204
        for _ in range(10):  # what fails to be made is not counted
            refused(ask(url, "POST", "/v1/envs/", {"env_id": "nothing-v0"}), 400, "malformed")
        make(url), make(url)
        assert len(listed(url)) == 3


def test_the_number_of_environments_holds_against_many_at_once(root):
    with running(root=root, max_envs=3) as url:
        answers, body = [], {"env_id": "CartPole-v1"}
        threads = [
            threading.Thread(target=lambda: answers.append(ask(url, "POST", "/v1/envs/", body)[0])) for _ in range(24)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [200] * 3 + [400] * 21 and len(listed(url)) == 3


def test_the_size_of_bodies(server):
    large = b" " * ((1 << 20) + 1)
    for method, path in ROUTES:
        target = filled(path, make(server) if path.endswith("step") else "0" * 8, "0" * 32)
        refused(ask(server, method, target, large), 413, "the body is too large: at most 1048576 bytes")
        refused(ask(server, method, target, [large[: 1 << 19]] * 3), 413, "the body is too large")
    whole = json.dumps({"env_id": "nothing-v0"}).encode()
    padded = whole + b" " * ((1 << 20) - len(whole))
    refused(ask(server, "POST", "/v1/envs/", padded), 400, "malformed environment ID 'nothing-v0'")
    refused(ask(server, "POST", "/v1/envs/", [padded[: 1 << 19], padded[1 << 19 :]]), 400, "malformed environment ID")


@pytest.mark.parametrize("depth", [33, 64, 1000, 100_000, 500_000])
@pytest.mark.parametrize("ends", [("[", "]"), ('{"a":', "}")])
def test_the_depth_of_json(server, depth, ends):
    opening, closing = ends
    if depth * (len(opening) + 1) > 1 << 20:
        depth = (1 << 20) // 8
    deep = (opening * depth + "1" + closing * depth).encode()
    instance = make(server)
    for path in (
        "/v1/envs/",
        f"/v1/envs/{instance}/step/",
        f"/v1/envs/{instance}/monitor/start/",
        "/v1/upload/",
        "/whorl/v1/vectors",
    ):
        for body in (deep, b'{"action":' + deep + b"}", opening.encode() * depth):
            refused(ask(server, "POST", path, body), 400, "Request is not a valid json")
    assert ask(server, "POST", f"/v1/envs/{instance}/reset/", deep)[0] == 200  # it needs no body, so it reads none
    refused(ask(server, "GET", "/v1/envs/nothing/action_space/"), 400, "Instance_id nothing unknown")
    quoted = urllib.parse.quote("[" * 3000 + "]" * 3000, safe="[]")
    assert ask(server, "GET", f"/v1/envs/{instance}/action_space/contains/{quoted}")[2] == {"member": False}


class Watched(Counting):
    """Knows which of its kind are open; waits in `step` until `go` is set, if it is told to."""

    opened: list = []
    go = threading.Event()

    def __init__(self, render_mode=None):
        super().__init__([5] * 100, render_mode)
        Watched.opened.append(self)

    def step(self, action):
        if action == 1:
            Watched.go.wait()
        return super().step(action)


@pytest.fixture
def watched():
    gymnasium.register("Watched-v0", Watched)
    Watched.opened, Watched.go = [], threading.Event()
    yield Watched
    Watched.go.set()
    del gymnasium.registry["Watched-v0"]


def test_a_client_that_vanishes_frees_its_environments(root, watched, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(instances, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with running(root=root, idle=0.5, max_envs=3) as url:
        instance, vector = make(url, "Watched-v0"), make_vector(url)
        assert ask(url, "POST", f"/v1/envs/{instance}/monitor/start/", {"directory": "d"})[0] == 204
        clock[0] = 0.4
        ask(url, "POST", f"/v1/envs/{instance}/reset/")
        clock[0] = 0.8  # only the vector has been idle for too long
        two = {"env_id": "CartPole-v1", "num_envs": 2}
        until(lambda: ask(url, "POST", "/whorl/v1/vectors", two)[0] == 200)  # there is room again
        assert ask(url, "POST", f"/whorl/v1/vectors/{vector}/reset", {})[0] == 404
        assert listed(url) == {instance: "Watched-v0"} and not watched.opened[0].closed
        clock[0] = 1.6
        until(lambda: not listed(url))
        until(lambda: watched.opened[0].closed)
        refused(ask(url, "POST", f"/v1/envs/{instance}/reset/"), 400, f"Instance_id {instance} unknown")
        assert len(files(root / "d", "openaigym.")) == 2
        until(lambda: ask(url, "POST", "/whorl/v1/vectors", {**two, "num_envs": 3})[0] == 200)  # all are free again


def test_an_environment_that_hangs_holds_up_nobody_else(root, watched):
    with running(root=root, patience=2) as url:
        instance = make(url, "Watched-v0")
        ask(url, "POST", f"/v1/envs/{instance}/reset/")
        refused(ask(url, "POST", f"/v1/envs/{instance}/step/", {"action": 1}), 500, "has not answered for 2 seconds")
        refused(ask(url, "POST", f"/v1/envs/{instance}/step/", {"action": 0}), 500, "still busy with an earlier call")
        other = make(url)
        assert ask(url, "POST", f"/v1/envs/{other}/reset/")[0] == 200
        watched.go.set()


def test_a_state_from_outside_is_data_of_a_known_size(root):
    """No pickle, no bomb, no lie about sizes: 400, and the environments go on."""

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(root / "executed"),)

    def npz(**entries):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries.items():
                archive.writestr(name + ".npy", data)
        return file.getvalue()

    def npy(array):
        file = io.BytesIO()
        np.save(file, array, allow_pickle=True)
        return file.getvalue()

    with running(root=root) as url:
        vector = make_vector(url)
        state = f"/whorl/v1/vectors/{vector}/state"
        ask(url, "POST", f"/whorl/v1/vectors/{vector}/reset", {"seed": 0})
        status, _, good = ask(url, "GET", state)
        assert status == 200
        with np.load(io.BytesIO(good), allow_pickle=False) as arrays:
            known = {name: npy(arrays[name]) for name in arrays.files}
        first = next(name for name in known if b"<f4" in known[name][:128] or b"<f8" in known[name][:128])
        lie = re.sub(rb"'shape': \([^)]*\), }", b"'shape': (9999999999999,), }", known[first][:128])[:127] + b"\n"
        assert len(lie) == 128 and b"9999999999999" in lie
        bad = [b"", b"PK", b"\x80\x04.", good[: len(good) // 2], npz(), npz(**{**known, "more": npy(np.zeros(1))})]
        bad += [npz(**{**known, first: data}) for data in (
            npy(np.array([Bomb()], dtype=object)), npy(np.zeros(10**8, np.int8)), npy(np.zeros(3)), b"", b"\x93NUMPY", lie,
            npy(np.full((4, 2), np.nan, np.float32)), npy(np.array(["text"])), lie.replace(b"<f", b"|O"),
        )]  # fmt: skip
        heads = [
            b"(" * 200,
            b"'''",
            b"{'descr': '|O', 'fortran_order': False, 'shape': (), }",
            b"[" * 9000,
            b"{" + b"-" * 9000 + b"1}",
        ]
        heads += [
            b"__import__('os').mkdir('executed')",
            b"\\",
            b"'shape'",
            b"9" * 60_000,
            b"{'shape': (" + b"9" * 4000 + b",)}",
        ]
        heads = [b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head for head in heads]
        bad += [npz(**{**known, first: head + bytes(64)}) for head in heads]
        bad.append(npy(np.array([Bomb()], dtype=object)))
        answers = [ask(url, "PUT", state, body) for body in bad]
        assert [(number, data) for number, (status, _, data) in enumerate(answers) if status != 400] == []
        assert ask(url, "PUT", state, good)[0] == 200 and not (root / "executed").exists()
