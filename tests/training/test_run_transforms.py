"""Transforms as part of a run: asked for, written down, rebuilt, refused."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch

import whorl
from tests.cases import each
from whorl import options
from whorl.apps.cli import main
from whorl.envs.make import EnvKind, make_env
from whorl.errors import BadInput, Incompatible
from whorl.functional.streams import stream
from whorl.presets import Preset
from whorl.training import catalog
from whorl.training.hooks import FINAL
from whorl.transforms import chain
from whorl.transforms.transform import OfObservation, OfReward

SMALL = {
    "total_steps": 64,
    "num_envs": 2,
    "eval_every": 32,
    "eval_episodes": 2,
    "checkpoint_every": 32,
    "log_every": 32,
    "logger": "none",
    "quiet": True,
    "update": "eager",
    "feed": {"steps": 8, "epochs": 1},
    "hidden": (4,),
}
STACK = {"name": "stack_frames", "count": 2}
CHAIN = ["scale_action", STACK, {"name": "time_limit", "steps": 9}]


class Running(OfObservation):
    """The mean of what it has seen, subtracted."""

    mean: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def look(self, observation):
        return observation - self.constants(observation)[0]

    def step(self, result):
        if self.training:
            self.mean += 0.01 * (torch.as_tensor(result.observation).mean(0) - self.mean)
        return super().step(result)


class Halved(OfReward):
    """Half the reward."""

    training_only = True

    def judge(self, reward):
        return reward / 2


@pytest.fixture(autouse=True)
def names(monkeypatch):
    """Those of a test are gone after it."""
    monkeypatch.setattr(chain, "TRANSFORMS", dict(chain.TRANSFORMS))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return whorl.train("ppo", "Pendulum-v1", transforms=CHAIN, runs=tmp_path_factory.mktemp("runs"), **SMALL)


def config(run):
    return json.loads((Path(run) / "config.json").read_text())


def call(capfd, *arguments):
    """(exit code, standard output, standard error)."""
    code = 0
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code or 0
    return code, *capfd.readouterr()


def test_a_run_has_its_chain_wherever_it_goes(run, tmp_path):
    assert config(run)["transforms"] == CHAIN
    trained = whorl.load(run)
    assert [type(each).__name__ for each in trained.env] == ["ScaleAction", "StackFrames", "TimeLimit"]
    one, other = trained.evaluate(4, seed=3), run.evaluate(4, seed=3)
    assert (one.lengths == 9).all()
    if trained.checkpoint.name == "step_64":
        np.testing.assert_array_equal(one.returns, other.returns)
    trained.film(tmp_path / "film.gif")
    again = whorl.train(recipe=run, runs=tmp_path, **{**SMALL, "eval_every": 0})
    assert config(again)["transforms"] == CHAIN
    for said in each([[], [STACK]]):
        other = whorl.train(recipe=run, transforms=said, runs=tmp_path, **{**SMALL, "eval_every": 0})
        assert config(other)["transforms"] == said


def test_on_the_command_line(capfd, tmp_path):
    small = [
        "--total-steps",
        32,
        "--num-envs",
        2,
        "--eval-every",
        0,
        "--agent.feed.steps",
        8,
        "--update",
        "eager",
        "--quiet",
    ]
    begin = ["train", "ppo", "Pendulum-v1", *small, "--runs", tmp_path, "--agent.hidden", 4, "--transforms"]
    assert call(capfd, *begin, json.dumps(CHAIN))[0] == 0
    last = tmp_path / "last"
    assert config(last)["transforms"] == CHAIN
    code, out, _ = call(capfd, "eval", last, "--episodes", 2, "--json")
    assert code == 0 and json.loads(out.splitlines()[-1])["episodes"] == 2
    assert call(capfd, "play", last, "--gif", tmp_path / "film.gif")[0] == 0 and (tmp_path / "film.gif").exists()
    assert call(capfd, "train", "--recipe", last, *small, "--runs", tmp_path / "again")[0] == 0
    assert config(tmp_path / "again" / "last")["transforms"] == CHAIN
    code, out, _ = call(capfd, "check", "ppo", "Pendulum-v1", "--transforms", json.dumps(CHAIN))
    assert code == 0 and "through ScaleAction, StackFrames(count=2), TimeLimit(steps=" in out and "Box(2, 3)" in out
    code, _, err = call(capfd, "check", "ppo", "CartPole-v1", "--transforms", '["scale_action"]')
    assert code == 1 and "cannot train in CartPole-v1: ScaleAction (place 0 of the chain) does not fit" in err


def test_what_is_wrong_is_one_sentence_before_anything_is_written(capfd, tmp_path):
    begin = ["train", "ppo", "Pendulum-v1", "--runs", tmp_path / "runs", "--quiet", "--transforms"]
    for said, message in each([
        ('["scale_actoin"]', "unknown transform 'scale_actoin'; did you mean 'scale_action'"),
        ('[{"name": "stack_frames", "size": 4}]', "stack_frames has no argument 'size'"),
        ('[{"name": "stack_frames", "count": 0}]', "StackFrames needs a count of at least 1, got 0"),
        ('["scale_action"', "transforms are a list in JSON"),
        ('[{"name": "normalize", "mean": [1, 2]}]', "Normalize (place 0 of the chain) does not fit what lies within"),
        ('[{"name": "normalize", "std": 0}]', "Normalize needs a finite mean and a std above 0"),
    ]):  # fmt: skip
        code, _, err = call(capfd, *begin, said)
        assert code in (1, 2) and message in err and err.count("\n") == 1
    with pytest.raises(Incompatible, match=r"ScaleAction \(place 0 of the chain\) does not fit what lies within"):
        whorl.train("ppo", "CartPole-v1", transforms=["scale_action"], runs=tmp_path / "runs", **SMALL)
    with pytest.raises(BadInput, match="transforms go around environments that are made here, and this is an object"):
        whorl.train("ppo", whorl.make_env("Pendulum-v1", 2), transforms=CHAIN, runs=tmp_path / "runs", **SMALL)
    with pytest.raises(BadInput, match="Running has no name by which a run could write it down"):
        whorl.train("ppo", "Pendulum-v1", transforms=[Running()], runs=tmp_path / "runs", **SMALL)
    assert not (tmp_path / "runs").exists()


def test_a_folder_names_no_file(run, tmp_path):
    for said, message in each([
        ([{"name": "normalize", "mean": "../x"}], "says mean = '../x' for its transform 'normalize', which could name"),
        ([[1]], r"a transform is a name or a table with one, got \(1,\)|got \[1\]"),
    ]):  # fmt: skip
        (tmp_path / "recipe.json").write_text(json.dumps(config(run) | {"transforms": said}))
        with pytest.raises(BadInput, match=message):
            whorl.train(recipe=tmp_path / "recipe.json", runs=tmp_path / "runs", **SMALL)


def test_presets_bring_theirs(monkeypatch, tmp_path, capfd):
    tuned = Preset(catalog.default_config("ppo"), 2, 64, transforms=("scale_action", STACK))
    monkeypatch.setattr(catalog, "presets", lambda agent: {"Pendulum-v1": tuned})
    monkeypatch.setattr("whorl.apps.lists.presets", lambda agent: {"Pendulum-v1": tuned})
    assert config(whorl.train("ppo", "Pendulum-v1", runs=tmp_path, **SMALL))["transforms"] == ["scale_action", STACK]
    assert config(whorl.train("ppo", "Pendulum-v1", transforms=[], runs=tmp_path, **SMALL))["transforms"] == []
    mine = {**SMALL, "eval_every": 0}
    del mine["num_envs"]
    assert config(whorl.train("ppo", whorl.make_env("Pendulum-v1", 2), runs=tmp_path, **mine))["transforms"] == []
    assert "scale_action, stack_frames(count=2)" in call(capfd, "list", "presets")[1]


def test_those_of_a_module_and_of_an_installed_package(tmp_path):
    """Of an installed one, nothing is imported until it is asked for."""
    (tmp_path / "mine.py").write_text(
        "import whorl\nfrom whorl.transforms.transform import OfObservation\n"
        "class Twice(OfObservation):\n    'Twice what it sees.'\n    def look(self, x): return x * 2\n"
    )
    (tmp_path / "brought.py").write_text("import mine, whorl\nwhorl.register_transform('twice', mine.Twice)\n")
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[whorl.transforms]\ndouble = mine:Twice\n")
    train = "--total-steps 32 --num-envs 2 --agent.feed.steps 8 --eval-every 0 --quiet --runs runs"
    code = f"""
