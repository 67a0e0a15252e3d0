"""Transforms of observations against Gymnasium's wrappers, the true successor of every episode included, and by hand."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import wrappers as peers
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from whorl.batch import Batch
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.make import make_env
from whorl.errors import BadInput, Incompatible
from whorl.transforms.chain import made
from whorl.transforms.entries import CatObservations, PreviousActionReward, Primer, Rename, StackObservations
from whorl.transforms.env import Transformed
from whorl.transforms.episode import StepCount, TimeLimit
from whorl.transforms.observation import NextDelta, Normalize, RunningNormalize, StackFrames, TimeMax, ToDevice, Unary
from whorl.transforms.shape import FlattenObservation, Permute


class Walk(gymnasium.Env):
    """Random numbers of each kind; an episode has 3 to 7 steps and ends in both ways."""

    observation_space = Dict(
        far=Box(-np.inf, np.inf, (2, 2), np.float32),
        kind=Discrete(3),
        lights=MultiBinary(2),
        pair=MultiDiscrete([2, 3]),
    )
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(3, 8))
        return self.seen(), {}

    def seen(self):
        draw = self.np_random
        return {
            "far": draw.normal(size=(2, 2)).astype(np.float32),
            "kind": draw.integers(3),
            "lights": draw.integers(2, size=2, dtype=np.int8),
            "pair": draw.integers([2, 3]),
        }

    def step(self, action):
        self.left -= 1
        return self.seen(), 1.0, self.left == 0 and action == 1, self.left == 0 and action == 0, {}


def far(env):
    return peers.TransformObservation(env, lambda seen: seen["far"], env.observation_space["far"])


def same(chain, peer, inner=(), close=0.0, n=3, steps=40):
    """The chain around environments shows what those with Gymnasium's wrapper show."""
    ours = Transformed(Gymnasium(Walk, n, wrappers=inner), *chain)
    theirs = Gymnasium(Walk, n, wrappers=[*inner, peer])
    assert ours.observation_space.shape == theirs.observation_space.shape
    np.testing.assert_allclose(ours.reset(1), theirs.reset(1), rtol=close, atol=close)
    rng, ends = np.random.default_rng(0), 0
    for _ in range(steps):
        action = rng.integers(2, size=n)
        one, other = ours.step(action), theirs.step(action)
        np.testing.assert_allclose(one.next_observation, other.next_observation, rtol=close, atol=close)
        np.testing.assert_allclose(one.observation, other.observation, rtol=close, atol=close)
        ends += (one.terminated | one.truncated).sum()
    assert ends > 5
    return ours


def test_frames_are_gymnasiums():
    same([StackFrames(3)], lambda env: peers.FrameStackObservation(env, 3, padding_type="reset"), [far])


def test_a_flat_observation_is_gymnasiums():
    same([FlattenObservation()], peers.FlattenObservation)
    same([CatObservations(["far", "kind", "lights", "pair"])], peers.FlattenObservation)


def test_time_in_the_observation_is_gymnasiums():
    inner = [far, partial(peers.TimeLimit, max_episode_steps=5)]
    same([StepCount(), FlattenObservation()], peers.TimeAwareObservation, inner)


def test_running_statistics_of_one_environment_are_gymnasiums():
    env = same([RunningNormalize()], peers.NormalizeObservation, [far], close=2e-5, n=1)
    assert env.learned()["RunningNormalize1.count"] > 45  # 40 successors, and the firsts of episodes


def test_running_statistics_count_each_row_once():
    """Of three environments: all successors, and the first observations of those that began."""
    env, plain = (Gymnasium(Walk, 3, wrappers=[far]) for _ in range(2))
    running = RunningNormalize()
    chain = Transformed(env, running)
    chain.reset(1)
    seen = [*plain.reset(1).copy()]
    for action in np.random.default_rng(0).integers(2, size=(30, 3)):
        chain.step(action)
        step = plain.step(action)
        seen += [*step.next_observation.copy(), *step.observation[step.terminated | step.truncated]]
    np.testing.assert_allclose(running.mean, np.mean(seen, 0), atol=1e-5)
    np.testing.assert_allclose(running.variance, np.var(seen, 0), atol=1e-4)
    learned = chain.learned()
    chain.train(False).step(action)
    assert all((chain.learned()[name] == x).all() for name, x in learned.items())
    chain.append(FlattenObservation())
    assert running.count == learned["RunningNormalize1.count"]


