"""Transforms of single rows in a buffer."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

import whorl
from tests.buffers.lookup.known import LANES, played
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.lookup.n_step import NStep
from whorl.buffers.lookup.stack import FrameStack
from whorl.buffers.sample_uniform import Uniform
from whorl.buffers.storage_memory import Memory
from whorl.errors import BadInput
from whorl.transforms.episode import TimeLimit
from whorl.transforms.observation import Normalize, StackFrames
from whorl.transforms.pixels import RandomShift
from whorl.transforms.shape import FlattenObservation
from whorl.transforms.transform import OfObservation, OfReward


class Doubled(OfReward):
    def judge(self, reward):
        return 2 * reward


class Less(OfObservation):
    """Every leaf, less one."""

    def look(self, observation):
        if isinstance(observation, dict):
            return {key: self.look(value) for key, value in observation.items()}
        return observation - 1


def filled(*lookups):
    buffer = ReplayBuffer(Memory(80, LANES), Uniform(0), lookups, batch_size=16)
    buffer.add(next(played(20, 20)))
    return buffer


def test_they_run_after_the_lookups_in_the_order_given_and_leave_the_rows():
    buffer, plain = filled(FrameStack(2), Normalize(1.0, 2.0), Less(), Doubled()), filled(FrameStack(2))
    for _ in range(3):
        made, right = buffer.sample(), plain.sample()
        for one, other in ((made, right), (made["next"], right["next"])):
            assert torch.equal(one["observation"], (other["observation"] - 1) / 2 - 1)
        assert torch.equal(made["next"]["reward"], 2 * right["next"]["reward"])
        assert torch.equal(made["action"], right["action"])
    assert torch.equal(buffer.storage.column("observation")[:4], plain.storage.column("observation")[:4])


def test_one_that_was_not_told_the_spaces_says_so():
    buffer = filled(flat := FlattenObservation())
    with pytest.raises(BadInput, match=r"FlattenObservation on a batch: .* transform.spaces\(env.observation_space"):
        buffer.sample()
    flat.spaces(spaces.Box(-1, 1, (4,)), spaces.Discrete(2))
    assert buffer.sample()["observation"].shape == (16, 4)


def test_random_shifts_go_on_after_a_restart():
    checked = whorl.check_buffer(
        lambda folder: ReplayBuffer(Memory(90, 3, 40, folder=folder), Uniform(3), [RandomShift(1)], batch_size=8),
        observation_space=spaces.Box(0, 255, (2, 6, 5), np.uint8),
        changes=("observation", "next.observation"),
    )
    assert checked["restart"].startswith("the same bits")


class Counting(OfReward):
    """Adds how often it was asked: a memory, and something learned."""

    learned: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("learned", torch.zeros(()))
        self.memory = {"asked": torch.zeros(1)}

    def judge(self, reward):
        self.learned += 2
        self.memory["asked"] += 1
        return reward + self.learned + self.memory["asked"]


def test_what_they_keep_is_in_the_state_of_the_buffer():
    one, two = filled(Counting()), filled(Counting())
    one.sample()
    arrays, numbers = one.drawing()["lookup0"].state()
    assert {name: float(x) for name, x in arrays.items()} == {"learned.learned": 2.0, "asked": 1.0}
    assert two.drawing()["lookup0"].load_state({k: x.clone() for k, x in arrays.items()}, numbers)
    two.sampler.load_state(*one.sampler.state())
    assert torch.equal(one.sample()["next"]["reward"], two.sample()["next"]["reward"])
    assert "lookup0" not in filled(Normalize()).drawing()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([StackFrames(3)], "StackFrames looks at more than one row: put it around the environment"),
        ([TimeLimit(3)], "TimeLimit looks at more than one row"),
        ([len], "lookups .subclasses of .* and transforms, got <built-in function len>"),
        (
            [Normalize(), NStep(2, 0.9)],
            "NStep reads rows as they are stored, so it stands before Normalize: lookups first",
        ),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_made(parts, message):
    with pytest.raises(BadInput, match=message):
        ReplayBuffer(Memory(80, LANES), Uniform(0), parts)


@pytest.mark.parametrize(
    "space", [spaces.Box(-1, 1, (5,)), spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Box(-1, 1, (3,))})]
)
def test_they_hold_to_the_contract(space):
    whorl.check_buffer(
        lambda folder: ReplayBuffer(Memory(90, 3), Uniform(3), [Less(), Doubled()], batch_size=8),
        observation_space=space,
        changes=("observation", "next.observation", "next.reward"),
    )
