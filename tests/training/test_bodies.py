"""Which body updates have: what auto takes and says, refusals by name, what a run writes down and resume takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import whorl
from whorl.agents.a2c import A2CConfig
from whorl.agents.ppo import PPOConfig
from whorl.errors import BadInput
from whorl.feeds import Shared
from whorl.training.build import build
from whorl.training.changes import changed
from whorl.training.settings import Settings, one_word


def settings(run: whorl.Run) -> dict:
    return json.loads((run.path / "config.json").read_text())


def trained(tmp_path, agent="ppo", env="CartPole-v1", **fields) -> whorl.Run:
    common = {"total_steps": 1024, "eval_every": 0, "quiet": True, "runs": tmp_path, "logger": "none"}
    return whorl.train(agent, env, **common | fields)


def weights(run: whorl.Run) -> torch.Tensor:
    return torch.cat([p.flatten() for p in run.agent.parameters()])


@pytest.mark.parametrize(
    ("agent", "env", "body", "why"),
    [
        ("ppo", "CartPole-v1", "packed", "update: packed (without autograd"),
        ("dqn", "CartPole-v1", "packed", "update: packed (without autograd"),
        ("td3", "Pendulum-v1", "packed", "update: packed (without autograd"),
        ("ddpg", "Pendulum-v1", "packed", "update: packed (without autograd"),
        ("trpo", "CartPole-v1", "eager", "update: eager (TRPO has no loss by rows)"),
    ],
)
def test_auto(agent, env, body, why):
    parts = build(agent, env, num_envs=2)
    assert parts.update == body and parts.why.startswith(why)
    assert bool(parts.agent.step.plans) == (body == "packed")


def test_auto_where_networks_are_not_small():
    parts = build("a2c", "CartPole-v1", A2CConfig(feed=Shared(steps=8, workers=2)), num_envs=2)
    assert parts.why == "update: eager (asynchronous workers take eager steps on shared weights)"


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("crossq", "update='packed' is not for this CrossQ: CrossQ has no loss by rows. Use update='auto'"),
        ("cem", "update='packed' is not for this CEM: CEM has no loss by rows. Use update='auto'"),
    ],
)
def test_packed_by_name(tmp_path, agent, words):
    with pytest.raises(BadInput) as error:
        build(agent, "Pendulum-v1", update="packed")
    assert str(error.value) == words


def test_two_words_for_one_thing(tmp_path):
    with pytest.raises(
        BadInput, match="compile=True is another word for update='compiled', and update='packed': give one of"
    ):
        trained(tmp_path, compile=True, update="packed")
    with pytest.raises(BadInput, match="update must be one of 'auto', 'eager', 'packed', 'compiled'|update"):
        trained(tmp_path, update="fast")


def test_compile_is_a_word_for_compiled_wherever_fields_come_in(tmp_path):
    """Beside what a run or a recipe says, what is given goes first."""
    assert one_word({"compile": True, "seed": 1}) == {"update": "compiled", "compile": False, "seed": 1}
    assert one_word({"compile": True, "update": "auto"}) == {"update": "compiled", "compile": False}
    assert one_word({"compile": False}) == {"compile": False}
    was, config = Settings("ppo", "CartPole-v1", update="packed"), PPOConfig()
    assert changed(was, config, {"compile": True})[0].update == "compiled"
    was = replace(was, update="compiled", compile=True)
    assert changed(was, config, {"compile": False})[0].update == "auto"
    assert changed(was, config, {"update": "eager"})[0].update == "eager"
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"agent": "ppo", "env": "CartPole-v1", "update": "compiled", "compile": True}))
    again = trained(tmp_path, None, None, recipe=file, update="packed", total_steps=64, **{"feed.steps": 8})
    assert settings(again)["update"] == "packed" and not settings(again)["compile"]


def test_a_body_that_cannot_be_is_told_before_a_sweep_begins(tmp_path):
    with pytest.raises(BadInput, match="update='packed' is not for this CrossQ: CrossQ has no loss by rows"):
        whorl.sweep("crossq", "Pendulum-v1", {"learning_rate": [1e-3]}, seeds=1, runs=tmp_path, update="packed")
    assert not [*tmp_path.iterdir()]


def test_nothing_is_said_of_updates_where_no_optimizer_steps():
    parts = build("cem", "CartPole-v1", num_envs=2)
    assert (parts.update, parts.why) == ("eager", "")


def test_what_was_chosen_is_written_and_resumed(tmp_path):
    """An unbroken run's bits, whatever auto would choose then."""
    for body in ("auto", "eager"):
        whole = trained(tmp_path, update=body, total_steps=3072, normalize_observation=True, name=f"{body}_whole")
        half = trained(tmp_path, update=body, total_steps=2048, normalize_observation=True, name=f"{body}_half")
        assert settings(half)["update"] == {"auto": "packed", "eager": "eager"}[body]
        rest = whorl.resume(half.path, total_steps=3072, quiet=True)
        assert torch.equal(weights(whole), weights(rest))