import sys
from whorl.apps.cli import main
main(['list', 'transforms'])
print('mine' in sys.modules)
main('train random CartPole-v1 --transforms ["double"] {train}'.split())
try:
    main('train random CartPole-v1 --transforms ["twice"] {train}'.split())
except SystemExit as stop:
    print(stop.code)
main('train random CartPole-v1 --transforms ["twice"] --import brought {train}'.split())
main('eval runs/last --episodes 1 --import brought'.split())
"""
    path = os.pathsep.join([str(tmp_path), str(Path(whorl.__file__).parents[1])])
    place = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=place, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert any(line.split() == ["double", "mine:Twice"] for line in lines), done.stderr
    assert any(line.split()[:3] == ["time_limit", "steps", "Truncates"] for line in lines)
    assert lines[-3:-1] == ["False", "2"] and "1 episodes" in lines[-1]
    assert done.stderr.count("whorl: unknown transform 'twice'") == 1


def test_what_was_learned(tmp_path):
    """It survives where no environment can be saved, evaluation does not move it, and `load` has it."""
    whorl.register_transform("running", Running)
    whorl.register_transform("halved", Halved)
    made = {"runs": tmp_path, "transforms": ["running", "halved", "scale_action"], **SMALL}
    run = whorl.train("ppo", "Pendulum-v1", **made | {"eval_every": 16})
    alone = whorl.train("ppo", "Pendulum-v1", **made | {"eval_every": 0})
    (name, mean), *_ = run.parts.env.learned().items()
    assert name == "Running1.mean" and mean.any()
    np.testing.assert_array_equal(mean, alone.parts.env.learned()[name])  # whatever was evaluated on the way
    last = whorl.load(run, "last")
    np.testing.assert_array_equal(last.env.learned()[name], mean)
    np.testing.assert_array_equal(last.evaluate(4, seed=5).returns, run.evaluate(4, seed=5).returns)
    np.testing.assert_array_equal(last.env.learned()[name], mean)
    assert run.evaluate(4, seed=5).returns.max() < -200  # raw, and nothing is halved


def test_what_was_learned_outlives_environments_that_cannot_be_saved(tmp_path):
    import gymnasium

    whorl.register_transform("running", Running)
    seen = []
    hook = lambda rollout, metrics: seen.append(env_of(seen))  # noqa: E731
    env_of = lambda _: whorl.training.start.last_run().parts.env.learned()["Running1.mean"].copy()  # noqa: E731
    source = lambda: gymnasium.make("Pendulum-v1")  # noqa: E731
    made = {**SMALL, "replay_steps": 0, "eval_every": 0}
    run = whorl.train("ppo", source, transforms=["running"], runs=tmp_path, hooks=[hook], **made)
    before = run.parts.env.learned()["Running1.mean"]
    assert before.any() and run.parts.env.state() is None
    again = whorl.resume(run, 80, env=source, hooks=[hook], quiet=True)
    after = again.parts.env.learned()["Running1.mean"]
    assert (after != before).all()
    # the first rollout after the resume began at what had been learned, and 8 steps move it by at most 1 - 0.99**8 of the way
    assert (np.abs(seen[-1] - before) <= 0.08 * (np.abs(before) + 8)).all() and np.abs(before).max() > 0.01


def test_asynchronous_workers(tmp_path):
    """Each makes its environments in a process of its own, where nobody has registered a name."""
    whorl.register_transform("running", Running)
    whorl.register_transform("halved", Halved)
    kind = EnvKind("Pendulum-v1", transforms=chain.chain([*CHAIN, "halved"]))
    parts = whorl.build("a3c", kind)
    parts.check()
    sent = ForkingPickler.dumps(kind)
    del chain.TRANSFORMS["halved"]
    env = pickle.loads(sent).make(2, training=True)
    assert [type(each).__name__ for each in env] == ["ScaleAction", "StackFrames", "TimeLimit", "Halved"]
    with pytest.raises(Incompatible, match="not running statistics, and their environments learn Running1.mean"):
        whorl.train("a3c", "Pendulum-v1", transforms=["running"], runs=tmp_path / "no", quiet=True)
    assert not (tmp_path / "no").exists()


def played(trained, raw, n, seed, rewards=False):
    """Returns [n] of one episode each that a user plays with an actor in environments without transforms."""
    actor = trained.actor(n)
    observation, first = raw.reset(stream(seed, "evaluation episodes")), np.ones(n, bool)
    total, playing, reward = np.zeros(n), np.ones(n, bool), None
    while playing.any():
        step = raw.step(actor(observation, first, reward=reward if rewards else None))
        observation, reward = step.observation, np.array(step.reward)
        total += reward * playing
        first = step.terminated | step.truncated
        playing &= ~first
    return total


@pytest.mark.parametrize(
    ("agent", "env", "around"),
    [
        ("ppo", "Pendulum-v1", ["normalize", STACK, "running_normalize", "scale_action", "clip_reward"]),
        ("sac", "Pendulum-v1", [{"name": "normalize", "std": 2.0}, {"name": "stack_frames", "count": 3}, "scale_action"]),
        ("dqn", "CartPole-v1", [{"name": "time_limit", "steps": 200}, "running_normalize", STACK, "previous_action_reward"]),
    ],
)  # fmt: skip
def test_an_actor_is_what_was_evaluated(agent, env, around, tmp_path):
    """Bit for bit, with the observations of the environment as it is."""
    feed = SMALL["feed"] if agent == "ppo" else {"warmup": 32, "batch_size": 8}
    options = SMALL | {"feed": feed, "eval_every": 0, "max_episode_steps": 30}
    trained = whorl.load(whorl.train(agent, env, transforms=around, runs=tmp_path, **options), "last")
    if "running_normalize" in around:
        assert trained.env.learned()["RunningNormalize1.count"] > 64
    raw = make_env(env, 6, max_episode_steps=30)
    rewards = "previous_action_reward" in around
    one, other = trained.evaluate(6, seed=4).returns, played(trained, raw, 6, 4, rewards)
    np.testing.assert_array_equal(one, other)
    with pytest.raises(BadInput, match="StackFrames.* remembers the episode, and predict .*trained.actor"):
        trained.predict(np.zeros(raw.observation_space.shape))
    with pytest.raises(BadInput, match="StackFrames.* remembers the episode, and a plain module has no memory"):
        trained.export(tmp_path / "policy.pt2")
    if rewards:
        actor = trained.actor(2)
        actor(np.zeros((2, 4)), True)
        with pytest.raises(BadInput, match="what this policy sees shows the reward of the last step: pass it"):
            actor(np.zeros((2, 4)), np.zeros(2, bool))
        with pytest.raises(BadInput, match=r"reward: expected 2 finite numbers, got float64 of shape \(3,\)"):
            actor(np.zeros((2, 4)), np.zeros(2, bool), reward=np.zeros(3))


def test_predict_through_what_remembers_nothing(tmp_path):
    around = [
        {"name": "normalize", "std": 2.0},
        "scale_action",
        {"name": "time_limit", "steps": 9},
        "running_normalize",
    ]
    trained = whorl.load(whorl.train("ppo", "Pendulum-v1", transforms=around, runs=tmp_path, **SMALL), "last")
    batch = make_env("Pendulum-v1", 3).reset(0)
    actions = trained.predict(batch)
    np.testing.assert_array_equal(actions, trained.actor(3)(batch, True))
    np.testing.assert_allclose(actions[1], trained.predict(batch[1]), rtol=1e-5)
    module = torch.export.load(trained.export(tmp_path / "policy.pt2")).module()
    np.testing.assert_allclose(module(torch.as_tensor(batch)).numpy(), actions, rtol=1e-4, atol=1e-5)
    seen = trained.env.env.encode(batch)[0] / np.float32(2)
    statistics = trained.env.learned()
    mean, variance = (statistics[f"RunningNormalize1.{name}"] for name in ("mean", "variance"))
    seen = torch.as_tensor((seen - mean) / np.sqrt(variance + 1e-8)).float()
    outside, _ = trained.policy.act(seen, trained.policy.initial(3), torch.ones(3, dtype=torch.bool), None, None)
    np.testing.assert_allclose(actions, outside["action"].detach().numpy().clip(-1, 1) * 2, rtol=1e-5)


def test_one_action_that_is_several_steps_is_no_actors(tmp_path):
    run = whorl.train(
        "ppo", "Pendulum-v1", transforms=[{"name": "repeat", "count": 2}], runs=tmp_path, **SMALL | {"eval_every": 0}
    )
    for use in each([lambda it: it.actor(2), lambda it: it.predict(np.zeros(3))]):
        with pytest.raises(BadInput, match="Repeat makes several steps of one action, which only the environment can"):
            use(whorl.load(run))


@pytest.mark.parametrize(("agent", "env"), [("ppo", "Pendulum-v1"), ("sac", "Pendulum-v1"), ("dqn", "CartPole-v1")])
def test_a_stopped_run_goes_on_to_the_same_bits(agent, env, tmp_path):
    """Frames, counters, statistics and the streams of transforms come back with everything else."""
    around = [STACK, {"name": "time_limit", "steps": 7}, "running_normalize", "normalize_reward"]
    around += ["scale_action"] if env == "Pendulum-v1" else []
    feed = SMALL["feed"] if agent == "ppo" else {"warmup": 16, "batch_size": 8}
    options = SMALL | {"transforms": around, "feed": feed, "total_steps": 96, "runs": tmp_path}

    def stop(rollout, metrics):
        return whorl.last_run().steps >= 48

    whole = whorl.train(agent, env, **options)
    part = whorl.train(agent, env, hooks=[stop], **options)
    assert 48 <= part.steps < 96
    again = whorl.resume(part, hooks=[lambda rollout, metrics: None], quiet=True)
    assert again.steps == whole.steps
    for name, x in whole.agent.state_dict().items():
        assert torch.equal(x, again.agent.state_dict()[name]), name
    for one, other in zip(*({**run.parts.env.learned(), **run.parts.env.state()}.values() for run in (whole, again))):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(whole.evaluate(4).returns, again.evaluate(4).returns)
    np.testing.assert_array_equal(
        whole.evaluate(4).returns, whorl.load(again, "last").evaluate(4, stream(0, FINAL)).returns
    )


def test_a_folder_whose_transforms_are_no_list():
    @dataclass
    class Said:
        transforms: tuple[object, ...] = ()

    for wrong in (5, None, "scale_action", {"name": "scale_action"}):
        with pytest.raises(BadInput, match="config.json: transforms must be a tuple of values, got"):
            options.from_json(Said, {"transforms": wrong}, "config.json")
