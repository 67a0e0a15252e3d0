"""Agents from outside the package: a class, or one that is built, wherever a name goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import whorl
from tests.cases import each
from tests.training.fingerprint import fingerprint
from tests.training.own import vmpo  # noqa: F401
from tests.training.test_feeds import killed_at
from whorl.agents.a2c import A2C, A2CConfig
from whorl.agents.agent import Agent
from whorl.apps.cli import main
from whorl.envs.make import make_env
from whorl.errors import AgentError, BadInput
from whorl.feeds import Rollouts
from whorl.nets.heads import Critic
from whorl.options import override
from whorl.policies.stochastic import Stochastic
from whorl.training import catalog
from whorl.training.brought import check_hidden

QUICK = {"total_steps": 600, "num_envs": 2, "log_every": 100, "checkpoint_every": 200, "eval_every": 0, "quiet": True}
SMALL = {"hidden": (8,), "feed": {"steps": 20, "epochs": 2}}
KILLED = """
import os, signal, sys
import whorl
from vmpo import VMPO

class Killed:
    def begin(self, run):
        self.run = run

    def __call__(self, rollout, metrics):
        if self.run.steps >= 450:
            os.kill(os.getpid(), signal.SIGKILL)

whorl.train(VMPO, "CartPole-v1", runs=sys.argv[1], hooks=[Killed()], {options})
"""


class Mine(A2C):
    """Advantage actor-critic by another name."""


class Torso(nn.Module):
    """Two of the numbers that CartPole shows."""

    def __init__(self, space):
        super().__init__()
        self.width, self.layer = 5, nn.Linear(2, 5)

    def forward(self, observation):
        return self.layer(observation[..., 2:]).tanh()


class NoPlace(A2C):
    @classmethod
    def build(cls, observation_space, action_space, config):
        return super().build(observation_space, action_space, config)


def build(**config):
    """An agent with a network of its own shape."""
    env = make_env("CartPole-v1")
    policy = Stochastic.build(env.observation_space, env.action_space, hidden=(6,), activation="relu")
    return Mine(policy, Critic(env.observation_space, (6,), "relu"), A2CConfig(**config))


def test_a_class_trains_and_goes_on_to_the_same_bits_after_a_kill(vmpo, tmp_path):  # noqa: F811
    whole = whorl.train(vmpo.VMPO, "CartPole-v1", runs=tmp_path / "a", **QUICK, **SMALL)
    options = ", ".join(f"{name}={value!r}" for name, value in (QUICK | SMALL).items())
    place = {**os.environ, "PYTHONPATH": os.pathsep.join([p for p in sys.path if p])}
    code = KILLED.format(options=options)
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "b"], env=place, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    again = whorl.resume(tmp_path / "b" / "last", agent=vmpo.VMPO, quiet=True)
    assert fingerprint(again.path) == fingerprint(whole.path)
    assert whole.settings.agent == "vmpo" and whole.path.parent.name == "vmpo"
    assert type(whorl.load(whole.path).policy) is Stochastic  # its name is known here


def test_the_shell_knows_what_a_module_registers(vmpo, tmp_path, capfd):  # noqa: F811
    words = [
        "--total-steps",
        "400",
        "--num-envs",
        "2",
        "--agent.hidden",
        "8",
        "--agent.feed.steps",
        "20",
        "--eval-episodes",
        "2",
    ]
    main(["train", "--import", "vmpo", "vmpo", "CartPole-v1", *words, "--runs", str(tmp_path), "--quiet"])
    main(["eval", str(tmp_path / "last"), "--import=vmpo", "--episodes", "3"])
    main(["resume", str(tmp_path / "last"), "--import", "vmpo", "--total-steps", "500", "--quiet"])
    main(["list", "agents", "--import", "vmpo"])
    assert "Weighted maximum likelihood" in capfd.readouterr().out
    assert json.loads((tmp_path / "last" / "config.json").read_text())["config"]["hidden"] == [8]
    with pytest.raises(SystemExit) as stop:
        main(["list", "agents", "--import", "no_such_module"])
    assert stop.value.code == 2 and "there is no module 'no_such_module' to import" in capfd.readouterr().err


def test_a_sweep_trains_a_class_in_processes_of_their_own(vmpo, tmp_path):  # noqa: F811
    short = {"total_steps": 200, "num_envs": 2, "eval_episodes": 2}
    done = whorl.sweep(vmpo.VMPO, "CartPole-v1", {"alpha_limit": [0.1]}, seeds=1, runs=tmp_path, **short)
    assert not done.failed and done.rows[0].setting == {"alpha_limit": 0.1}
    for agent, message in (
        (build(), "pass the class"),
        (type("Local", (A2C,), {"__module__": "__main__"}), "put it into a module"),
    ):
        with pytest.raises(BadInput, match=message):
            whorl.sweep(agent, "CartPole-v1", {"discount": [0.9]}, runs=tmp_path)


def test_a_class_without_a_name_stands_in_the_folder_for_people_to_read(tmp_path):
    run = whorl.train(Mine, "CartPole-v1", runs=tmp_path, **QUICK, hidden=(8,))
    assert run.settings.agent == f"{__name__}:Mine" and run.path.parent.name == "Mine"
    for again in (whorl.load, whorl.resume):
        with pytest.raises(
            BadInput, match=r"a run folder imports nothing: pass the class, whorl.load\(path, agent=Mine\)"
        ):
            again(run.path)
        with pytest.raises(BadInput, match="was trained with the agent .*:Mine, not with ppo"):
            again(run.path, agent="ppo")
    policy = whorl.load(run.path, agent=Mine).policy
    assert all(map(torch.equal, policy.state_dict().values(), run.agent.policy.state_dict().values()))
    assert whorl.resume(run.path, total_steps=700, agent=Mine, quiet=True).steps >= 700


def test_an_agent_that_is_built_is_trained_as_it_is(tmp_path):
    agent = build(feed=Rollouts(steps=10))
    run = whorl.train(agent, "CartPole-v1", runs=tmp_path, seed=3, **QUICK | {"eval_every": 300, "eval_episodes": 2})
    assert run.agent is agent and agent.seed == 3 and run.config == agent.config and agent.env_steps >= 600
    assert run.result.best is not None and run.result.best.episodes == 2
    loaded = whorl.load(run.path, "last", agent=build(feed=Rollouts(steps=10))).policy
    assert all(map(torch.equal, loaded.state_dict().values(), agent.policy.state_dict().values()))
    again = whorl.resume(run.path, total_steps=800, agent=build(feed=Rollouts(steps=10)), quiet=True)
    assert again.steps >= 800
    for options, message in each([
        ({"learning_rate": 0.1}, "keeps its config: learning_rate cannot be given"),
        ({"config": A2CConfig()}, "keeps its config: config cannot be given"),
        ({"env": "Pendulum-v1"}, "does not fit observations"),
        ({"env": "Acrobot-v1"}, "does not fit observations"),
    ]):  # fmt: skip
        with pytest.raises(BadInput, match=message):
            whorl.train(agent, runs=tmp_path, **{"env": "CartPole-v1"} | options)


@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_an_encoder_of_the_users_trains_is_loaded_and_goes_on_to_the_same_bits(agent, tmp_path):
    feed = (
        {"steps": 50, "epochs": 1}
        if agent == "ppo"
        else {"batch_size": 8, "capacity": 500, "warmup": 50, "replay_ratio": 0.1}
    )
    common = {"env": "CartPole-v1", "encoder": Torso, "feed": feed, **QUICK}
    whole = whorl.train(agent, runs=tmp_path / "a", **common)
    assert whole.settings.encoder == f"{__name__}:Torso"
    assert any(isinstance(part, Torso) for part in whole.agent.policy.modules())
    with pytest.raises(MemoryError):
        whorl.train(agent, runs=tmp_path / "b", hooks=[killed_at(450)], **common)
    path = (tmp_path / "b" / "last").resolve()
    for again in (whorl.load, whorl.resume):
        with pytest.raises(BadInput, match=r"pass it, whorl.load\(path, encoder=Torso\)"):
            again(path)
    assert fingerprint(whorl.resume(path, encoder=Torso, quiet=True).path) == fingerprint(whole.path)
    policy = whorl.load(path, encoder=Torso).policy
    assert all(map(torch.equal, policy.state_dict().values(), whole.agent.policy.state_dict().values()))
    with pytest.raises(BadInput, match="encoder"):
        whorl.train(agent, runs=tmp_path / "c", **common | {"encoder": lambda space: 3})


class First(Torso):
    """Two of what any environment shows."""

    def forward(self, observation):
        return self.layer(observation[..., :2]).tanh()


class ByHand(A2C):
    """Calls the encoder itself, and shows it whole rollouts."""

    @classmethod
    def build(cls, observation_space, action_space, config, *, encoder):
        policy = Stochastic.build(observation_space, action_space, encoder=encoder)
        return cls(policy, nn.Sequential(encoder(observation_space), nn.Linear(5, 1), nn.Flatten(-2)), config)


class Rows(Torso):
    def forward(self, observation):
        rows, width = observation.shape
        return super().forward(observation)


def test_the_network_in_an_agent_of_the_users_sees_one_axis_of_rows(tmp_path):
    run = whorl.train(ByHand, "CartPole-v1", encoder=Rows, runs=tmp_path, **QUICK | {"total_steps": 100})
    assert run.agent.critic[0](torch.zeros(2, 3, 4)).shape == (2, 3, 5)


def test_policy_and_critic_do_not_share_the_users_network(tmp_path):
    one = Torso(None)
    with pytest.raises(BadInput, match="the encoder gives one Torso twice: policy and critic need new ones"):
        whorl.train("a2c", "CartPole-v1", encoder=lambda space: one, runs=tmp_path, **QUICK)


def test_hidden_layers_that_an_encoder_replaces_are_refused(tmp_path):
    refused = []
    for name in each(catalog.AGENTS):
        if name in ("cem", "random", "td") or catalog.AGENTS[name].load:
            continue
        env = make_env("Pendulum-v1" if name in ("ddpg", "td3", "sac", "redq", "crossq", "tqc") else "CartPole-v1")
        try:
            check_hidden(name, env, override(catalog.default_config(name), {"hidden": (8,)}), First, (8,))
        except BadInput:
            refused.append(name)
    assert refused == ["reinforce", "a2c", "a3c", "impala", "ppo", "dqn", "c51", "qr_dqn", "iqn", "tqc", "trpo"]
    with pytest.raises(BadInput, match=r"hidden = \(8,\) does nothing here: .*hidden layers of a2c; leave hidden out"):
        whorl.train("a2c", "CartPole-v1", encoder=Torso, hidden=(8,), runs=tmp_path, **QUICK)
    assert not list(tmp_path.iterdir())


def test_who_takes_no_encoder_says_so(tmp_path):
    for agent, message in (
        (NoPlace, "NoPlace takes no encoder"),
        (build(), "has its networks: leave encoder out"),
        ("random", "encoder"),
    ):
        with pytest.raises(BadInput, match=message):
            whorl.train(agent, "CartPole-v1", encoder=Torso, runs=tmp_path, **QUICK)
    path = whorl.train("random", "CartPole-v1", runs=tmp_path, **QUICK).path
    with pytest.raises(BadInput, match="was trained without an encoder"):
        whorl.load(path, encoder=Torso)


def test_a_class_of_whorls_own_has_its_name_and_presets():
    assert catalog.agent_name(A2C) == "a2c" and catalog.agent_name(Mine) == f"{__name__}:Mine"
    assert catalog.find(A2C, "CartPole-v1") == catalog.find("a2c", "CartPole-v1")
    with pytest.raises(AgentError, match="Mine on ProbeConstant.*: value"):  # it has learned for 64 steps
        whorl.check_agent(Mine, steps=64)


def test_what_is_no_agent_is_said(monkeypatch):
    monkeypatch.setattr(catalog, "AGENTS", dict(catalog.AGENTS))
    bare = type("Bare", (Agent,), {})
    for agent, message in each([
        (int, "got int"),
        (3, "got int"),
        (bare, "Bare names no Config"),
        ("vmp", "unknown agent 'vmp'.*--import"),
        ("os:system", "a name imports nothing: pass the class, agent=system"),
    ]):  # fmt: skip
        with pytest.raises(BadInput, match=message):
            catalog.agent_class(agent)
    with pytest.raises(BadInput, match="there is an agent 'ppo' already"):
        whorl.register_agent("ppo", Mine)
    whorl.register_agent("mine", Mine, presets={"CartPole-v1": whorl.training.catalog.Preset(A2CConfig(), 3)})
    whorl.register_agent("mine", Mine)  # again, as a module that is imported twice does
    assert catalog.agent_name(Mine) == "mine" and catalog.agent_class("mine") is Mine


def test_installed_packages_bring_agents_and_environments(tmp_path, monkeypatch):
    """Nothing of them is imported until it is asked for."""
    (tmp_path / "plugin.py").write_text(
        "from gymnasium.envs.classic_control import CartPoleEnv as Cart\nfrom whorl.agents.a2c import A2C\nclass Own(A2C): ...\n"
    )
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[whorl.agents]\nown = plugin:Own\n[whorl.envs]\nCart-v0 = plugin:Cart\n")
    code = (
        "import sys, whorl\nfrom whorl.apps.cli import main\n"
        "main(['list', 'agents']); main(['list', 'envs'])\n"
        "print([m for m in ('torch', 'plugin') if m in sys.modules])\n"
        "run = whorl.train('own', 'Cart-v0', total_steps=64, num_envs=2, eval_every=0, max_episode_steps=20, quiet=True)\n"
        "print(run.settings.agent, run.settings.env, type(run.agent).__module__)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(whorl.__file__).parents[1])])
    place = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=place, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[-2:] == ["[]", "own Cart-v0 plugin"], done.stderr
    assert any(line.split()[:2] == ["own", "plugin:Own,"] for line in lines)
    assert any(line.split() == ["Cart-v0", "gymnasium"] for line in lines)