def test_bodies_agree(tmp_path):
    """One rollout and its updates, from the same weights and numbers."""
    a, b = (trained(tmp_path, update=body, name=body) for body in ("eager", "packed"))
    assert torch.allclose(weights(a), weights(b), atol=2e-4)


def test_schedules_move_a_packed_step(tmp_path):
    runs = [
        trained(tmp_path, update=body, name=body, learning_rate=lambda p: 1e-3 * (1 - p), clip_range=lambda p: 0.1 + p)
        for body in ("eager", "packed")
    ]
    assert torch.allclose(*map(weights, runs), atol=5e-4)
    assert [run.agent.config.clip_range for run in runs] == [1.1, 1.1]


def test_annealing_and_kl_stop(tmp_path):
    config = replace(PPOConfig(), anneal_steps=2048, kl_stop=1e-4)
    runs = [trained(tmp_path, update=body, name=body, config=config, total_steps=2048) for body in ("eager", "packed")]
    assert runs[0].agent.report["learning_rate"] == runs[1].agent.report["learning_rate"]
    rows = [run.metrics()["train/approx_kl"] for run in runs]
    assert rows[0][-1] == pytest.approx(rows[1][-1], rel=0.05)


def test_without_numba(tmp_path):
    """Where numba cannot compile auto is eager, and says so; by name it is one sentence."""
    code = (
        "from whorl.training.build import build; parts = build('ppo', 'Acrobot-v1', num_envs=1); print(parts.why)\n"
        "try: build('ppo', 'Acrobot-v1', num_envs=1, update='packed')\n"
        "except Exception as error: print(error)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}
    )
    auto, name = process.stdout.splitlines()
    assert auto == "update: eager (numba is switched off (NUMBA_DISABLE_JIT))"
    assert name.startswith("update='packed' is not for this PPO: numba is switched off (NUMBA_DISABLE_JIT). Use ")


# -- precision -------------------------------------------------------------------------------------------------------


SMALL = {"total_steps": 80, "feed.warmup": 40, "feed.batch_size": 32, "hidden": (64, 64), "num_envs": 1}


@pytest.mark.parametrize("agent", ["sac", "td3", "ddpg", "redq", "crossq", "tqc"])
def test_bfloat16_rounds_hidden_layers_only(agent):
    """Each hidden layer's products lose digits, values and distributions are float32 that no bfloat16 number is equal to."""
    found = []
    for precision in ("float32", "bfloat16"):
        parts = build(agent, "Pendulum-v1", num_envs=1, precision=precision)
        own, observation = parts.agent, torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found.append(torch.stack([own.policy(observation).squeeze(-1), own.value(observation).reshape(-1)[:32]]))
    assert parts.why.startswith("precision: bfloat16, a product of 256 x 256") and parts.update == "eager"
    exact, rounded = found
    assert 1e-6 < (exact - rounded).abs().max() < 0.1 * exact.abs().max()
    assert rounded.dtype == torch.float32 and (rounded != rounded.bfloat16()).float().mean() > 0.9


def test_bfloat16_is_a_setting_that_resume_takes(tmp_path):
    common = SMALL | {"runs": tmp_path, "precision": "bfloat16", "eval_every": 0, "quiet": True, "logger": "none"}
    common |= {"checkpoint_every": 60}
    runs = [whorl.train("sac", "Pendulum-v1", **common | fields) for fields in ({"name": "a"}, {"total_steps": 60})]
    assert settings(runs[1])["precision"] == "bfloat16"
    rest = whorl.resume(runs[1].path, total_steps=80, quiet=True)
    assert torch.equal(weights(runs[0]), weights(rest))
    other = whorl.train("sac", "Pendulum-v1", **common | {"precision": "float32"})
    assert not torch.equal(weights(other), weights(rest)) and all(
        p.dtype == torch.float32 for p in rest.agent.parameters()
    )


def test_where_bfloat16_cannot_be(monkeypatch):
    for agent, fields, words in (
        (
            "ppo",
            {"update": "packed"},
            "changes nothing in packed steps, which are float32: use update='eager', or leave",
        ),
        ("cem", {}, "is for gradients through hidden layers of whorl's; CEM has none: leave precision out"),
        ("sac", {}, "needs a CPU with instructions for it, and this one has none: leave precision out"),
    ):
        if agent == "sac":
            monkeypatch.setattr("whorl.training.bodies.supported", lambda: False)
        with pytest.raises(BadInput, match=f"precision='bfloat16' {words}"):
            build(agent, "Pendulum-v1", num_envs=1, precision="bfloat16", **fields)
