"""What a process imports for what it does, and that torch's compiler, when it comes late, knows what it has to know."""

import os
import subprocess
import sys

import torch

from whorl import dynamo

RUN = """
import sys
from whorl.apps.cli import main

def heavy(*names):
    return sorted(set(names) & set(sys.modules))

main(["list", "agents"])
print(heavy("torch", "tensordict", "numba", "matplotlib", "imageio", "tensorboard"))

train = ["train", "ppo", "CartPole-v1", "--runs", sys.argv[1], "--name", "run", "--num-envs", "2", "--total-steps", "256", "--quiet"]
import whorl.apps.commands
print(heavy("torch._dynamo", "sympy", "matplotlib", "imageio", "tensorboard", "onnx", "wandb", "uvicorn"))
main([*train, "--eval-episodes", "1"])
main(["eval", sys.argv[1] + "/CartPole-v1/ppo/run", "--episodes", "1"])
print(heavy("torch._dynamo", "torch._inductor", "sympy", "imageio", "onnx", "wandb", "uvicorn", "matplotlib.pyplot"))

import importlib.util
import torch
from whorl.batch import make

importlib.util.find_spec("torch._dynamo")  # who only asks whether it is there has not imported it

def locked(x):
    return make({"a": x}, (3,)).lock_()["a"].sum()

def mapped(x):
    return torch.vmap(lambda row: row["a"] * 2)(make({"a": x}, (3,)))

for function in (locked, mapped):
    print(torch.compile(function, fullgraph=True, backend="eager")(torch.ones(3)).sum().item())
"""


def test_a_run_leaves_the_compiler_out_and_who_compiles_a_batch_has_it_whole(tmp_path):
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert [line for line in lines if line.startswith("[")] == ["[]", "[]", "[]"]
    assert lines[-2:] == ["3.0", "6.0"]


def test_what_it_makes_is_an_optimizer_like_any_other():
    parameters = [torch.nn.Parameter(torch.ones(2))]
    for kind in (torch.optim.Adam, torch.optim.RMSprop):
        made, plain = dynamo.make(kind, parameters, lr=0.1), kind(parameters, lr=0.1)
        assert type(made) is kind and made.param_groups == plain.param_groups
        assert vars(made).keys() == vars(plain).keys()