def test_frames_of_an_entry_and_the_greatest_of_them():
    env = Transformed(Gymnasium(Walk, 2), StackFrames(2, key="far"), Rename({"far": "frames"}))
    env.reset(1)
    most = Transformed(Gymnasium(Walk, 2), TimeMax(2, key="far"))
    most.reset(1)
    for action in np.random.default_rng(0).integers(2, size=(12, 2)):
        frames, greatest = env.step(action), most.step(action)
        for one, other in (
            (frames.observation, greatest.observation),
            (frames.next_observation, greatest.next_observation),
        ):
            np.testing.assert_array_equal(one["frames"].max(1), other["far"])
            np.testing.assert_array_equal(one["kind"], other["kind"])


def test_what_changed():
    env, plain = Transformed(Gymnasium(Walk, 2), NextDelta(key="far")), Gymnasium(Walk, 2)
    before = plain.reset(1)["far"].copy()
    assert not env.reset(1)["delta"].any()
    for action in np.random.default_rng(0).integers(2, size=(12, 2)):
        step, inner = env.step(action), plain.step(action)
        np.testing.assert_array_equal(step.next_observation["delta"], inner.next_observation["far"] - before)
        ended = step.terminated | step.truncated
        assert not step.observation["delta"][ended].any()
        before = inner.observation["far"].copy()


def test_previous_action_and_reward():
    env = Transformed(make_env("Pendulum-v1", 2, max_episode_steps=3), PreviousActionReward())
    seen = env.reset(0)
    assert list(seen) == ["observation", "action", "reward"] and not seen["action"].any()
    for t in range(1, 7):
        step = env.step(np.full((2, 1), 0.1 * t, np.float32))
        np.testing.assert_array_equal(step.next_observation["action"], np.full((2, 1), 0.1 * t, np.float32))
        np.testing.assert_array_equal(step.next_observation["reward"], step.reward)
        assert step.observation["reward"].any() == (t % 3 != 0)


def test_rows_that_stand_keep_their_last_action():
    env = Transformed(make_env("Pendulum-v1", 2), PreviousActionReward())
    env.reset(0)
    env.step(np.full((2, 1), 0.5, np.float32))
    step = env.step(np.full((2, 1), 1.0, np.float32), np.array([True, False]))
    assert step.observation["action"].ravel().tolist() == [1.0, 0.5]


def test_batches_of_dicts():
    """[T, N] rows through a chain of pure transforms, nested entries kept."""
    chain = [
        Primer({"task": [1.0, 2.0]}),
        StackObservations(["a", "task"], axis=-1, into="both"),
        FlattenObservation("both"),
    ]
    space = Dict(a=Box(0, 1, (2,), np.float32), b=Box(0, 1, (1,), np.float32))
    a, b = torch.rand(3, 4, 2), torch.rand(3, 4, 1)
    part = lambda: Batch({"observation": Batch({"a": a, "b": b}, [3, 4])}, [3, 4])  # noqa: E731
    batch = part()
    batch["next"] = part()
    for transform in chain:
        space, _ = transform.spaces(space, Discrete(2))
        batch = transform(batch)
    assert list(space.spaces) == ["b", "both"] == list(batch["observation"].keys())
    wanted = torch.stack([a, torch.tensor([1.0, 2.0]).expand(3, 4, 2)], -1).flatten(-2)
    assert torch.equal(batch["observation", "both"], wanted) and torch.equal(
        batch["next", "observation", "both"], wanted
    )


BOX, PAIR = Box(-1, 1, (3,), np.float32), Dict(a=Box(-1, 1, (3,), np.float32), b=Discrete(2))


