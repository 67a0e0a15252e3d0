"""A run: same seed same bits, evaluation changes nothing, resume is exact, a run that cannot go on says so."""

import json
import signal
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import whorl
from tests.training.fingerprint import fingerprint
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.errors import BadInput, Incompatible, NotFinite
from whorl.training import checkpoint

SMALL = {
    "ppo": {"feed": {"steps": 32}},
    "a2c": {},
    "reinforce": {"feed": {"steps": 20}},
    "random": {"feed": {"steps": 32}},
}


def train(agent="ppo", env="CartPole-v1", runs=".", total_steps=3000, **options):
    common = {"eval_every": 0, "checkpoint_every": 500, "log_every": 300, "eval_episodes": 10, "quiet": True}
    common |= {"num_envs": 4} if isinstance(env, str) else {}  # an object brings its own number
    return whorl.train(agent, env, total_steps=total_steps, runs=runs, **(SMALL[agent] | common | options))


def test_the_folder_holds_everything(tmp_path):
    run = train(runs=tmp_path, eval_every=1000)
    names = {p.name for p in run.path.iterdir()}
    assert names >= {
        "config.json",
        "meta.json",
        "metrics.jsonl",
        "episodes.csv",
        "curve.png",
        "eval.json",
        "checkpoints",
        "tb",
    }
    assert (tmp_path / "last").resolve() == run.path.resolve()
    assert run.path.parent == tmp_path / "CartPole-v1" / "ppo" and run.path.name.endswith("_s0")
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    keys = set().union(*rows)
    assert keys >= {
        "rollout/ep_rew_mean",
        "rollout/ep_len_mean",
        "time/fps",
        "time/seconds",
        "time/total_timesteps",
        "train/approx_kl",
        "eval/mean_reward",
    }
    steps = [row["time/total_timesteps"] for row in rows if "time/total_timesteps" in row]
    assert steps == sorted(steps) and steps[-1] == run.steps >= 3000
    result = json.loads((run.path / "eval.json").read_text())
    assert result["best"]["episodes"] == 10 and {"mean", "std", "min", "max"} <= set(result["last"])
    assert not [p for p in run.path.rglob("*") if p.suffix in (".pkl", ".pt", ".pth", ".tmp")]


def test_loaded_policy_acts_as_the_agent(tmp_path):
    run = train(runs=tmp_path, normalize_observation=True)
    trained = whorl.load(run.path, "last")
    observation = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    actions = trained.predict(observation)
    assert actions.shape == (50,)
    assert [int(trained.predict(o)) for o in observation] == actions.tolist()
    assert trained.evaluate(20, seed=3).returns.tolist() == run.evaluate(20, seed=3).returns.tolist()
    assert whorl.load(tmp_path / "last").predict([0.0, 0.1, 0.0, 0.1]) in (0, 1)


@pytest.mark.parametrize("agent", SMALL)
def test_same_seed_same_bits_and_evaluation_changes_nothing(agent, tmp_path):
    a = train(agent, runs=tmp_path / "a")
    b = train(agent, runs=tmp_path / "b", eval_every=500)
    c = train(agent, runs=tmp_path / "c", seed=1)
    assert fingerprint(a.path) == fingerprint(b.path) != fingerprint(c.path)


