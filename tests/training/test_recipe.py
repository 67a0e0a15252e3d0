"""A run's config.json as a recipe, and the words of other libraries."""

from __future__ import annotations

import dataclasses
import json
import sys

import gymnasium
import pytest

import whorl
from tests.cases import each
from whorl import options
from whorl.apps.cli import main, parse
from whorl.errors import BadInput
from whorl.training import grid
from whorl.training.catalog import AGENTS, default_config
from whorl.training.settings import Settings

QUICK = {"total_steps": 256, "num_envs": 2, "eval_every": 0, "quiet": True}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    run = whorl.train("ppo", "CartPole-v1", runs=runs, hidden=(8,), discount=0.9, feed={"steps": 32}, seed=4, **QUICK)
    return run.path / "config.json"


def test_a_runs_config_is_a_recipe_and_options_beside_it_win(recipe, tmp_path, capfd):
    again = whorl.train(recipe=recipe, runs=tmp_path, discount=0.8, quiet=True)
    written, before = (json.loads(path.read_text()) for path in (again.path / "config.json", recipe))
    assert written["config"] == before["config"] | {"discount": 0.8} and written["seed"] == 4
    for other in (recipe.parent, again):  # its folder, and the run itself
        assert whorl.train(recipe=other, runs=tmp_path, seed=1, quiet=True).config.feed.steps == 32
    assert parse(["train", "--recipe", str(recipe.parent)]).agent.feed.steps == 32
    with pytest.raises(BadInput, match="config.json is missing"):
        whorl.train(recipe=tmp_path)
    command = parse(["train", "--recipe", str(recipe), "--seed", "7", "--agent.discount", "0.7"])
    assert (command.algorithm, command.environment) == ("ppo", "CartPole-v1")
    assert (command.settings.seed, command.settings.total_steps) == (7, 256)
    assert (command.agent.discount, command.agent.hidden, command.agent.feed.steps) == (0.7, (8,), 32)
    (tmp_path / "part.json").write_text('{"seed": 9, "config": {"discount": 0.5}}')
    other = parse(["train", "a2c", "Acrobot-v1", "--recipe", str(tmp_path / "part.json")])
    assert (other.algorithm, other.environment) == ("a2c", "Acrobot-v1")
    assert (other.settings.seed, other.agent.discount) == (9, 0.5)


def test_a_recipe_is_checked_and_imports_and_connects_to_nothing(tmp_path, recipe):
    file = tmp_path / "recipe.json"
    for change, message in each([
        ({"sed": 1}, "unknown key 'sed'; did you mean 'seed'"),
        ({"config": {"gamma": 0.9}}, "what others call gamma is discount"),
        ({"config": [1]}, "config should be a table"),
        ({"agent": None}, "should name an agent"),
        ({"agent": "antigravity:Agent"}, "a name imports nothing"),
        ({"env": "antigravity:Env-v0"}, "a file connects to nothing and imports nothing"),
        ({"encoder": "antigravity:Torso"}, r"something that no file holds \(encoder\): pass it again, encoder="),
        ({"env": "http://127.0.0.1:9/CartPole-v1"}, "a file connects to nothing"),
        ({"num_envs": "many"}, "num_envs must be a whole number"),
    ]):  # fmt: skip
        file.write_text(json.dumps(json.loads(recipe.read_text()) | change))
        with pytest.raises(BadInput, match=message):
            whorl.train(recipe=file, runs=tmp_path / "runs", quiet=True)
        with pytest.raises(SystemExit) as stop:
            main(["train", "--recipe", str(file), "--runs", str(tmp_path / "runs"), "--quiet"])
        assert stop.value.code == 2
    assert "antigravity" not in sys.modules and not (tmp_path / "runs").exists()


def test_what_others_call_it_is_known_here():
    """Every answer begins with a name that there is, or says that there is none."""
    fields = {name for agent in AGENTS for name in grid.fields(default_config(agent))}
    fields |= {field.name for field in dataclasses.fields(Settings)}
    fields |= {"env", "hooks", "loggers", "runs", "quiet", "encoder", "slots"}  # of train, and of sweep
    for name, answer in each(options.ELSEWHERE.items()):
        assert answer.replace(",", " ").split()[0] in fields or answer.startswith("not here yet"), name
        assert name not in fields


