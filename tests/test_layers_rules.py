"""The rules of test_layers.py on small trees written here: each breach is named, what is allowed passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_layers import (
    IMPORT_EACH,
    PPO_FILES,
    RULES,
    Tree,
    code_lines,
    compiled_at_one_door,
    feeds_answer,
    fresh,
    layers,
    named_rooms,
    no_any,
    no_circles,
    no_global_streams,
    no_pickle,
    no_private_reads,
    no_probing,
    one_level_of_agents,
    optimize_in_one_place,
    ppo_reading,
    tensordict_at_one_door,
    too_long,
)

FEEDS = {"feeds.py": "class Feed: ...\nclass Replay(Feed): ..."}
BREACHES = [
    (
        layers,
        {"agents/x.py": "from ..collectors import serial"},
        "agents/x.py imports collectors: move the shared part",
    ),
    (layers, {"agents/x.py": "import whorl.buffers.rollout as r"}, "imports buffers"),
    (layers, {"agents/x.py": "from whorl import envs"}, "imports envs"),
    (layers, {"agents/x.py": "def f():\n    from whorl.training.loops.plain import run"}, "imports training"),
    (layers, {"agents/x.py": "from importlib import import_module\nimport_module('whorl.envs')"}, "imports envs"),
    (layers, {"agents/x.py": "importlib.import_module('..envs.env', __package__)"}, "imports envs"),
    (layers, {"functional/kernels/numba_.py": "from ...batch import values"}, "imports batch"),
    (layers, {"functional/kernels/__init__.py": "from ... import batch"}, "imports batch"),
    (layers, {"feeds.py": "from .spaces import describe"}, "feeds.py imports spaces"),
    (layers, {"errors.py": "from whorl import feeds"}, "errors.py imports feeds"),
    (layers, {"transforms/reward.py": "from ..envs.env import Step"}, "imports envs"),
    (layers, {"transforms/env.py": "from ..envs.check import check_env"}, "imports envs"),
    (layers, {"training/x.py": "from whorl.apps.cli import main"}, "imports apps"),
    (layers, {"presets/ppo.py": "from whorl.training.build import build"}, "imports training"),
    (layers, {"agents/x.py": "from whorl import Agent"}, "import the module where the name is defined"),
    (layers, {"agents/x.py": "import whorl"}, "import the module where the name is defined"),
    (layers, {"helpers.py": ""}, "the table has no room 'helpers'"),
    (tensordict_at_one_door, {"nets/mlp.py": "from tensordict.nn import X"}, "only batch.py"),
    (tensordict_at_one_door, {"nets/mlp.py": "import tensordict as td"}, "only batch.py"),
    (compiled_at_one_door, {"envs/x.py": "from numba import njit"}, "envs/x.py:1 names numba's njit"),
    (compiled_at_one_door, {"buffers/x.py": "@numba.njit(cache=True)\ndef f(): ..."}, "only jit.py may"),
    (optimize_in_one_place, {"agents/x.py": "loss.mean().backward()"}, "calls loss.mean().backward"),
    (optimize_in_one_place, {"agents/x.py": "self.adam.step()"}, "calls self.adam.step"),
    (optimize_in_one_place, {"training/x.py": "agent.optimizer.step()"}, "calls agent.optimizer.step"),
    (optimize_in_one_place, {"agents/x.py": "nn.utils.clip_grad_norm_(p, 1)"}, "clip_grad_norm_"),
    (optimize_in_one_place, {"agents/x.py": "clip_grad_value_(p, 1)"}, "clip_grad_value_"),
    (one_level_of_agents, {"agents/a.py": "class A(Agent): ...", "agents/b.py": "class B(A): ..."}, "B(A) is an agent"),
    (
        one_level_of_agents,
        {"agents/a.py": "class A(Agent): ...", "agents/b.py": "from .a import A as Base\nclass B(Base): ..."},
        "agents/b.py: B(A)",
    ),
    (one_level_of_agents, {"agents/a.py": "class A(agent.Agent, Mixin): ..."}, "A(Agent, Mixin)"),
    (named_rooms, {"nets/utils.py": ""}, "'utils' says nothing"),
    (named_rooms, {"core/x.py": ""}, "'core' says nothing"),
    (named_rooms, {"agents/_common.py": ""}, "says nothing"),
    (no_pickle, {"training/x.py": "import pickle"}, "imports pickle"),
    (no_pickle, {"training/x.py": "from cloudpickle import dumps"}, "imports cloudpickle"),
    (no_pickle, {"training/x.py": "torch.load(f)"}, "calls torch.load"),
    (no_pickle, {"training/x.py": "torch.load(f, weights_only=False)"}, "calls torch.load"),
    (no_pickle, {"training/x.py": "np.load(f, allow_pickle=True)"}, "calls np.load"),
    (no_pickle, {"apps/x.py": "eval(text)"}, "calls eval"),
    (no_pickle, {"apps/x.py": "exec(text)"}, "calls exec"),
    (no_global_streams, {"nets/x.py": "np.random.rand(3)"}, "uses np.random.rand"),
    (no_global_streams, {"nets/x.py": "from numpy.random import rand"}, "uses numpy.random.rand"),
    (no_global_streams, {"nets/x.py": "torch.manual_seed(0)"}, "uses torch.manual_seed"),
    (no_global_streams, {"nets/x.py": "from torch import manual_seed"}, "uses torch.manual_seed"),
    (no_global_streams, {"nets/x.py": "torch.cuda.manual_seed_all(0)"}, "uses torch.cuda.manual_seed_all"),
    (no_global_streams, {"nets/x.py": "import random"}, "uses random"),
    (no_global_streams, {"nets/x.py": "from random import choice"}, "uses random"),
    (no_global_streams, {"nets/x.py": "with fork_rng():\n    pass\ntorch.manual_seed(0)"}, "x.py:3 uses torch.manual"),
    (no_global_streams, {"nets/x.py": "torch.randn(3)"}, "without generator="),
    (no_global_streams, {"nets/x.py": "x.exponential_()"}, "without generator="),
    (
        no_circles,
        {
            "agents/a.py": "from whorl.agents import b",
            "agents/b.py": "def f():\n    from whorl.agents.c import C",
            "agents/c.py": "import_module('whorl.agents.a')",
        },
        "whorl.agents.a and whorl.agents.b and whorl.agents.c import each other in a circle",
    ),
    (no_circles, {"nets/__init__.py": "from whorl.nets.x import X", "nets/x.py": "from whorl import nets"}, "circle"),
    (no_private_reads, {"training/x.py": "agent._seed"}, "x.py:1 reads _seed, a private part of another file"),
    (no_private_reads, {"training/x.py": "self.agent._seed = 1"}, "reads _seed"),
    (no_private_reads, {"training/x.py": "getattr(env, '_arrays')"}, "reads _arrays"),
    (no_private_reads, {"training/x.py": "from whorl.training.y import _lock"}, "reads _lock"),
    (no_private_reads, {"training/x.py": "def f(agent):\n    agent._step()"}, "x.py:2 reads _step"),
    (no_probing, {"training/x.py": "hasattr(agent.config, 'workers')"}, "probes hasattr(agent.config, 'workers')"),
    (no_probing, {"agents/x.py": "getattr(c, 'sde', False)"}, "probes getattr(c, 'sde', False)"),
    (no_probing, {"agents/x.py": "getattr(self.config.feed, 'steps', 1)"}, "let the class answer"),
    (
        feeds_answer,
        FEEDS | {"training/x.py": "from whorl.feeds import Replay\nisinstance(f, Replay)"},
        "x.py:2 asks for",
    ),
    (
        feeds_answer,
        FEEDS | {"training/x.py": "from whorl import feeds\nisinstance(f, (int, feeds.Replay))"},
        "asks for",
    ),
    (feeds_answer, FEEDS | {"training/x.py": "from whorl.feeds import Replay\ntype(f) is Replay"}, "asks for Replay"),
    (
        feeds_answer,
        FEEDS | {"training/x.py": "from whorl.feeds import Feed\nmatch f:\n    case Feed(): ..."},
        "x.py:3 asks for Feed",
    ),
    (no_any, {"buffers/x.py": "def add(rows: Any) -> None: ..."}, "x.py:1 add has Any in its signature"),
    (no_any, {"agents/x.py": "class A:\n    def f(self, *x: dict[str, Any]) -> None: ..."}, "x.py:2 f has Any"),
    (no_any, {"training/x.py": "class A:\n    def __init__(self, x: Any): ..."}, "__init__ has Any"),
    (no_any, {"collectors/x.py": "def f() -> Any: ..."}, "f has Any"),
    (too_long, {"nets/x.py": "x = 1\n" * 501}, "has 501 code lines"),
    (too_long, {"training/run.py": "x = 1\n" * 201}, "has 201 code lines, 200 are allowed"),
]


@pytest.mark.parametrize(("rule", "tree", "sentence"), BREACHES, ids=lambda v: v.__name__ if callable(v) else "")
def test_a_breach_is_named(rule, tree: Tree, sentence: str) -> None:
    assert any(sentence in found for found in rule(tree)), rule(tree)


def test_what_is_allowed_passes() -> None:
    tree = {
        "__init__.py": "from importlib import import_module\nimport_module(home)",
        "errors.py": "",
        "batch.py": "from tensordict import TensorDict\nfrom whorl.functional import returns\nfrom .errors import Bad",
        "functional/returns.py": (
            "from .kernels import eager\nfrom torch.autograd import Function\n"
            "class R(Function):\n    def backward(ctx, g): ..."
        ),
        "functional/kernels/eager.py": "",
        "envs/env.py": "",
        "transforms/env.py": "from ..envs.env import Step\nfrom ..envs import env",
        "policies/random.py": "torch.rand(3, generator=g)\nmodel.eval()\nnp.random.default_rng(0)",
        "agents/agent.py": ("from torch import nn\nclass Agent(nn.Module):\n    def f(self): self.step.eager(loss)"),
        "agents/step.py": "def f(): loss.backward(); optimizer.step(); clip_grad_norm_(p, 1)",
        "agents/random.py": (
            "from whorl.policies import random\nfrom . import agent\nclass RandomConfig: ...\n"
            "class Random(agent.Agent): ..."
        ),
        "collectors/serial.py": "self.env.step(action)\nwith torch.random.fork_rng():\n    torch.manual_seed(0)",
        "training/run.py": "from whorl.presets.ppo import PRESETS\ntorch.load(f, weights_only=True)",
        "apps/cli.py": "import whorl\nfrom whorl import train\nfrom ..training import run\nfrom ..presets import ppo",
    }
    tree |= FEEDS | {
        "buffers/ring.py": (
            "class Ring:\n    def __init__(self, rows: int): self._rows = rows\n"
            "    def __eq__(self, other: object): return self._rows == other._rows\n"
            "    def _inner(self, x: Any): ...\nring._rows\nrow._replace(a=1)\ntorch._foreach_mul_(x, 2)\nx.__class__"
        ),
        "training/build.py": (
            "from whorl.feeds import Replay\nfrom whorl.buffers.ring import Ring\nReplay()\nisinstance(x, Ring)\n"
            "getattr(config, name)\nhasattr(env, 'close')\nclass _P:\n    def f(self, x: Any): ..."
        ),
    }
    assert [breach for rule in RULES for breach in rule(tree)] == []


def test_code_lines_are_neither_blank_nor_prose() -> None:
    prose = '"""Doc\n\nmore."""\n\n# why\n\n'
    value = 'x = """a\n\nb"""  # a value counts\n'
    function = 'def f():\n    """Doc."""\n\n    return (\n        x\n    )\n'
    assert [code_lines(text) for text in (prose, value, function)] == [0, 3, 4]


def test_ppo_reading_counts_the_maths_it_imports() -> None:
    maths = ["functional/returns.py", "functional/divergences.py"]
    tree = dict.fromkeys([*PPO_FILES, *maths, "functional/traces.py"], "x = 1\ny = 2\n")
    tree["functional/divergences.py"] = "def kl(p, q):\n    return 0\n"
    tree["functional/__init__.py"] = "from .divergences import kl\n"
    tree["agents/ppo.py"] = "from ..functional.returns import gae\nfrom whorl.functional import kl\n"
    assert ppo_reading(tree) == dict.fromkeys([*PPO_FILES, *maths], 2)


def test_a_heavy_import_is_named(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    for name, source in {"light": "", "extra": "import no_such_library", "heavy": "import torch"}.items():
        (tmp_path / f"{name}.py").write_text(source)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + IMPORT_EACH
    assert fresh(code, "light", "extra", "heavy") == ["importing heavy brings torch along"]
