"""Policies as files that are used without whorl, against the policy that was exported."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from safetensors import safe_open

from tests.training.test_trained import ACTIONS, OBSERVATIONS, Counting, Masked, Strict, small, trained
from whorl.errors import BadInput
from whorl.training.actor import TrainedActor
from whorl.training.build import build
from whorl.training.export import export
from whorl.training.trained import Trained

KINDS = [  # of observation and action
    ("discrete", "integer box"),
    ("image", "discrete from -1"),
    ("tuple", "multi-discrete of two axes"),
    ("dict", "dict"),
    ("box", "mixed"),
]
DICT = spaces.Dict(
    {"x": OBSERVATIONS["box"], "deep": spaces.Tuple((spaces.MultiBinary((2, 2)), spaces.Discrete(3, start=2)))}
)


def batch_of(space: spaces.Space, n: int):
    space = batch_space(space, n)
    space.seed(5)
    return space.sample()


def tensors(tree):
    if isinstance(tree, dict):
        return {key: tensors(inner) for key, inner in tree.items()}
    return tuple(map(tensors, tree)) if isinstance(tree, tuple) else torch.as_tensor(tree)


def assert_equal(found, wanted) -> None:
    if isinstance(wanted, dict | tuple):
        assert type(found) is type(wanted) and len(found) == len(wanted)
        for key in wanted if isinstance(wanted, dict) else range(len(wanted)):
            assert_equal(found[key], wanted[key])
    else:
        found = np.asarray(found)
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("observation", "action"), KINDS)
def test_a_module_of_torch_gives_the_actions_of_predict(tmp_path, observation, action):
    agent = small(tmp_path, ACTIONS[action], OBSERVATIONS[observation])
    module = torch.export.load(agent.export(tmp_path / "policy.pt2")).module()
    for n in (1, 7):
        batch = batch_of(OBSERVATIONS[observation], n)
        assert_equal(module(tensors(batch)), agent.predict(batch))


LOAD = """
import sys
sys.modules["whorl"] = None  # nobody can import it
import torch
print(torch.export.load(sys.argv[1]).module()(torch.tensor([[0.5, -0.5]], dtype=torch.float64)).item())
"""


def test_torch_alone_loads_it_and_nothing_in_it_is_pickled(tmp_path):
    settings = {"normalize_observation": True, "feed": {"steps": 8, "epochs": 1, "minibatches": 1}}
    agent = trained(tmp_path, Strict(spaces.Discrete(9, start=40)), **settings)
    file = agent.export(tmp_path / "new" / "file", "torch")
    done = subprocess.run([sys.executable, "-c", LOAD, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == agent.predict([0.5, -0.5])
    with zipfile.ZipFile(file) as archive:
        assert not [part for part in archive.infolist() if part.filename.endswith((".pkl", ".pt")) and part.file_size]
        about = json.loads(archive.read(next(name for name in archive.namelist() if name.endswith("whorl.json"))))
    assert about["agent"] == "ppo" and about["checkpoint"] == "step_8" and "start=40" in about["action_space"]


def test_a_mask_in_the_observation_counts(tmp_path):
    agent = trained(tmp_path, Masked(), feed={"steps": 8, "epochs": 1, "minibatches": 1})
    module = torch.export.load(agent.export(tmp_path / "policy.pt2")).module()
    batch = {"action_mask": np.eye(3, dtype=np.int8), "x": np.zeros((3, 2), np.float32)}
    assert module(tensors(batch)).tolist() == agent.predict(batch).tolist() == [1, 2, 3]


def test_onnxruntime_gives_the_actions_of_predict(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx: pip install 'whorl[onnx]'")
    agent = small(tmp_path, ACTIONS["mixed"], DICT)
    session = onnxruntime.InferenceSession(agent.export(tmp_path / "policy.onnx"))
    batch = batch_of(DICT, 5)
    first, second = batch["deep"]
    found = session.run(None, {"observation.deep.0": first, "observation.deep.1": second, "observation.x": batch["x"]})
    a, *b = found
    assert_equal({"a": a, "b": tuple(b)}, agent.predict(batch))
    assert session.get_modelmeta().custom_metadata_map["agent"] == "ppo"


def test_safetensors_holds_the_policys_tensors(tmp_path):
    agent = small(tmp_path, spaces.Discrete(2))
    with safe_open(agent.export(tmp_path / "policy.safetensors"), "pt") as file:
        assert {name: file.get_tensor(name).tolist() for name in file.keys()} == {  # noqa: SIM118
            name: tensor.tolist() for name, tensor in agent.policy.state_dict().items()
        }
        assert file.metadata()["action_space"] == "Discrete(2)"


@pytest.mark.parametrize(("agent", "env"), [("dqn", "CartPole-v1"), ("sac", "Pendulum-v1"), ("cem", "CartPole-v1")])
def test_agents_of_each_kind_of_policy(tmp_path, agent, env):
    parts = build(agent, env, num_envs=2)
    policy, env = parts.agent.policy.eval(), parts.env
    module = torch.export.load(export(policy, env, tmp_path / "policy.pt2", None, {})).module()
    batch = batch_of(env.observation_space, 6)
    actor = TrainedActor(policy, env, 6, deterministic=True, generator=torch.Generator())
    assert_equal(module(torch.as_tensor(batch)), actor(batch, True))


def test_what_cannot_be_exported_is_one_sentence_and_writes_nothing(tmp_path):
    agent = small(tmp_path, spaces.Discrete(2))
    refused(agent, "policy.txt", None, r"exported to onnx \(.onnx\), torch \(.pt2\), safetensors .*; got 'policy.txt'")
    refused(agent, "policy.pt2", "jit", "got 'jit'")
    agent.policy = Counting()
    refused(agent, "policy.pt2", None, "Counting has a memory, which a plain module has not")
    uniform = trained(tmp_path, Strict(spaces.Discrete(2)), "random")
    refused(uniform, "policy.pt2", None, "Random has no greedy action")


def refused(agent: Trained, name: str, to, words: str) -> None:
    path = agent.path / name
    with pytest.raises(BadInput, match=words):
        agent.export(path, to)
    assert not path.exists()
