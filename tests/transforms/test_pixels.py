"""Pictures against Gymnasium's wrappers and OpenCV, and by hand."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import wrappers as peers
from gymnasium.spaces import Box, Discrete

import whorl
from tests.transforms.screen import Screen
from whorl.batch import Batch
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.make import make_env
from whorl.errors import BadInput, Incompatible
from whorl.transforms import pixels
from whorl.transforms.chain import made
from whorl.transforms.env import Transformed
from whorl.transforms.episode import TimeLimit
from whorl.transforms.observation import StackFrames
from whorl.transforms.pixels import CenterCrop, Crop, FromRender, Gray, RandomShift, Resize, ToImage

SIZES = [  # height and width, of a picture and of the small one
    (210, 160, 84, 84),
    (96, 96, 64, 48),
    (96, 96, 48, 48),
    (42, 40, 14, 10),
    (30, 20, 30, 7),
    (21, 40, 7, 20),
]


def small(picture, height, width, monkeypatch):
    """By numpy and by torch, without OpenCV: the same."""
    monkeypatch.setattr(pixels, "cv2", None)
    in_numpy = pixels.resized(picture, height, width)
    np.testing.assert_array_equal(pixels.resized(torch.as_tensor(picture), height, width), in_numpy)
    return in_numpy


@pytest.mark.parametrize("sizes", SIZES)
def test_small_pictures_are_opencvs(sizes, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    picture = np.random.default_rng(0).integers(0, 256, (2, 3, *sizes[:2]), np.uint8)
    found = small(picture, *sizes[2:], monkeypatch)
    for plane, whole in zip(found.reshape(-1, *sizes[2:]), picture.reshape(-1, *sizes[:2]), strict=True):
        np.testing.assert_array_equal(plane, cv2.resize(whole, (sizes[3], sizes[2]), interpolation=cv2.INTER_AREA))


def test_small_pictures_by_hand(monkeypatch):
    square = np.array([[[0, 1], [2, 3]]], np.uint8)
    assert small(square, 1, 1, monkeypatch).tolist() == [[[2]]]  # 1.5, of four a half goes up
    row = np.array([[10, 20, 40]], np.uint8)  # 1.5 pixels each: (10 + 20 / 2) / 1.5 and (20 / 2 + 40) / 1.5
    assert small(row, 1, 2, monkeypatch).tolist() == [[13, 33]]
    flat = np.full((3, 17, 13), 77, np.uint8)
    assert (small(flat, 5, 4, monkeypatch) == 77).all()


def walked(chain, wrappers, close=0):
    """What a chain shows is what Gymnasium's wrappers do, the successor at each end included."""
    ours = Transformed(Gymnasium(Screen, 3), *chain)
    theirs = Gymnasium(Screen, 3, wrappers=wrappers)
    np.testing.assert_array_equal(ours.reset(2), theirs.reset(2))
    rng, ends = np.random.default_rng(0), 0
    for _ in range(30):
        action = rng.integers(2, size=3)
        one, other = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(one.next_observation, other.next_observation)
        np.testing.assert_array_equal(one.observation, other.observation)
        ends += (one.terminated | one.truncated).sum()
    assert ends > 10
    assert ours.observation_space == theirs.observation_space


def test_gray_is_gymnasiums():
    walked([ToImage(), Gray()], [peers.GrayscaleObservation])


def test_gray_small_frames_are_gymnasiums():
    pytest.importorskip("cv2")
    stack = partial(peers.FrameStackObservation, stack_size=3, padding_type="reset")
    small = partial(peers.ResizeObservation, shape=(7, 6))
    walked([ToImage(), Gray(), Resize(7, 6), StackFrames(3)], [peers.GrayscaleObservation, small, stack])
    walked([ToImage(), Resize(7, 6), Gray()], [small, peers.GrayscaleObservation])


def test_parts_of_a_picture():
    x = np.arange(2 * 6 * 5, dtype=np.uint8).reshape(2, 6, 5)
    for transform, wanted in ((Crop(1, 2, 3, 2), x[:, 1:4, 2:4]), (CenterCrop(2, 2), x[:, 2:4, 1:3])):
        space, _ = transform.spaces(Box(0, 255, x.shape, np.uint8), Discrete(2))
        np.testing.assert_array_equal(transform.look(x), wanted)
        assert space.shape == wanted.shape


