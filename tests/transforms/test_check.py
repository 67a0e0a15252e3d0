"""Every transform of the table keeps the contract, and `check_transform` finds those that do not."""

from functools import partial

import numpy as np
import pytest

import whorl
from tests.transforms.screen import Screen
from tests.transforms.worlds import Choices, Lives, Masked
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.make import make_env
from whorl.errors import TransformFault
from whorl.transforms.chain import TRANSFORMS, made
from whorl.transforms.env import Transformed
from whorl.transforms.observation import Normalize, StackFrames
from whorl.transforms.pixels import ToImage
from whorl.transforms.transform import OfObservation, OfReward

DRAWN = partial(Gymnasium, partial(Screen, render_mode="rgb_array"), 3)
PICTURES = partial(Gymnasium, Screen, 3)
PLANES = lambda: Transformed(PICTURES(), ToImage())  # noqa: E731
CHOICES, MASKED, LIVES = (partial(Gymnasium, cls, 3, max_episode_steps=7) for cls in (Choices, Masked, Lives))
DICT = "BitFlipping8-v0"
CASES = {  # of each name: (id or maker of the environment, arguments), once or several times
    "normalize": [("Pendulum-v1", {"mean": [0.5, 0.0, 0.0], "std": [1.0, 2.0, 8.0]})],
    "running_normalize": [("Pendulum-v1", {}), (DICT, {"key": "observation"})],
    "clip_observation": [("Pendulum-v1", {"low": -0.5, "high": 0.5}), (DICT, {"key": "observation", "high": 0.5})],
    "cast": [("GridWorld-v0", {}), (DICT, {"dtype": "uint8", "key": "desired_goal"})],
    "unary": [("Pendulum-v1", {"function": name}) for name in ("symlog", "tanh")]
    + [(DICT, {"function": "sqrt", "key": "observation"})],
    "to_device": [("Pendulum-v1", {"device": "cpu:0"}), (DICT, {"device": "cpu:0"})],
    "stack_frames": [("Pendulum-v1", {"count": 3}), (DICT, {"count": 2, "key": "observation"})],
    "time_max": [("Pendulum-v1", {"count": 2})],
    "next_delta": [("Pendulum-v1", {}), (DICT, {"key": "observation", "entry": "flipped"})],
    "flatten_observation": [("GridWorld-v0", {}), (DICT, {})],
    "squeeze": [("ProbeConstant-v0", {})],
    "unsqueeze": [("Pendulum-v1", {"axis": 0}), (DICT, {"key": "observation"})],
    "permute": [("Pendulum-v1", {"axes": [0]})],
    "select": [(DICT, {"keys": ["observation", "desired_goal"]}), (DICT, {"keys": "observation"})],
    "exclude": [(DICT, {"keys": ["achieved_goal"]})],
    "rename": [(DICT, {"names": {"observation": "bits"}})],
    "cat_observations": [
        (DICT, {"keys": ["observation", "desired_goal"]}),
        (DICT, {"keys": ["observation", "achieved_goal"], "into": "all"}),
    ],
    "stack_observations": [
        (DICT, {"keys": ["observation", "desired_goal"]}),
        (DICT, {"keys": ["observation", "desired_goal"], "axis": -1, "into": "all"}),
    ],
    "expand_as": [(DICT, {"key": "observation", "like": "desired_goal"})],
    "primer": [("Pendulum-v1", {"values": {"task": 3, "hidden": [0.5, 1.0]}}), (DICT, {"values": {"task": 3}})],
    "previous_action_reward": [("Pendulum-v1", {}), (DICT, {})],
    "from_render": [(DRAWN, {"height": 12, "width": 10}), ("CliffWalking-v1", {"entry": "map"})],
    "to_image": [(PICTURES, {})],
    "gray": [(PLANES, {}), (PLANES, {"keep": True})],
    "resize": [(PLANES, {"height": 5, "width": 4}), (PLANES, {"height": 6, "width": 5})],
    "crop": [(PLANES, {"top": 1, "left": 2, "height": 5, "width": 4})],
    "center_crop": [(PLANES, {"height": 5, "width": 4})],
    "random_shift": [(PLANES, {})],
    "scale_action": [("Pendulum-v1", {"low": 0.0})],
    "flatten_action": [(CHOICES, {})],
    "discretize_action": [("Pendulum-v1", {"bins": 5}), ("Pendulum-v1", {"bins": [4], "multi": True})],
    "project_action": [("CartPole-v1", {"count": 5})],
    "mask_action": [(MASKED, {"entry": "legal"})],
    "sticky_action": [("Pendulum-v1", {"probability": 0.5}), ("CartPole-v1", {})],
    "repeat": [("CartPole-v1", {"count": 3}), ("Pendulum-v1", {"count": 2, "discount": 0.9, "maximum": True})],
    "multi_action": [("Pendulum-v1", {"count": 3}), ("CartPole-v1", {"count": 2, "discount": 0.5})],
    "scale_reward": [("Pendulum-v1", {"scale": 0.1, "shift": 2.0})],
    "clip_reward": [("Pendulum-v1", {}), ("Pendulum-v1", {"low": None, "high": -3.0})],
    "sign_reward": [("Pendulum-v1", {})],
    "binarize_reward": [("CartPole-v1", {})],
    "sum_reward": [("Pendulum-v1", {})],
    "linearize": [],  # tests/transforms/test_reward.py
    "reward_to_go": [],  # of batches alone, there
    "normalize_reward": [("Pendulum-v1", {"discount": 0.9})],
    "time_limit": [("CartPole-v1", {"steps": 5})],
    "terminate_when": [
        ("Pendulum-v1", {"op": ">", "value": 0.9, "index": 0}),
        ("CartPole-v1", {"op": ">", "value": 0.5}),
    ],
    "random_truncation": [
        ("CartPole-v1", {"least": 2, "most": 5}),
        ("Pendulum-v1", {"least": 1, "most": 4, "later": 0.5}),
    ],
    "step_count": [("CartPole-v1", {"scale": 0.1})],
    "trajectory_id": [("CartPole-v1", {})],
    "noop_start": [("CartPole-v1", {"most": 3}), ("Pendulum-v1", {"most": 2, "noop": 1.5})],
    "end_of_life": [(LIVES, {})],
    "finite": [("Pendulum-v1", {}), ("CartPole-v1", {"replace": 0.0})],
}