@pytest.mark.parametrize(
    ("spec", "space", "message"),
    [
        ("running_normalize", Discrete(2), "it takes a Box of float32, and the observation is Discrete"),
        ({"name": "running_normalize", "key": "c"}, PAIR, "the observation has no entry 'c', it has a, b"),
        ({"name": "select", "keys": ["a"]}, BOX, "it is about the entries of a Dict, and the observation is Box"),
        ({"name": "exclude", "keys": ["b", "a"]}, PAIR, "without b, a nothing is left to observe"),
        ({"name": "rename", "names": {"a": "b"}}, PAIR, "two entries would have one name"),
        ({"name": "unary", "function": "sqrt"}, BOX, "no sqrt of numbers as low as -1: put ClipObservation within"),
        ({"name": "unary", "function": "log1p"}, BOX, "no log1p of numbers as low as -1"),
        ("squeeze", BOX, r"shape \(3,\) has no axis -1 of length 1"),
        ({"name": "unsqueeze", "axis": 2}, BOX, r"shape \(3,\) can have no new axis 2"),
        ({"name": "permute", "axes": [1, 0]}, BOX, "it orders 2 axes"),
        ({"name": "cast", "dtype": "uint8"}, BOX, "numbers from 0 to 255 fit into uint8"),
        ({"name": "stack_observations", "keys": ["a", "b"]}, PAIR, "arrays of one shape and dtype are stacked"),
        ({"name": "cat_observations", "keys": ["a"], "into": "b"}, PAIR, "an entry 'b' already"),
        ({"name": "expand_as", "key": "a", "like": "b"}, PAIR, "does not begin the shape of 'b'"),
        ({"name": "primer", "values": {"a": 1}}, PAIR, "an entry 'a' already"),
        ({"name": "stack_frames", "count": 2, "key": "b"}, PAIR, "frames are arrays"),
    ],
)
def test_what_does_not_fit(spec, space, message):
    with pytest.raises(Incompatible, match=message):
        made(spec).spaces(space, Discrete(2))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "unary", "function": "tan"}, "unknown function 'tan'.* Functions: arcsinh"),
        ({"name": "unary", "function": "__import__"}, "unknown function '__import__'"),
        ({"name": "cast", "dtype": "float64"}, "Cast makes 'float32' or 'uint8'"),
        ({"name": "permute", "axes": [0, 2]}, "Permute needs each axis once"),
        ({"name": "exclude", "keys": "a"}, "exclude: keys must be a list of which each is a text, got 'a'"),
        ({"name": "select", "keys": []}, "Select takes a list of names"),
        ({"name": "clip_observation", "low": 1.0, "high": 0.0}, "needs low < high"),
        ({"name": "running_normalize", "epsilon": 0}, "an epsilon above 0"),
        ({"name": "primer", "values": {"a": float("nan")}}, "Primer needs finite numbers"),
        ({"name": "time_max", "count": 0}, "TimeMax needs a count of at least 1"),
    ],
)
def test_arguments_that_cannot_be(spec, message):
    with pytest.raises(BadInput, match=message):
        made(spec)


def test_functions_and_axes_by_hand():
    symlog = Unary("symlog")
    np.testing.assert_allclose(symlog.change(np.float32([-(np.e - 1), 0, np.e - 1])), [-1, 0, 1], atol=1e-6)
    permute = Permute([2, 0, 1])
    space, _ = permute.spaces(Box(0, 255, (4, 5, 3), np.uint8), Discrete(2))
    assert space.shape == (3, 4, 5) and permute.look(np.zeros((7, 2, 4, 5, 3), np.uint8)).shape == (7, 2, 3, 4, 5)


def test_another_device():
    """The same numbers as tensors ("cpu:0" is a device, for whorl), a time limit and frames beyond it; and back."""
    plain, chain = make_env("Pendulum-v1", 3, max_episode_steps=4), [ToDevice("cpu:0"), StackFrames(2), TimeLimit(4)]
    env, back = (
        Transformed(make_env("Pendulum-v1", 3), *chain),
        Transformed(make_env("Pendulum-v1", 3), ToDevice("cpu:0")),
    )
    back.append(TimeLimit(4))
    back.append(ToDevice("cpu"))
    assert env.device == "cpu:0" and back.device == "cpu"
    first = plain.reset(1)
    assert torch.equal(env.reset(1)[:, -1], torch.as_tensor(first))
    np.testing.assert_array_equal(back.reset(1), first)
    for action in np.random.default_rng(0).uniform(-1, 1, (10, 3, 1)).astype(np.float32):
        wanted, step, third = plain.step(action), env.step(torch.as_tensor(action)), back.step(action)
        assert isinstance(step.reward, torch.Tensor) and isinstance(third.next_observation, np.ndarray)
        for name in ("observation", "next_observation"):
            np.testing.assert_array_equal(getattr(step, name)[:, -1], getattr(wanted, name))
            np.testing.assert_array_equal(getattr(third, name), getattr(wanted, name))
        for mine in (step, third):
            np.testing.assert_array_equal(mine.reward, wanted.reward)
            np.testing.assert_array_equal(mine.truncated, wanted.truncated)
    other = Transformed(make_env("Pendulum-v1", 3), ToDevice("cpu:0"), StackFrames(2), TimeLimit(4))
    assert torch.equal(other.load_state(env.state()), step.observation)
    with pytest.raises(BadInput, match="a device that is here, got 'nowhere'"):
        ToDevice("nowhere")


def test_constants_lie_where_the_arrays_do():
    """The device "meta" computes shapes and refuses tensors of other devices."""
    chain = [ToDevice("meta"), Normalize([0.0] * 3, 2.0), RunningNormalize(), Primer({"task": [1.0, 2.0]})]
    seen = Transformed(make_env("Pendulum-v1", 2), *chain).train(False).reset()
    assert {name: (x.device.type, tuple(x.shape)) for name, x in seen.items()} == {
        "observation": ("meta", (2, 3)),
        "task": ("meta", (2, 2)),
    }
