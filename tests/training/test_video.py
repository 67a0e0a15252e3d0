"""Films of long episodes: fewer frames, evenly spread, never all in memory."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest

from whorl.envs.make import EnvKind
from whorl.errors import WhorlError
from whorl.training import video
from whorl.training.build import build


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
