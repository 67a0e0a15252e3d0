"""Random actions before the first rollout: how many, counted where, the same for a part as for the whole, and who refuses."""

import numpy as np
import pytest
import torch

import whorl
from tests.training.fingerprint import fingerprint
from whorl.collectors.alternating import AlternatingCollector
from whorl.collectors.halves import Halves
from whorl.collectors.serial import SerialCollector
from whorl.collectors.stream import StreamCollector
from whorl.envs.make import EnvKind, make_env
from whorl.errors import BadInput, Incompatible
from whorl.policies.random import Random


def begun(collector, most):
    collector.decorrelate = most
    return collector, collector.collect()


def test_rows_stand_at_different_places_and_the_steps_count():
    env = make_env("Pendulum-v1", 64, prefer="gymnasium")
    collector, rollout = begun(SerialCollector(env, Random(env.action_space), 4, seed=1), 9)
    apart = collector.ledger.lengths - 4
    assert apart.min() == 0 and apart.max() == 9 and len({*apart.tolist()}) == 10
    assert collector.steps == 64 * 4 + apart.sum()
    assert (collector.ledger.returns < rollout["next", "reward"].sum(0).numpy())[apart > 0].all()
    assert rollout["is_first"][0].all() and collector.finished == 0
    collector.collect()
    assert collector.steps == 64 * 8 + apart.sum()


def test_an_episode_that_ends_on_the_way_is_in_no_statistics():
    env = make_env("CartPole-v1", 32)
    collector, _ = begun(SerialCollector(env, Random(env.action_space), 1, seed=1), 200)
    lengths = collector.ledger.lengths
    assert collector.steps > 32 + lengths.sum() and (lengths < 100).all()
    assert collector.finished == len(collector.episodes) <= 5
    assert (collector.ledger.returns == lengths).all()


def test_every_collector_and_any_part_begins_alike():
    kind = EnvKind("CartPole-v1")
    policy = Random(kind.make().action_space)
    serial, whole = begun(SerialCollector(kind.make(5, 3), policy, 1, seed=7), 30)
    stream, row = begun(StreamCollector(kind.make(5, 3), policy, seed=7), 30)
    turns, two = begun(AlternatingCollector(Halves(kind.make(3, 3), kind.make(2, 3)), policy, 1, seed=7), 30)
    assert torch.equal(whole["observation"], row["observation"]) and torch.equal(
        whole["observation"], two["observation"]
    )
    assert serial.steps == stream.steps == turns.steps
    part = kind.make(2, 3)
    part.first = 3
    _, last = begun(SerialCollector(part, policy, 1, seed=7), 30)
    assert torch.equal(whole["observation"][:, 3:], last["observation"])


def test_on_a_device_too():
    env = make_env("CartPole-v1", 6, prefer="torch")
    same = make_env("CartPole-v1", 6)
    policy = Random(env.action_space)
    one, other = (begun(SerialCollector(each, policy, 1, seed=7), 30)[0] for each in (env, same))
    assert one.steps == other.steps


RUN = {"num_envs": 3, "total_steps": 600, "checkpoint_every": 128, "eval_every": 0, "quiet": True, "decorrelate": 40}
SMALL = {"hidden": (8,), "feed": {"steps": 16, "epochs": 2, "minibatches": 2}}


def test_stopped_and_resumed_to_the_same_bits(tmp_path):
    whole = whorl.train("ppo", "CartPole-v1", runs=tmp_path / "whole", **RUN, **SMALL)
    assert '"decorrelate": 40' in (whole.path / "config.json").read_text()
    for steps in (0, 300):  # before the first rollout, and after some

        def stop(rollout, metrics, steps=steps):
            return whorl.last_run().progress.count >= steps

        cut = whorl.train("ppo", "CartPole-v1", runs=tmp_path / f"{steps}", hooks=[stop], **RUN, **SMALL)
        for name in ("eval.json", "curve.png"):
            (cut.path / name).unlink()
        if steps == 0:
            newest = max((cut.path / "checkpoints").glob("step_*"), key=lambda path: int(path.name[5:]))
            for path in newest.iterdir():
                path.unlink()
            newest.rmdir()
            for name in ("metrics.jsonl", "episodes.csv"):
                (cut.path / name).write_text(
                    "" if name == "metrics.jsonl" else (cut.path / name).read_text().split("\n")[0] + "\n"
                )
        assert fingerprint(whorl.resume(cut.path, quiet=True).path) == fingerprint(whole.path)


@pytest.mark.parametrize(
    ("agent", "env", "options", "error", "message"),
    [
        (
            "reinforce",
            "CartPole-v1",
            {},
            BadInput,
            "decorrelate = 9 takes random actions .* every rollout begins with a reset",
        ),
        ("a3c", "CartPole-v1", {}, BadInput, "decorrelate = 9 .* here workers or a compiled loop step"),
        (
            "ppo",
            "vector",
            {},
            Incompatible,
            "decorrelate = 9 steps some environments while the others stand, and .* steps all at once",
        ),
        ("ppo", "unbounded", {}, Incompatible, "a random policy needs discrete actions or a bounded Box"),
        ("ppo", "CartPole-v1", {"decorrelate": -1}, BadInput, "decorrelate must be at least 0, got -1"),
    ],
)
def test_refused_before_anything_is_written(agent, env, options, error, message, tmp_path):
    if env == "vector":
        import gymnasium

        env = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")
    if env == "unbounded":
        env = Unbounded
    with pytest.raises(error, match=message):
        whorl.train(agent, env, runs=tmp_path, **({"decorrelate": 9} | options))
    assert not list(tmp_path.iterdir())


class Unbounded(type(make_env("Pendulum-v1"))):
    """Whose actions have no bounds."""

    def __init__(self, num_envs=1, seed=0):
        import gymnasium

        super().__init__(num_envs, seed)
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
