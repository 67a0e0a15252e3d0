"""One episode of a trained policy as a GIF or MP4. Gymnasium draws, imageio writes."""

from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from whorl.buffers.datasets import Dataset
from whorl.envs.env import Env, Kind
from whorl.envs.guard import Stepper, close, guarded
from whorl.errors import BadInput, EnvError
from whorl.folders import Folder, make
from whorl.functional.streams import stream
from whorl.policies.policy import Held, Policy
from whorl.training.evaluate import look_alike
from whorl.transforms.transform import flags

MAX_FRAMES = 250  # of a GIF: longer episodes keep every second frame, every fourth, ...


def film(
    policy: Policy,
    source: Kind | Env,
    file: Path,
    seed: int = 0,
    max_steps: int = 10_000,
    folder: Folder | None = None,
    known: Env | Dataset | None = None,
) -> tuple[float, int]:
    """Play one greedy episode (at most `max_steps` of it) and write it to `file` (.gif or .mp4); returns its return and length.

    It has an environment of its own, but where `source` is one: its first one is filmed, and it stays open. It has random streams of its
    own. folder: the file's own, held open; None: it is opened by its path. known: what the policy was made for.
    Raises BadInput when the environment has no picture or the ending is neither.
    """
    if file.suffix not in (".gif", ".mp4"):
        raise BadInput(f"a video ends in .gif or .mp4, got {file}")
    env, every, total, steps = drawable(source, seed), 1, 0.0, 0
    frames: list[np.ndarray] = []
    n = env.num_envs
    actor, is_first = policy.actor(n), flags(n, env.device, True)
    carry: Held = policy.initial(n)
    generator = torch.Generator().manual_seed(stream(seed, "video"))
    world = guarded(env)
    try:
        if known is not None:
            look_alike(env, known)
        observation = world.reset(seed)
        while steps < max_steps:
            if steps % every == 0:
                frames.append(_picture(world, frames))
            if file.suffix == ".gif" and len(frames) > MAX_FRAMES:
                frames, every = frames[::2], 2 * every
            noise = None if policy.greedy else policy.noise((1, n), generator)[0]
            decided, carry = actor(observation, carry, is_first, noise, env.action_mask)
            step = world.step(decided["action"])
            reward = step.reward if env.raw_reward is None else env.raw_reward
            ended = step.terminated | step.truncated
            observation, is_first = step.observation, ended if step.valid is None else ended | ~step.valid
            if step.valid is None or step.valid[0]:
                total, steps = total + float(reward[0]), steps + 1
            if step.valid is not None and step.truncated[0] and not step.valid[0]:  # lost: another one begins
                frames, total, steps, every = [], 0.0, 0, 1
            elif ended[0]:
                break
    finally:
        if env is not source:
            close(env)
    _write(file, frames, folder)
    return total, steps


def drawable(source: Kind | Env, seed: int) -> Env:
    """One environment with pictures: a native world's own, or its library's; an object itself. Raises BadInput for one that has none."""
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws into memory, and need not look for a screen
    env = source if isinstance(source, Env) else source.make(1, seed, pictures=True)
    world = guarded(env)
    try:
        world.reset(seed)
        if world.render() is None:
            name = repr(source) if isinstance(source, Env) else source.name
            raise BadInput(f"{name} has no picture to record: its `render` gives none in the render_mode 'rgb_array'")
    except BaseException:
        if env is not source:
            close(env)
        raise
    return env


def _picture(world: Stepper, before: list[np.ndarray]) -> np.ndarray:
    """The next one, [height, width, 3] like those before it. Raises EnvError for another."""
    picture = world.render()
    if picture is None or (before and picture.shape != before[0].shape):
        came = "none" if picture is None else f"one of {picture.shape} after one of {before[0].shape}"
        raise EnvError(f"{world!r}: all pictures of an episode have one size; render gave {came}")
    return picture


def _write(file: Path, frames: list[np.ndarray], folder: Folder | None) -> None:
    data = _encoded(frames, file.suffix)
    if folder is None:
        make(file.absolute().parent)
    with nullcontext(folder) if folder else Folder(file.absolute().parent) as here:
        here.write(file.name, data)


def _encoded(frames: list[np.ndarray], kind: str) -> bytes:
    """kind: .gif, or .mp4, whose encoder wants a file: it gets one of its own, in the system's folder for such."""
    import imageio.v3 as imageio

    if kind == ".gif":
        return imageio.imwrite("<bytes>", np.stack(frames), extension=".gif", duration=40, loop=0)
    with tempfile.TemporaryDirectory(prefix="whorl-") as place:
        try:
            imageio.imwrite(Path(place) / "video.mp4", np.stack(frames), fps=30, plugin="FFMPEG")
        except (ImportError, OSError) as error:
            raise BadInput(f'cannot write an mp4: {error} (install it: pip install "whorl[video]")') from error
        return (Path(place) / "video.mp4").read_bytes()
