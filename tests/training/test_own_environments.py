"""Environments of the user's own: classes and functions, options, wrappers; evaluated, filmed and resumed with more of the same."""

from __future__ import annotations

import hashlib
import json
import os
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import whorl
from whorl.apps.cli import main
from whorl.envs.env import Env, Step
from whorl.envs.make import EnvKind
from whorl.errors import BadInput, Damaged, EnvError, Incompatible
from whorl.training.build import build
from whorl.training.sweep import sweep

SHORT = {"total_steps": 256, "eval_every": 128, "eval_episodes": 4, "quiet": True}


class Corridor(gymnasium.Env):
    """Walk right to the end: -1 a step. With pictures where they are asked for."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, length: int = 4, render_mode: str | None = None):
        self.length, self.render_mode = length, render_mode
        self.observation_space, self.action_space = spaces.Box(0, 1, (1,)), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return self.seen(), {}

    def step(self, action):
        self.place = max(0, self.place + (1 if action else -1))
        return self.seen(), -1.0, self.place == self.length, False, {}

    def seen(self):
        return np.array([self.place / self.length], np.float32)

    def render(self):
        return np.full((8, 8, 3), 9 * self.place, np.uint8) if self.render_mode == "rgb_array" else None


class Batched(Env):
    """The same, all at once, endless but for its time limit."""

    def __init__(self, num_envs: int = 1, seed: int = 0, max_episode_steps: int = 8):
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        self.observation_space, self.action_space = spaces.Box(0, 1, (1,)), spaces.Discrete(2)
        self.t = 0

    def reset(self, seed=None):
        self.t = 0
        return np.zeros((self.num_envs, 1), np.float32)

    def step(self, action):
        self.t += 1
        ended = np.full(self.num_envs, self.t == self.max_episode_steps)
        there = np.full((self.num_envs, 1), self.t / self.max_episode_steps, np.float32)
        standing = there
        if ended.all():
            standing, self.t = np.zeros_like(there), 0
        return Step(standing, action.astype(np.float32), np.zeros_like(ended), ended, there)


class Herd:
    """As PettingZoo's environments are."""

    possible_agents = ("a", "b")


class Loud(gymnasium.RewardWrapper):
    def reward(self, reward):
        return 10 * reward


def config(run):
    return json.loads((run.path / "config.json").read_text())


def test_a_class_is_evaluated_filmed_loaded_and_resumed(tmp_path):
    limited = {"env_kwargs": {"length": 3}, "max_episode_steps": 50, "video_every": 20}
    run = whorl.train("ppo", Corridor, runs=tmp_path, name="one", **limited, **SHORT)
    assert run.path == tmp_path / "Corridor" / "ppo" / "one"
    assert (config(run)["env"], config(run)["env_kwargs"], config(run)["own_env"]) == ("Corridor", {"length": 3}, True)
    assert (run.path / "checkpoints" / "best").exists() and list((run.path / "video").glob("*.gif"))
    assert run.evaluate(4).lengths.max() <= 50
    trained = whorl.load(run.path, env=Corridor)
    assert np.array_equal(
        trained.evaluate(4, 5).returns,
        whorl.load(run.path, env=partial(Corridor, 3), env_kwargs={}).evaluate(4, 5).returns,
    )
    trained.film(tmp_path / "film.gif")
    with pytest.raises(BadInput, match="was trained on an environment of your own .Corridor.: pass one"):
        whorl.load(run.path)
    assert whorl.resume(run.path, 2000, quiet=True, env=Corridor).steps >= 2000


def test_a_variant_is_evaluated(tmp_path):
    run = whorl.train("ppo", Corridor, runs=tmp_path, max_episode_steps=30, **SHORT)
    always_right = [
        whorl.load(run.path, env=Corridor, env_kwargs={"length": n}).evaluate(2, 1).lengths for n in (1, 30)
    ]
    assert (always_right[1] == 30).all() and (always_right[0] < 30).all()
    assert (run.evaluate(2, env=partial(Corridor, 30)).lengths == 30).all()
    trained = whorl.load(run.path, env=Corridor)
    assert (trained.evaluate(2, env=partial(Corridor, 30)).lengths == 30).all()
    assert len(trained.evaluate(2, env=Corridor(2)).lengths) == 2  # an object
    with pytest.raises(
        BadInput, match=r"trained with observation Box\(1\), .* and CartPole-v1 .* has observation Box\(4\)"
    ):
        trained.evaluate(2, env="CartPole-v1")