def test_threads_belong_to_the_run(tmp_path):
    """One thread unless asked for more, whatever the process has, and the process gets its own back."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        a = train(runs=tmp_path / "a")
        torch.set_num_threads(2)
        b = train(runs=tmp_path / "b")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert fingerprint(a.path) == fingerprint(b.path)
    assert json.loads((a.path / "config.json").read_text())["threads"] == 1


def test_more_steps_after_the_end(tmp_path):
    whole = train(runs=tmp_path / "a", total_steps=4000, log_every=1)
    half = train(runs=tmp_path / "b", total_steps=2000, log_every=1)
    with pytest.raises(BadInput, match=r"is finished at 2,048 steps; give more: whorl resume .* --total-steps 4096"):
        whorl.resume(half.path)
    whorl.resume(half.path, 4000, quiet=True)
    assert fingerprint(half.path) == fingerprint(whole.path)


def test_an_extension_that_was_killed_goes_on(tmp_path, monkeypatch):
    """Also after the first finish left its eval.json and curve."""
    from whorl.training.hooks import Log

    run = train(runs=tmp_path, total_steps=1000)
    log = Log.__call__

    def kill(self, rollout, metrics):
        log(self, rollout, metrics)
        if self._run.steps >= 2000:
            raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Log, "__call__", kill)
        with pytest.raises(MemoryError):
            whorl.resume(run.path, 3000, quiet=True)
    assert whorl.resume(run.path, quiet=True).steps >= 3000
    with pytest.raises(BadInput, match="cannot be shortened to -5"):
        whorl.resume(run.path, -5)
    assert json.loads((run.path / "config.json").read_text())["total_steps"] == 3000


def test_gymnasium_objects_are_taken_as_they_are(tmp_path):
    make = lambda: gymnasium.make("CartPole-v1")  # noqa: E731
    for env in (make(), gymnasium.make_vec("CartPole-v1", 3), make):
        assert train(env=env, runs=tmp_path, total_steps=400).steps >= 400
    with pytest.raises(BadInput, match="num_envs = 16, but the environment object holds 3"):
        train(env=gymnasium.make_vec("CartPole-v1", 3), runs=tmp_path, num_envs=16)
    with pytest.raises(BadInput, match="an environment is an id, an Env, .* got int"):
        train(env=3, runs=tmp_path)


def test_annealing_is_as_long_as_the_run(tmp_path):
    run = train("a2c", runs=tmp_path, total_steps=2000)  # the preset anneals over its own 500,000 steps
    assert run.config.anneal_steps == 2000
    with pytest.raises(BadInput, match="anneal_steps = 1,000 ends before total_steps = 2,000"):
        train(runs=tmp_path, total_steps=2000, anneal_steps=1000)
    with pytest.raises(BadInput, match="anneal_steps = 2,000 ends before total_steps = 4,000"):
        whorl.resume(run.path, 4000)


def test_sigterm_saves_and_resumes_exactly(tmp_path, monkeypatch):
    whole = train(runs=tmp_path / "a", checkpoint_every=1000)

    from whorl.training.hooks import Log

    log = Log.__call__

    def kill_once(self, rollout, metrics):
        log(self, rollout, metrics)
        if self._run.steps == 1280:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Log, "__call__", kill_once)
    with pytest.raises(SystemExit) as stopped:
        train(runs=tmp_path / "b", checkpoint_every=1000)
    assert stopped.value.code == 143
    path = (tmp_path / "b" / "last").resolve()
    assert checkpoint.newest(path / "checkpoints").name == "step_1280"
    whorl.resume(path, quiet=True)
    assert fingerprint(path) == fingerprint(whole.path)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, caplog):
    whole, broken = (
        train(runs=tmp_path / "a", total_steps=4000, log_every=1),
        train(runs=tmp_path / "b", total_steps=2000, log_every=1),
    )
    newest = checkpoint.newest(broken.path / "checkpoints")
    file = newest / "agent.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    whorl.resume(broken.path, 4000, quiet=True)
    assert "step_2048" in caplog.text and "agent.safetensors" in caplog.text and "step_1536" in caplog.text
    assert fingerprint(broken.path) == fingerprint(whole.path)


def test_a_best_mark_that_a_kill_prevented_is_set_again(tmp_path):
    whole = train(
        runs=tmp_path / "a", total_steps=4000, eval_every=500, learning_rate=0.0
    )  # all evaluations equal: the first is best
    half = train(runs=tmp_path / "b", total_steps=2000, eval_every=500, learning_rate=0.0)
    best = (whole.path / "checkpoints" / "best").resolve().name
    assert (half.path / "checkpoints" / "best").resolve().name == best
    (half.path / "checkpoints" / "best").unlink()
    whorl.resume(half.path, 4000, quiet=True)
    assert (half.path / "checkpoints" / "best").resolve().name == best


def test_an_environment_that_cannot_be_saved_resumes_with_fresh_episodes(tmp_path, capfd):
    run = train(env="FrozenLake-v1", runs=tmp_path, total_steps=1000, num_envs=2, replay_steps=0)
    whorl.resume(run.path, 1500)
    assert (
        "FrozenLake-v1 (gymnasium, 2 at once, on cpu) cannot save its state: fresh episodes begin here"
        in capfd.readouterr().err
    )
    assert json.loads((run.path / "metrics.jsonl").read_text().splitlines()[-1])["step"] >= 1500


class Broken(gymnasium.Env):
    """A good environment that gives NaN from step 700 on."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, field):
        self.field, self.count = field, 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.count += 1
        bad = self.count >= 700
        observation = np.full(2, np.nan if bad and self.field == "observation" else 0.5, np.float32)
        return observation, np.nan if bad and self.field == "reward" else 1.0, self.count % 10 == 0, False, {}


