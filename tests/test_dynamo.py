"""What a process imports for what it does, and that torch's compiler, when it comes late, knows what it has to know."""

import subprocess
import sys

import torch

from whorl import dynamo

RUN = """
import gc
import importlib.util
import sys

from whorl.apps.cli import main

def heavy(*names):
    return sorted({*names, "torch._dynamo", "torch._inductor", "sympy", "onnx", "imageio", "wandb", "uvicorn"} & set(sys.modules))

runs = sys.argv[1]
sys.argv = ["whorl", "list", "agents"]
main()
assert not heavy("torch", "tensordict", "numba", "matplotlib", "tensorboard"), heavy()
frozen = gc.get_freeze_count()
assert frozen and gc.isenabled(), "a program of its own looks for no garbage in what it has imported"

import whorl.apps.commands
assert not heavy("matplotlib", "tensorboard", "PIL"), heavy()
main(["train", "ppo", "CartPole-v1", "--runs", runs, "--name", "run", "--num-envs", "2", "--total-steps", "256", "--eval-episodes", "1"])
main(["eval", runs + "/CartPole-v1/ppo/run", "--episodes", "1"])
assert not heavy("matplotlib"), heavy()
assert gc.get_freeze_count() <= frozen, "a caller's garbage is the caller's"

import torch
from whorl.batch import make

importlib.util.find_spec("torch._dynamo")  # who only asks whether it is there has not imported it

def locked(x):
    return make({"a": x}, (3,)).lock_()["a"].sum()

def mapped(x):
    return torch.vmap(lambda row: row["a"] * 2)(make({"a": x}, (3,))).sum()

for function in (locked, mapped):
    print(torch.compile(function, fullgraph=True, backend="eager")(torch.ones(3)).item())
"""


def test_a_run_leaves_the_compiler_out_and_who_compiles_a_batch_has_it_whole(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", RUN, str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-2:] == ["3.0", "6.0"]


def test_what_it_makes_is_an_optimizer_like_any_other():
    parameters = [torch.nn.Parameter(torch.ones(2))]
    for kind in (torch.optim.Adam, torch.optim.RMSprop):
        made, plain = dynamo.make(kind, parameters, lr=0.1), kind(parameters, lr=0.1)
        assert type(made) is kind and made.param_groups == plain.param_groups
        assert vars(made).keys() == vars(plain).keys()
