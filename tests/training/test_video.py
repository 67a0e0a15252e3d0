"""Films of long episodes: fewer frames, evenly spread, never all in memory."""

from pathlib import Path

import numpy as np
import pytest

from whorl.envs.make import EnvKind
from whorl.training import video
from whorl.training.build import build


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_a_long_gif_keeps_every_second_frame_or_every_fourth(ending, monkeypatch):
    policy = build("random", "CartPole-v1", num_envs=1).agent.policy
    written: list[list] = []
    # a GIF file joins frames that look alike, so what goes into it is looked at
    monkeypatch.setattr(video, "_write", lambda file, frames: written.append(frames))

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