def test_functions_and_batched_classes(tmp_path):
    run = whorl.train("ppo", lambda: Corridor(2), runs=tmp_path, max_episode_steps=20, **SHORT)
    assert run.path.parent.parent.name == "_lambda_" and run.evaluate(2).lengths.max() <= 20
    run = whorl.train("ppo", Batched, runs=tmp_path, env_kwargs={}, max_episode_steps=4, num_envs=3, **SHORT)
    assert (run.path.parent.parent.name, run.parts.env.num_envs) == ("Batched", 3)
    assert (run.evaluate(2).lengths == 4).all()


def test_options_of_an_id(tmp_path):
    run = whorl.train("ppo", "CartPole-v1", env_kwargs={"sutton_barto_reward": True}, runs=tmp_path, **SHORT)
    assert run.parts.env.origin == "gymnasium"  # the native world has no such option
    assert (run.evaluate(4).returns <= 0).all()  # -1 at the end, and 0 before
    assert (whorl.load(run.path).evaluate(4).returns <= 0).all()
    assert (whorl.load(run.path, env="CartPole-v1").evaluate(4).returns > 0).all()
    main(["eval", str(run.path), "--episodes", "4"])


@pytest.mark.box2d
def test_options_of_lunar_lander():
    pytest.importorskip("Box2D", reason="needs the extra box2d: pip install 'whorl[box2d]'")
    parts = build("ppo", whorl.envs.make.EnvKind("LunarLander-v3", {"gravity": -5}), num_envs=2)
    assert "gravity" in parts.env.made_from.kwargs


def test_wrappers(tmp_path):
    run = whorl.train("ppo", "CartPole-v1", wrappers=[Loud], runs=tmp_path, **SHORT)
    assert config(run)["wrappers"] == ["Loud"] and run.parts.env.origin == "gymnasium"
    assert (run.evaluate(2).returns == 10 * run.evaluate(2).lengths).all()
    for call in (whorl.load, partial(whorl.resume, total_steps=2000)):
        with pytest.raises(
            BadInput, match="was trained with wrappers around its environment .Loud.*pass them, wrappers="
        ):
            call(run.path)
    evaluation = whorl.load(run.path, wrappers=[Loud]).evaluate(2)
    assert (evaluation.returns == 10 * evaluation.lengths).all()
    with pytest.raises(BadInput, match="was started with the wrappers Loud, got .none."):
        whorl.resume(run.path, 2000, wrappers=[])
    assert whorl.resume(run.path, 2000, quiet=True, wrappers=[Loud]).steps >= 2000