def test_an_unknown_argument_is_answered(tmp_path, capfd):
    for name, said in each([
        ("gamma", "what others call gamma is discount"),
        ("n_steps", "is feed.steps"),
        ("total_timesteps", "is total_steps"),
        ("callback", "is hooks"),
        ("num_env", "did you mean 'num_envs'"),
        ("step", "There are .*hooks.*; of every run .*total_steps.*; of this agent .PPOConfig. .*clip_range"),
    ]):  # fmt: skip
        with pytest.raises(BadInput, match=f"there is no argument '{name}'.*{said}"):
            whorl.train("ppo", "CartPole-v1", runs=tmp_path, **{name: 1})
    for option, said in each(
        [
            ("--gamma", "is --agent.discount"),
            ("--n-steps", "is --agent.feed.steps"),
            ("--total-timesteps=9", "is --total-steps"),
        ]
    ):
        with pytest.raises(SystemExit) as stop:
            main(["train", "ppo", "CartPole-v1", option, "1", "--runs", str(tmp_path)])
        assert stop.value.code == 2 and said in capfd.readouterr().err


def test_a_typed_environment_may_name_its_module(tmp_path, monkeypatch):
    """Gymnasium's own form; what is remembered is the id."""
    (tmp_path / "my_world.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('MyWorld-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=20)\n"
    )
    monkeypatch.setitem(gymnasium.registry, "MyWorld-v0", None)  # undone after the test: then there is no such id
    monkeypatch.delitem(gymnasium.registry, "MyWorld-v0")
    monkeypatch.chdir(tmp_path)
    run = whorl.train("random", "my_world:MyWorld-v0", total_steps=64, num_envs=2, eval_every=0, quiet=True)
    assert run.settings.env == "MyWorld-v0"
    assert parse(["train", "random", "my_world:MyWorld-v0"]).environment == "MyWorld-v0"
    assert parse(["sweep", "random", "my_world:MyWorld-v0"]).imports == ("my_world",)
    with pytest.raises(BadInput, match="there is no module 'not_there' to import"):
        whorl.train("random", "not_there:MyWorld-v0")
    with pytest.raises(BadInput, match="an id cannot import a module"):
        whorl.make_env("my_world:MyWorld-v0")


class Halved(gymnasium.RewardWrapper):
    def reward(self, reward):
        return reward / 2


class Line(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Discrete(4), gymnasium.spaces.Discrete(2)

    def __init__(self, file: str = ""):
        self.file = file

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 1, 1.0, bool(action), False, {}


def test_a_recipe_of_what_is_the_users_takes_it_again(tmp_path):
    own = {"env_kwargs": {"file": "/dev/null"}, "wrappers": [Halved], "learning_rate": lambda progress: 1e-3}
    run = whorl.train("ppo", Line, runs=tmp_path, hidden=(8,), max_episode_steps=5, **own, **QUICK)
    again = whorl.train(recipe=run, env=Line, runs=tmp_path, seed=1, **own, quiet=True)
    for name in ("env", "env_kwargs", "wrappers", "own_env", "scheduled"):
        assert getattr(again.settings, name) == getattr(run.settings, name)
    assert again.config.hidden == (8,)
    for left_out, message in each([
        ("env", r"\(own_env\): pass it again, env="),
        ("wrappers", r"\(wrappers\): pass it again, wrappers="),
        ("learning_rate", r"\(scheduled\): pass it again, the function"),
        ("env_kwargs", "if you trust it, pass it yourself, env_kwargs="),
    ]):  # fmt: skip
        with pytest.raises(BadInput, match=message):
            whorl.train(recipe=run, runs=tmp_path, **{k: v for k, v in {"env": Line, **own}.items() if k != left_out})
    instead = {"wrappers": [], "learning_rate": 1e-4, "env_kwargs": {"file": ""}}
    other = whorl.train(recipe=run, env=Line, runs=tmp_path, **instead, quiet=True)
    assert (other.settings.wrappers, other.settings.scheduled, other.config.learning_rate) == ((), "", 1e-4)
    by_object = whorl.train(
        recipe=run, env=Line(), runs=tmp_path, **{**instead, "env_kwargs": None}, num_envs=1, max_episode_steps=None
    )
    assert by_object.config.hidden == (8,)
