"""Advice as it is typed."""

import pytest

from whorl.apps.shell import in_shell

LOAD = "whorl.load(path, {0}) or whorl.resume(path, {0})"


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ("got [-1, inf]; use squash=False", "got [-1, inf]; use --agent.no-squash"),
        ("leave compile=True out", "leave --compile out"),
        ("use relabel='none'", "use --agent.feed.relabel none"),
        ("or use feed.prioritized=False", "or use --agent.feed.no-prioritized"),
        ("it was started with checkpoint_every=0", "it was started with --checkpoint-every 0"),
        ("one native world, num_envs=1; got", "one native world, --num-envs 1; got"),
        ("train it anew with init_from='runs/a'", "train it anew with --init-from runs/a"),
        ("such as device='cuda:0'", "such as --device cuda:0"),
        ("pass it, " + LOAD.format("encoder=Torso"), "pass it, --encoder MODULE:Torso"),
        ("pass it, " + LOAD.format("agent=Mine"), "pass it, from Python, " + LOAD.format("agent=Mine")),
        ("name it, " + LOAD.format("env=URL") + ", --env URL on the command line", "name it, --env URL"),
        ("pass them, wrappers=[...]", "pass them from Python, wrappers=[...]"),
        ("pass it yourself, env_kwargs={'size': ...}", "pass it yourself, --env.size VALUE"),
        # what is no option stays as it is
        ("a stack has at least 1 frame, got stack=0", "a stack has at least 1 frame, got stack=0"),
        ("feed.storage = 'frames' keeps", "feed.storage = 'frames' keeps"),
        ("http://host/x?seed=3, --grid std=fixed", "http://host/x?seed=3, --grid std=fixed"),
    ],
)
def test_advice_for_the_shell(python, shell):
    assert in_shell(python) == shell


def test_fields_of_a_sweep_stand_in_its_grid():
    assert in_shell("use squash=False", sweep=True) == "use --grid squash=False"
    assert in_shell("one will do: {'feed.steps': [8]}", sweep=True) == "one will do: --grid feed.steps=8"
