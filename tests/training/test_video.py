"""Films of long episodes: fewer frames, evenly spread, never all in memory."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest

import whorl
from whorl.envs.env import Env, Step
from whorl.envs.make import EnvKind
from whorl.errors import WhorlError
from whorl.training import video
from whorl.training.build import build
from whorl.transforms.chain import chain
from whorl.transforms.episode import TimeLimit


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_a_long_gif_keeps_every_second_frame_or_every_fourth(ending, monkeypatch):
    policy = build("random", "CartPole-v1", num_envs=1).agent.policy
    written: list[list] = []
    # a GIF file joins frames that look alike, so what goes into it is looked at
    monkeypatch.setattr(video, "_write", lambda file, frames, folder: written.append(frames))

    def frames(most: int) -> tuple[int, np.ndarray]:
        monkeypatch.setattr(video, "MAX_FRAMES", most)
        _, steps = video.film(policy, EnvKind("CartPole-v1"), Path(f"film{ending}"), seed=3)
        return steps, np.stack(written.pop())

    steps, whole = frames(10_000)
    assert 8 < steps == len(whole)
    for most in (2, 5, steps - 1, steps):
        _, few = frames(most)
        every = next(2**k for k in range(10) if -(-steps // 2**k) <= most) if ending == ".gif" else 1
        assert np.array_equal(few, whole[::every])


class Draws(gymnasium.Env):
    """Its n-th picture is the n-th of `pictures`, or an error."""

    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32), gymnasium.spaces.Discrete(2)
    render_mode = "rgb_array"
    pictures: list = []

    def reset(self, *, seed=None, options=None):
        self.left = list(self.pictures)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, False, False, {}

    def render(self):
        picture = self.left.pop(0)
        if isinstance(picture, type):
            raise picture("no pen")
        return None if picture is None else np.zeros(picture, np.uint8)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([None], "Draws has no picture to record"),
        ([(8, 8, 3), None], "all pictures of an episode have one size; render gave none"),
        ([(8, 8, 3), (8, 9, 3)], r"one of \(8, 9, 3\) after one of \(8, 8, 3\)"),
        ([(8, 8)], r"render must give a picture \[height, width, 3\], got the shape \(8, 8\)"),
        ([(8, 8, 3), SystemExit], r"episode 0, step 1, last action \d\) of Draws .*: render raised SystemExit: no pen"),
        ([RuntimeError], "render raised RuntimeError: no pen"),
    ],
)
def test_pictures_that_make_no_film(pictures, message, tmp_path, monkeypatch):
    monkeypatch.setattr(Draws, "pictures", pictures)
    policy = build("random", Draws, num_envs=1).agent.policy
    with pytest.raises(WhorlError, match=message):
        video.film(policy, EnvKind(Draws), tmp_path / "film.gif")
    assert not list(tmp_path.iterdir())


class Own(Env):
    """A user's, of N at once; its picture is as bright as its first one is old."""

    observation_space, action_space = gymnasium.spaces.Box(0, 1, (2,), np.float32), gymnasium.spaces.Discrete(2)

    def __init__(self, num_envs=1, seed=0):
        self.num_envs, self.closed = num_envs, False

    def reset(self, seed=None):
        self.time = 0
        return np.zeros((self.num_envs, 2), np.float32)

    def step(self, action, rows=None):
        self.time += 1
        here, never = np.zeros((self.num_envs, 2), np.float32), np.zeros(self.num_envs, bool)
        return Step(here, np.arange(1, self.num_envs + 1, dtype=np.float32), never, never.copy(), here)

    def render(self):
        return np.full((4, 4, 3), self.time, np.uint8)

    def close(self):
        self.closed = True


@pytest.mark.parametrize(
    "source",
    [
        EnvKind(Own),
        EnvKind(Own, transforms=chain([{"name": "stack_frames", "count": 2}])),
        Own(3),
        whorl.Transformed(Own(3)),
    ],
    ids=["class", "class through a transform", "object", "object through none"],
)
def test_a_users_environment_is_filmed_as_class_and_as_object(source, monkeypatch):
    written = []
    monkeypatch.setattr(video, "_write", lambda file, frames, folder: written.append(frames))
    policy = build("random", source, num_envs=None if isinstance(source, Env) else 1).agent.policy
    assert video.film(policy, source, Path("film.gif"), max_steps=5) == (
        5.0,
        5,
    )  # of the first one, whose rewards are 1
    assert [frame[0, 0, 0] for frame in written.pop()] == [0, 1, 2, 3, 4]
    own = getattr(source, "env", source)
    assert not (isinstance(own, Own) and own.closed)


@pytest.mark.parametrize("prefer", ["native", "torch"])
def test_a_world_is_filmed_through_its_transforms(prefer, monkeypatch):
    written = []
    monkeypatch.setattr(video, "_write", lambda file, frames, folder: written.append(np.stack(frames)))
    short = chain(["scale_action", {"name": "time_limit", "steps": 6}])
    kind = EnvKind("Pendulum-v1", prefer=prefer, transforms=short)
    policy = build("ppo", kind, num_envs=1).agent.policy
    earned, steps = video.film(policy, kind, Path("film.gif"), seed=3)
    frames = written.pop()
    assert steps == len(frames) == 6 and earned < 0
    assert (frames[0] != frames[-1]).any()  # it moves


def test_what_make_env_gives_is_played_again_with_its_transforms():
    env = whorl.make_env("CartPole-v1", num_envs=2, transforms=[TimeLimit(7)])
    assert env.made_from is not None
    again = env.made_from.make(3)
    assert (again.num_envs, again.max_episode_steps) == (3, 7)
    env.append(TimeLimit(5))  # what it was made from knows nothing of that
    assert env.made_from is None
    assert whorl.Transformed(whorl.make_env("CartPole-v1"), TimeLimit(7)).made_from is None