@pytest.mark.parametrize(
    ("env", "given", "message"),
    [
        ("CartPole-v1", {"env_kwargs": {"gravity": 3}}, "CartPole-v1 does not take these options: gravity"),
        (
            "GridWorld-v0",
            {"env_kwargs": {"size": 3}},
            "exists only as a native world, which takes no wrappers .*got size",
        ),
        ("GridWorld-v0", {"wrappers": [Loud]}, "exists only as a native world, which takes no wrappers .*got Loud"),
        (Corridor, {"env_kwargs": {"size": 3}}, "Corridor does not take these options: size"),
        (Corridor, {"env_kwargs": {"length": np.int64(3)}}, "env_kwargs are written into .*length is np.int64"),
        (
            Corridor,
            {"env_kwargs": {"length": np.ones((2, 2))}},
            r"length is array\(\[\[1., 1.\], \[1., 1.\]\]\) .ndarray.: write it",
        ),
        (
            Corridor,
            {"env_kwargs": ["length"]},
            "env_kwargs is a dict, the environment's options by their names; got list",
        ),
        (Corridor, {"env_kwargs": {"max_episode_steps": 3}}, "max_episode_steps is no option of an environment"),
        (
            Corridor(),
            {"env_kwargs": {"length": 3}},
            "this is an object, Corridor: give it the options and wrappers yourself",
        ),
        (Corridor, {"wrappers": Loud}, "wrappers is a list of gymnasium wrappers"),
        (Corridor, {"wrappers": [lambda env: 3]}, "a wrapper takes a gymnasium.Env and gives one; .* gave int"),
        (Corridor, {"wrappers": [partial(Loud, 1, 2)]}, "does not go around .*TypeError"),
        (Batched, {"wrappers": [Loud]}, "Batched steps its environments together, and wrappers go around single ones"),
        (int, {}, "the callable must make a gymnasium.Env, it made int"),
        (Herd, {}, "it made Herd: environments of several agents .* are not here yet"),
        (Herd(), {}, "got Herd: environments of several agents .* are not here yet"),
        (partial(Corridor, 1, 2, 3), {}, "the environment cannot be made: TypeError"),
        (
            "http://localhost:1/X-v0",
            {"env_kwargs": {"a": 1}},
            "was made by its server: env_kwargs and wrappers are for",
        ),
        (3, {}, "an environment is an id, .*got int"),
    ],
)
def test_what_cannot_be(env, given, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        whorl.train("ppo", env, runs=tmp_path, **given, **SHORT)
    assert not list(tmp_path.iterdir())


def test_options_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--total-steps", "256", "--eval-episodes", "2", "--quiet", "--name", "one"]
    main(["train", "--env.sutton_barto_reward", "true", "ppo", "CartPole-v1", *words])
    written = json.loads((tmp_path / "runs/CartPole-v1/ppo/one/config.json").read_text())
    assert written["env_kwargs"] == {"sutton_barto_reward": True}
    with pytest.raises(SystemExit) as ended:
        main(["train", "ppo", "CartPole-v1", "--env.gravity=3", "--quiet"])
    assert ended.value.code == 2


def test_a_folder_does_not_name_files_for_an_environment(tmp_path):
    """Such an option is taken from who types it, and not from a folder that may be a stranger's."""
    run = whorl.train("ppo", Named, runs=tmp_path, env_kwargs={"file": "/etc/passwd"}, max_episode_steps=9, **SHORT)
    with pytest.raises(
        BadInput, match=r"config.json says file = '/etc/passwd' for its environment.*env_kwargs=\{'file'"
    ):
        whorl.load(run.path, env=Named)
    assert whorl.load(run.path, env=Named, env_kwargs={"file": "/etc/passwd"}).evaluate(2).lengths.max() <= 9
    with pytest.raises(BadInput, match="was started with env_kwargs = .*got .*'other'"):
        whorl.resume(run.path, 2000, env=Named, env_kwargs={"file": "other"})


class Named(Corridor):
    def __init__(self, file: str):
        super().__init__()


def test_a_sweep_hands_options_on(tmp_path):
    options = {"total_steps": 64, "eval_episodes": 1, "num_envs": 1}
    with pytest.raises(BadInput, match="CartPole-v1 does not take these options: gravity"):
        sweep("ppo", "CartPole-v1", {"discount": [0.9]}, runs=tmp_path, env_kwargs={"gravity": 1}, seeds=1, **options)
    with pytest.raises(Incompatible, match=r"ScaleAction \(place 0 of the chain\) does not fit"):
        sweep("ppo", "CartPole-v1", {"discount": [0.9]}, runs=tmp_path, transforms=["scale_action"], seeds=1)
    assert not list(tmp_path.iterdir())
    done = sweep(
        "ppo",
        "CartPole-v1",
        {"discount": [0.9]},
        runs=tmp_path,
        env_kwargs={"sutton_barto_reward": True},
        transforms=["normalize"],
        seeds=1,
        **options,
    )
    [row] = done.rows
    assert not done.failed and row.iqm <= 0
    [said] = tmp_path.glob("sweeps/*/*/*/*/config.json")
    assert json.loads(said.read_text())["transforms"] == ["normalize"]


def test_a_changed_table_of_options_is_said(tmp_path):
    run = whorl.train("ppo", "CartPole-v1", runs=tmp_path, **SHORT)
    data = config(run) | {"env_kwargs": [1]}
    (run.path / "config.json").write_text(json.dumps(data))
    with pytest.raises((BadInput, Damaged), match="env_kwargs"):
        whorl.load(run.path)


class Spaceless(Batched):
    def __init__(self, **options):
        super().__init__(**options)
        self.observation_space = None


class Actionless(Corridor):
    def __init__(self):
        super().__init__()
        del self.action_space


def test_an_environment_says_its_spaces(tmp_path):
    for env in (Spaceless, Spaceless(), Actionless, Actionless()):
        with pytest.raises(EnvError, match="its .*_space should be one of gymnasium.spaces, there is none"):
            whorl.train("ppo", env, runs=tmp_path, total_steps=64)


class Numbered(Corridor):
    """The same shape of arrays, and other things in them."""

    def __init__(self, kind: str = "box"):
        super().__init__()
        of = {"bits": spaces.MultiBinary(1), "bytes": spaces.Box(0, 1, (1,), np.uint8), "box": spaces.Box(0, 9, (1,))}
        self.observation_space = of[kind]

    def seen(self):
        return np.zeros(1, self.observation_space.dtype)


def test_spaces_are_written_down_and_others_are_refused(tmp_path):
    run = whorl.train("ppo", Numbered, runs=tmp_path, max_episode_steps=9, **SHORT)
    assert config(run)["spaces"] == "observation Box(1), action Discrete(2)"
    before = (run.path / "config.json").read_bytes()
    for other, has in (
        ("Pendulum-v1", r"Pendulum-v1 .* has observation Box\(3\), action Box\(1\)"),
        (partial(Numbered, "bits"), r"has observation MultiBinary\(1\), action Discrete\(2\): pass one with the same"),
        (partial(Numbered, "bytes"), r"has observation uint8 Box\(1\)"),
    ):
        for call in (whorl.load, partial(whorl.resume, total_steps=2000), whorl.load(run, env=Numbered).evaluate):
            with pytest.raises(
                BadInput, match=rf"was trained with observation Box\(1\), action Discrete\(2\), and .*{has}"
            ):
                call(**{} if isinstance(call, type(run.evaluate)) else {"path": run.path}, env=other)
    with pytest.raises(BadInput, match=r"has observation MultiBinary\(1\)"):
        whorl.load(run, env=Numbered, env_kwargs={"kind": "bits"})
    assert (run.path / "config.json").read_bytes() == before


def test_a_folder_of_before_there_was_such_a_note(tmp_path):
    run = whorl.train("ppo", "CartPole-v1", runs=tmp_path, **SHORT)
    data = {name: value for name, value in config(run).items() if name not in ("spaces", "sha256")}
    sha256 = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    (run.path / "config.json").write_text(json.dumps(data | {"sha256": sha256}))
    for manifest in run.path.glob("checkpoints/step_*/manifest.json"):
        manifest.write_text(manifest.read_text().replace(config_hash(manifest), sha256))
    assert len(whorl.load(run.path).evaluate(2).returns) == 2
    whorl.resume(run.path, 2000, quiet=True)
    assert config(run)["spaces"] == "observation Box(4), action Discrete(2)" and config(run)["earlier"] == [sha256]
    whorl.load(run.path)


def config_hash(manifest):
    return json.loads(manifest.read_text())["config"]


def test_a_variant_keeps_the_wrappers_and_says_what_it_leaves_out(tmp_path, caplog):
    given = {"wrappers": [Loud], "env_kwargs": {"length": 3}, "max_episode_steps": 9}
    run = whorl.train("ppo", Corridor, runs=tmp_path, **given, **SHORT)
    trained = whorl.load(run.path, env=Corridor, wrappers=[Loud])
    for evaluate in (run.evaluate, trained.evaluate):
        caplog.clear()
        variant = evaluate(2, env=partial(Corridor, 30))
        assert (variant.returns == -10 * variant.lengths).all() and (variant.lengths == 9).all()
        [line] = caplog.messages
        assert "Corridor is made without the env_kwargs of the run, {'length': 3}" in line
        for kept in (Corridor(30), EnvKind(Corridor, {"length": 30})):  # as they are
            assert (lambda found: (found.returns == -found.lengths).all())(evaluate(1, env=kept))
    run = whorl.train("ppo", "CartPole-v1", runs=tmp_path, env_kwargs={"sutton_barto_reward": True}, **SHORT)
    caplog.clear()
    whorl.load(run, env="CartPole-v1")
    assert "CartPole-v1 is made without the env_kwargs of the run" in caplog.text


class Elsewhere(Corridor):
    def step(self, action):
        os.chdir("/")
        return super().step(action)


def test_an_environment_may_go_to_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = whorl.train("random", Elsewhere, runs="runs", checkpoint_every=64, **SHORT)
    assert run.path.is_relative_to(tmp_path) and (run.path / "eval.json").exists()