@pytest.mark.parametrize("name", [name for name, where in TRANSFORMS.items() if isinstance(where, str)])
def test_the_contract(name):
    for id, arguments in CASES[name]:
        env = make_env(id, 3, max_episode_steps=7) if isinstance(id, str) else id()
        whorl.check_transform(made({"name": name, **arguments}), env, steps=20)


class Mixing(OfObservation):
    def look(self, observation):
        return observation - observation.mean(0) * 0.1


class Writing(OfReward):
    def judge(self, reward):
        reward *= 0.5
        return reward


class Other(OfReward):
    def judge(self, reward):
        return reward * (2 if isinstance(reward, np.ndarray) else 3)


class NumpyOnly(OfReward):
    def judge(self, reward):
        return reward.astype(np.float64).round().astype(np.float32)


class Early(StackFrames):
    def reset(self, observation, rows):
        self.memory["frames"][rows] = observation[rows][:, None]
        return self.memory["frames"]


class Unwritten(OfReward):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()


class Outside(Normalize):
    def look(self, observation):
        return super().look(observation) * (1 if observation.ndim == 1 else 10)


class Batchwise(OfReward):
    def judge(self, reward):
        return reward * 2

    def forward(self, batch):
        return batch


class Cut(OfObservation):
    """Whose space is that of before."""

    def look(self, observation):
        return observation[:, :2]


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (Mixing(), "row 0 depends on other rows at step 0"),
        (Writing(), "it writes into arrays that it was given"),
        (Other(), "numpy and torch give other numbers at step 1"),
        (NumpyOnly(), "it fails with arrays of torch: AttributeError.*One formula goes with both"),
        (Cut(), "it raised RuntimeError: batch dimension .* or gives what has not the shape that `spaces` says"),
        (Early(2), "its `reset` writes into what its `step` handed out"),
        (Unwritten(), "keep each argument, a plain value, as an attribute of the same name"),
        (Outside(), "around .* it breaks the contract of environments: .* outside of Box"),
        (Batchwise(), "`forward` gives another next.reward than the environment shows"),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, str) else "",
)
def test_a_breach_is_found(transform, message):
    with pytest.raises(TransformFault, match=f"{type(transform).__name__}: .*{message}"):
        whorl.check_transform(transform, make_env("Pendulum-v1", 3, max_episode_steps=20))


def test_one_environment_is_too_few():
    with pytest.raises(ValueError, match="two environments at least"):
        whorl.check_transform(Normalize(), make_env("Pendulum-v1"))
