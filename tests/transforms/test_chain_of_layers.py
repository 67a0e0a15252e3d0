"""How a chain steps: two phases, rows that stand, restarts, and its state."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import whorl
from whorl.envs.env import Step
from whorl.envs.make import make_env
from whorl.errors import BadInput, Incompatible
from whorl.transforms.action import ScaleAction
from whorl.transforms.env import Transformed
from whorl.transforms.episode import TimeLimit
from whorl.transforms.observation import Normalize, RunningNormalize, StackFrames
from whorl.transforms.reward import NormalizeReward
from whorl.transforms.transform import Transform

N = 5
ROWS = np.array([True, False, True, True, False])


def chain(limit=17):
    return [ScaleAction(), Normalize([0.5, 0.0, 0.0], [1.0, 2.0, 8.0]), StackFrames(3), TimeLimit(limit)]


def pendulum(*transforms, **options):
    return Transformed(make_env("Pendulum-v1", N, seed=1, **options), *transforms)


def actions(steps):
    return np.random.default_rng(0).uniform(-1, 1, (steps, N, 1)).astype(np.float32)


def same(one: Step, other: Step):
    for a, b in zip(one[:5], other[:5], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("id", ["Pendulum-v1", "CartPole-v1"])
def test_a_time_limit_is_that_of_the_world(id):
    world, limited = make_env(id, N, max_episode_steps=20), Transformed(make_env(id, N), TimeLimit(20))
    assert limited.max_episode_steps == 20
    np.testing.assert_array_equal(world.reset(3), limited.reset(3))
    for action in actions(90):
        action = action if id == "Pendulum-v1" else (action[:, 0] > 0).astype(np.int64)
        one, other = world.step(action), limited.step(action)
        same(one, other)
        assert (one.next_observation is one.observation) == (other.next_observation is other.observation)


def test_a_chain_against_a_slow_one():
    """Frames, normalized, over episodes of 17 steps, kept by hand in lists."""
    env, world = pendulum(*chain()), make_env("Pendulum-v1", N, seed=1)
    normal = lambda x: (x - np.float32([0.5, 0, 0])) * (1 / np.float32([1, 2, 8]))  # noqa: E731
    first = normal(world.reset())
    frames = [[row] * 3 for row in first]
    np.testing.assert_array_equal(env.reset(), np.array(frames))
    for t, action in enumerate(actions(60), 1):
        step, raw = env.step(action), world.step(action.clip(-1, 1) * 2)
        frames = [[*old[1:], row] for old, row in zip(frames, normal(raw.next_observation), strict=True)]
        np.testing.assert_array_equal(step.next_observation, np.array(frames))
        assert step.truncated.all() == (t % 17 == 0) and not step.terminated.any()
        if t % 17 == 0:
            frames = [[row] * 3 for row in normal(world.restart(np.ones(N, bool)))]
        np.testing.assert_array_equal(step.observation, np.array(frames))
        np.testing.assert_array_equal(step.reward, raw.reward)


def test_two_halves_are_the_whole():
    whole, parts = pendulum(*chain()), pendulum(*chain())
    whole.reset(), parts.reset()
    for action in actions(60):
        one, first = whole.step(action), parts.step(action, ROWS)
        shown, successor = first.observation.copy(), first.next_observation.copy()
        assert not first.reward[~ROWS].any() and (first.valid == ROWS).all()
        rewards, ends = first.reward.copy(), first.truncated.copy()
        second = parts.step(action, ~ROWS)
        np.testing.assert_array_equal(second.observation[ROWS], shown[ROWS])  # they stood
        rows = ROWS[:, None, None]
        same(
            one,
            Step(
                second.observation,
                np.where(ROWS, rewards, second.reward),
                second.terminated,
                np.where(ROWS, ends, second.truncated),
                np.where(rows, successor, second.next_observation),
            ),
        )


def test_a_restart_leaves_the_others_and_the_last_step():
    env = pendulum(*chain())
    env.reset()
    for action in actions(5):
        step = env.step(action)
    before = step.next_observation.copy()
    here = env.restart(ROWS)
    np.testing.assert_array_equal(step.next_observation, before)
    np.testing.assert_array_equal(here[~ROWS], before[~ROWS])
    assert (here[ROWS] == here[ROWS][:, :1]).all() and (here[ROWS] != before[ROWS]).any()
    later = [env.step(action).truncated.copy() for action in actions(17)]
    assert (np.array(later)[11] == ~ROWS).all() and (np.array(later)[16] == ROWS).all()


def test_state_goes_on_to_the_same_bits():
    env, other = pendulum(*chain()), pendulum(*chain())
    env.reset()
    for action in actions(20):
        step = env.step(action)
    back = other.load_state(env.state())
    np.testing.assert_array_equal(back, step.observation)
    for action in actions(30):
        same(env.step(action), other.step(action))


def test_a_state_of_another_chain_is_refused():
    state = pendulum(StackFrames(3)).state()
    with pytest.raises(BadInput, match="StackFrames has frames, got nothing"):
        pendulum(StackFrames(3)).load_state({key: x for key, x in state.items() if "frames" not in key})


def test_a_list_of_transforms():
    env = pendulum()
    assert len(env) == 0 and env.observation_space.shape == (3,)
    env.append(StackFrames(2))
    env.insert(0, Normalize())
    assert [type(each) for each in env] == [Normalize, StackFrames] and env.observation_space.shape == (2, 3)
    with pytest.raises(
        Incompatible, match=r"Normalize \(place 2 of the chain\) does not fit what lies within: mean and"
    ):
        env.append(Normalize(mean=[1.0, 2.0]))
    assert len(env) == 2
    assert isinstance(env.pop(), StackFrames) and env.reset().shape == (N, 3)
    with pytest.raises(BadInput, match="a chain is made of transforms, got int at place 1"):
        env.append(3)
    with pytest.raises(BadInput, match=r"Normalize \(place 1 of the chain\) stands there twice"):
        env.append(env[0])


def test_scale_needs_bounds():
    with pytest.raises(
        Incompatible, match=r"ScaleAction \(place 0 of the chain\) does not fit .* the action is Discrete\(2\)"
    ):
        whorl.make_env("CartPole-v1", transforms=["scale_action"])


class Blind(Transform):
    def spaces(self, observation, action):
        return spaces.Dict({}), action


def test_a_chain_that_leaves_no_observation():
    with pytest.raises(Incompatible, match=r"Blind \(place 1 of the chain\) leaves no observation"):
        pendulum(ScaleAction(), Blind())


def test_without_transforms_there_is_no_wrapper():
    assert type(whorl.make_env("CartPole-v1", transforms=[])) is type(make_env("CartPole-v1"))


def test_names():
    env = whorl.make_env("Pendulum-v1", 2, transforms='["scale_action", {"name": "stack_frames", "count": 4}]')
    assert env.reset().shape == (2, 4, 3)
    for wrong, message in (
        (["stack_frame"], "unknown transform 'stack_frame'; did you mean 'stack_frames'"),
        ([{"name": "stack_frames", "cuont": 4}], "stack_frames has no argument 'cuont'; did you mean 'count'"),
        (["stack_frame"], r"`whorl list transforms` shows all"),
        (["stack_frames"], 'stack_frames needs count: {"name": "stack_frames", "count": ...}'),
        ([{"name": "resize"}], 'resize needs height, width: {"name": "resize", "height": ..., "width": ...}'),
        ([{"name": "stack_frames", "count": "x"}], "stack_frames: count must be a whole number below .*, got 'x'"),
        ("[scale", "transforms are a list in JSON"),
        ({"name": "scale_action"}, "transforms are a list, the innermost first"),
        ([3], "a transform is an object, a name, such as"),
    ):
        with pytest.raises(BadInput, match=message):
            whorl.make_env("Pendulum-v1", transforms=wrong)


def test_arguments_are_of_the_kind_that_is_annotated():
    # each of these was an error of numpy's, or passed and meant something else
    for name, arguments, message in (
        ("stack_frames", {"count": 2.5}, r"stack_frames: count must be a whole number below 2\*\*63, got 2.5"),
        ("stack_frames", {"count": True}, "count must be a whole number"),
        ("stack_frames", {"count": 10**30}, r"below 2\*\*63, got 1000"),
        ("stack_frames", {"count": 10**9}, r"does not fit .* 1000000000 frames of 12 bytes are too many"),
        ("multi_action", {"count": 10**9}, "1,000,000,000 actions into one, and 1,048,576 numbers are the most"),
        ("discretize_action", {"bins": 10**9}, "its bins are 1 times 1,000,000,000, and 1,048,576 are the most"),
        (
            "discretize_action",
            {"bins": [1.5]},
            "bins must be a whole number .* or a list of which each is a whole number",
        ),
        ("project_action", {"count": 10**9}, "ProjectAction needs a count from 1 to 1,048,576"),
        ("time_limit", {"steps": "5"}, "steps must be a whole number"),
        ("step_count", {"scale": float("nan")}, "scale must be a finite number, got nan"),
        ("step_count", {"entry": 5}, "entry must be a text, got 5"),
        ("clip_observation", {"low": [0]}, "low must be a finite number"),
        ("repeat", {"count": 2, "maximum": "yes"}, "maximum must be true or false, got 'yes'"),
        ("repeat", {"count": 2, "discount": "x"}, "discount must be a finite number or null"),
        ("permute", {"axes": [0.0]}, "axes must be a list of which each is a whole number"),
        ("rename", {"names": {"a": 5}}, "names must be a table of which each is a text"),
        (
            "noop_start",
            {"noop": [1, 2, 3]},
            r"NoopStart \(place 0 of the chain\) cannot go around .* could not broadcast",
        ),
        ("primer", {"values": nested(10 * sys.getrecursionlimit())}, "values is nested deeper than Python reads"),
    ):
        with pytest.raises(BadInput, match=message):
            whorl.make_env("Pendulum-v1", transforms=[{"name": name, **arguments}])
    with pytest.raises(BadInput, match="transforms are a list in JSON"):
        whorl.make_env("Pendulum-v1", transforms="[" * 100_000)


def nested(depth: int) -> object:
    value = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def test_a_change_that_is_refused_leaves_the_chain_in_its_episodes():
    env, other = pendulum(*chain()), pendulum(*chain())
    taken = actions(20)
    for each in (env, other):
        each.reset(3)
        each.step(taken[0])
    with pytest.raises(Incompatible):
        env.insert(0, Flatless())
    with pytest.raises(BadInput, match="Broken .place 4 of the chain. cannot go around .* ZeroDivisionError"):
        env.append(Broken())
    for action in taken:
        same(env.step(action), other.step(action))


class Flatless(Transform):
    """Changes what lies within the others, so that one of them does not fit any more."""

    def spaces(self, observation, action):
        return spaces.Box(-1, 1, (7,), np.float32), spaces.Discrete(2)


class Broken(Transform):
    def spaces(self, observation, action):
        return 1 // 0


def test_statistics_that_no_data_can_have_had():
    env = Transformed(make_env("Pendulum-v1", 2), RunningNormalize(), NormalizeReward())
    for owner, name, wrong in (("RunningNormalize", "variance", [1.0, -1.0, 1.0]), ("NormalizeReward", "count", 0.0)):
        with pytest.raises(
            BadInput, match=f"{owner} was to load statistics with a variance below 0, or a count of none"
        ):
            env.load_learned(env.learned() | {f"{owner}1.{name}": np.array(wrong)})


def test_what_is_no_environment():
    with pytest.raises(BadInput, match=r"go around an environment of whorl's, whorl.make_env\(...\).*, got <TimeLimit"):
        whorl.Transformed(gymnasium.make("CartPole-v1"))


def test_names_of_entries_that_a_batch_or_a_folder_could_not_hold():
    for name in ("a.b", "", "x/y", "../z"):
        with pytest.raises(Incompatible, match="an entry's name is made of letters, digits, _ and -, got"):
            whorl.make_env("Pendulum-v1", transforms=[{"name": "step_count", "entry": name}])


def test_a_need_that_nobody_knows():
    class Needy(Transform):
        needs = frozenset({"teleport"})

    with pytest.raises(Incompatible, match=r"Needy \(place 0 of the chain\) needs environments that can teleport"):
        pendulum(Needy())


class Nameless(Normalize):
    def __init__(self, centre: float = 0.0) -> None:
        super().__init__(centre)


def test_a_chain_in_words():
    env = whorl.make_env(
        "Pendulum-v1", transforms=["scale_action", {"name": "stack_frames", "count": 2}, Nameless(2.0)]
    )
    assert repr(env).endswith(" through ScaleAction, StackFrames(count=2), Nameless")
    assert repr(Transformed(make_env("Pendulum-v1"))).endswith(" through no transform")