def test_shifts():
    """Each row is the picture somewhere within its edge; other batches move otherwise, and another copy moves as the first."""
    x = torch.arange(7 * 6, dtype=torch.uint8).reshape(1, 1, 1, 7, 6).expand(4, 8, 2, 7, 6)
    shift, again = RandomShift(2), RandomShift(2)
    shift.spaces(Box(0, 255, (2, 7, 6), np.uint8), Discrete(2))

    def moved(transform):
        batch = Batch({"observation": x.clone()}, [4, 8])
        batch["next"] = Batch({"observation": x.clone()}, [4, 8])
        batch = transform(batch)
        return torch.stack([batch["observation"], batch["next", "observation"]])

    first, second = moved(shift), moved(shift)
    padded = torch.nn.functional.pad(x[0, 0].float(), (2, 2, 2, 2), mode="replicate").byte()
    within = {tuple(padded[:, i : i + 7, j : j + 6].flatten().tolist()) for i in range(5) for j in range(5)}
    rows = [tuple(row.flatten().tolist()) for row in first.flatten(0, 2)]
    assert set(rows) <= within and len(set(rows)) > 15
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    assert torch.equal(moved(again), first)
    again.load_state_dict(shift.state_dict())
    assert torch.equal(moved(again), moved(shift))


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        (
            {"name": "resize", "height": 8, "width": 8},
            (12, 10, 3),
            r"channels stand last in \(12, 10, 3\): put ToImage within",
        ),
        ("gray", (12, 10, 3), "put ToImage within"),
        ("gray", (12, 10), r"three, \[3, height, width\]"),
        ("to_image", (3, 12, 10), "a picture is uint8"),
        (
            {"name": "resize", "height": 13, "width": 8},
            (12, 10),
            "it makes pictures smaller, 13 x 8, and those here have 12 x 10",
        ),
        ({"name": "crop", "top": 9, "left": 0, "height": 4, "width": 4}, (12, 10), "ends beyond a picture of 12 x 10"),
        ({"name": "center_crop", "height": 4, "width": 11}, (12, 10), "there is no 4 x 11 in pictures of 12 x 10"),
        ("random_shift", (12,), "a picture has a height and a width"),
    ],
)
def test_what_does_not_fit(spec, shape, message):
    with pytest.raises(Incompatible, match=message):
        made(spec).spaces(Box(0, 255, shape, np.uint8), Discrete(2))


def test_arguments_that_cannot_be():
    for spec in (
        {"name": "resize", "height": 0, "width": 8},
        {"name": "crop", "top": -1, "left": 0, "height": 1, "width": 1},
        {"name": "center_crop", "height": 0, "width": 1},
        {"name": "random_shift", "pad": 0},
    ):
        with pytest.raises(BadInput, match="needs a"):
            made(spec)


def test_pictures_are_gymnasiums():
    """Of each row, the last of each episode included: `Screen` draws its observation, twice as large."""
    drawn = partial(Screen, render_mode="rgb_array")
    ours = Transformed(Gymnasium(drawn, 3), FromRender(24, 20, entry="drawn"))
    theirs = Gymnasium(drawn, 3, wrappers=[partial(peers.AddRenderObservation, render_only=True)])
    small = Transformed(Gymnasium(drawn, 3), FromRender(12, 10))
    seen = [ours.reset(2)["drawn"], theirs.reset(2), small.reset(2)]
    np.testing.assert_array_equal(seen[0], seen[1])
    rng, ends = np.random.default_rng(0), 0
    for _ in range(30):
        action = rng.integers(2, size=3)
        one, other, third = ours.step(action), theirs.step(action), small.step(action)
        for name in ("observation", "next_observation"):
            mine, wanted = getattr(one, name), getattr(other, name)
            np.testing.assert_array_equal(mine["drawn"], wanted)
            np.testing.assert_array_equal(mine["drawn"][:, ::2, ::2], mine["observation"])
            np.testing.assert_array_equal(getattr(third, name), mine["observation"])
        ends += (one.terminated | one.truncated).sum()
    assert ends > 10


def test_a_native_world_draws_what_it_left():
    """Rows that end, by the world or by a time limit, are drawn where they ended: CliffWalking's walker at its goal."""
    ours = Transformed(make_env("CliffWalking-v1", 2), FromRender(96, 288, entry="map"), TimeLimit(14))
    ours.reset(0)
    painter = make_env("CliffWalking-v1", 1)
    state = painter.state()

    def at(cell):
        state["state"][:], state["episode"][:], state["elapsed"][:] = cell, 0, 0
        painter.load_state(state)
        return painter.render()

    path = [0, *[1] * 11, 2]  # up, right, down: the goal, for row 0; row 1 stands against the wall
    for action in [*path, 3]:
        step = ours.step(np.array([action, 3]))
        for name in ("observation", "next_observation"):
            seen = getattr(step, name)
            for row in range(2):
                np.testing.assert_array_equal(seen["map"][row], at(seen["observation"][row]))
        if action == 2:
            assert step.terminated.tolist() == [True, False] and step.next_observation["observation"][0] == 47
    assert step.truncated.tolist() == [False, True]


def test_pictures_that_cannot_be():
    for env, message in (
        (Gymnasium(Screen, 2), "they are made one by one with render_mode='rgb_array'"),
        (make_env("RandomWalk-v0", 2), "has no pictures of all its environments"),
        (Transformed(make_env("CliffWalking-v1", 2), TimeLimit(3)), "has no pictures of all its environments"),
    ):
        with pytest.raises(BadInput, match=message):
            Transformed(env, FromRender())
    with pytest.raises(Incompatible, match="FromRender makes pictures smaller, 200 x 64, and those here have 96 x 288"):
        Transformed(make_env("CliffWalking-v1", 2), FromRender(200)).reset()


def test_environments_are_made_with_pictures():
    env = whorl.make_env("CartPole-v1", 2, prefer="gymnasium", transforms=["from_render", "to_image"])
    assert env.reset().shape == (2, 3, 64, 64)
    another = env.made_from.make(1)
    assert another.reset().std() > 10