@pytest.mark.parametrize("field", ["reward", "observation"])
def test_nan_from_the_environment(field, tmp_path):
    env = Gymnasium(lambda: Broken(field), num_envs=2)
    with pytest.raises(NotFinite, match=rf"{field} of environment 0 \(.*\) of .* became .*nan.*nothing was learned"):
        train(env=env, runs=tmp_path, checkpoint_every=64)
    path = (tmp_path / "last").resolve()
    saved = checkpoint.newest(path / "checkpoints")
    assert int(saved.name.split("_")[1]) >= 1280  # the last rollout before 1,400 steps
    checkpoint.verify(saved)


def _sqrt_at_zero(x):
    return (x - x.detach()).sqrt().sum()


@pytest.mark.parametrize(
    ("what", "compile"),
    [
        ("the loss", False),  # compiled: test_a_void_step_leaves_weights_and_optimizer_as_they_were
        ("the gradient", False),
        pytest.param("the gradient", True, marks=pytest.mark.compiled),
    ],
)
def test_nan_in_learning_leaves_the_weights_bit_equal(what, compile, tmp_path, monkeypatch):
    import whorl.agents.ppo as module
    from whorl.training.build import build

    parts = build("ppo", "CartPole-v1", num_envs=4, update="compiled" if compile else "eager")
    agent, collector, buffer = parts.agent, parts.collector, parts.buffer
    rollout = agent.prepare(collector.collect())
    if not compile:  # a graph is built once, with what is wrong in it
        buffer.add(rollout)
        agent.learn(buffer)
        rollout = agent.prepare(collector.collect())
    if what == "the loss":
        rollout["advantage"][:] = float("nan")  # in every minibatch, so in the first
    else:  # sqrt has an infinite slope at 0: the loss is finite, its gradient is not
        plain = module.PPO.loss

        def loss(self, b):
            value, metrics = plain(self, b)
            return value + _sqrt_at_zero(self.critic.head.bias), metrics

        monkeypatch.setattr(module.PPO, "loss", loss)
    before = {k: v.clone() for k, v in agent.named_parameters()}
    buffer.add(rollout)
    with pytest.raises(
        NotFinite, match=f"{what} became NaN or infinite after {collector.steps:,} environment steps; the step was void"
    ):
        agent.learn(buffer)
    after = dict(agent.named_parameters())
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_nan_stops_every_later_step_too():
    """One bad minibatch of four: what was learned before it stays, nothing is learned from it or after it."""
    from whorl.training.build import build

    parts = build("ppo", "CartPole-v1", num_envs=4)
    agent = parts.agent
    parts.buffer.add(agent.prepare(parts.collector.collect()))
    batches = [b.clone() for b in parts.buffer.batches()][:4]
    batches[1]["advantage"][0] = float("inf")
    snapshot = lambda: torch.cat([p.detach().flatten().clone() for p in agent.parameters()])  # noqa: E731
    weights = [snapshot()]
    for b in batches:
        agent.update(b)
        weights.append(snapshot())
    assert not torch.equal(weights[0], weights[1])  # the good one was learned from
    assert all(torch.equal(weights[1], later) for later in weights[2:])
    with pytest.raises(
        NotFinite, match="the loss became NaN or infinite after 512 environment steps; the step was void"
    ):
        agent.learn(parts.buffer)
    assert torch.equal(weights[1], snapshot())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"agent": "pppo"}, BadInput, "unknown agent 'pppo'; did you mean 'ppo'"),
        ({"env": "CartPole-v9"}, BadInput, "CartPole-v"),
        ({"env": "CartPoll-v1"}, BadInput, "near matches: CartPole-v1"),
        ({"num_envs": 0}, BadInput, "num_envs must be at least 1, got 0"),
        ({"learning_rat": 1e-3}, BadInput, "there is no argument 'learning_rat'; did you mean 'learning_rate'"),
        ({"std": "both"}, BadInput, "std must be one of 'independent', 'dependent', got 'both'"),
        (
            {"feed": {"steps": 4, "minibatches": 99}},
            BadInput,
            "feed.minibatches = 99 is more than the rollout's 16 rows",
        ),
        ({"learning_rate": -1.0}, BadInput, "learning_rate must be at least 0, got -1.0"),
        ({"discount": 2}, BadInput, "discount must be from 0 to 1, got 2"),
        ({"max_grad_norm": -1}, BadInput, "max_grad_norm must be at least 0, got -1"),
        ({"hidden": (64, -3)}, BadInput, r"hidden must be at least 1, got \(64, -3\)"),
        ({"hidden": 64}, BadInput, "hidden must be a tuple of whole numbers, got 64"),
        ({"normalize_observation": "no"}, BadInput, "normalize_observation must be True or False, got 'no'"),
        ({"device": "meta"}, BadInput, "device 'meta' holds no numbers"),
        ({"device": "cuda:0,1"}, BadInput, "several devices are not here yet, a run takes one"),
        ({"device": ["cuda:0", "cuda:1"]}, BadInput, "several devices are not here yet, a run takes one"),
        ({"agent": "reinforce", "feed": {"unit": "step"}}, Incompatible, "REINFORCE needs whole episodes"),
        ({"feed": {"unit": "episodes"}}, BadInput, "must be .*'step'.* 'episode', got 'episodes'"),
        ({"total_steps": 0}, BadInput, "total_steps must be at least 1, got 0"),
        ({"squash": True, "env": "MountainCarContinuous-v0", "name": "../evil"}, BadInput, "evil"),
    ],
)
def test_bad_input_writes_nothing(options, error, message, tmp_path):
    agent, env = options.pop("agent", "ppo"), options.pop("env", "CartPole-v1")
    with pytest.raises(error, match=message):
        train(agent if agent in SMALL else agent, env, runs=tmp_path, **options) if agent in SMALL else whorl.train(
            agent, env, runs=tmp_path
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_a_run(tmp_path):
    for call in (whorl.load, whorl.resume):
        with pytest.raises(BadInput, match="not a run"):
            call(tmp_path)


def test_an_environment_object_trains_without_evaluation(tmp_path):
    env = Gymnasium("CartPole-v1", num_envs=2)
    run = train(env=env, runs=tmp_path, total_steps=600)
    with pytest.raises(BadInput, match="environment object"):
        run.evaluate()
    for call in (whorl.load, lambda path: whorl.resume(path, 900)):
        with pytest.raises(BadInput, match="was trained on an environment of your own .CartPole-v1.: pass one"):
            call(run.path)
    assert whorl.load(run.path, env=Gymnasium("CartPole-v1")).predict([0.0, 0.0, 0.0, 0.0]) in (0, 1)
    assert whorl.resume(run.path, 900, quiet=True, env=Gymnasium("CartPole-v1", num_envs=2)).steps >= 900
    assert json.loads((run.path / "eval.json").read_text())["steps"] == 960
    assert env.reset() is not None  # an object of the user's is not closed


def test_incompatible_is_bad_input():
    assert issubclass(Incompatible, BadInput) and Incompatible.exit_code == 2


def test_paths_are_paths(tmp_path):
    assert isinstance(train(runs=str(tmp_path), total_steps=200).path, Path)
