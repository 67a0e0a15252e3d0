"""Unequal shapes are refused by name, everywhere in `functional`; and the check costs compiled code nothing."""

from __future__ import annotations

import pytest
import torch

from whorl import functional as F
from whorl.errors import BatchError

TN, OTHER = torch.zeros(3, 1), torch.zeros(3, 1, 2)  # would broadcast without a word: N = 1 against a team of 2
FLAG, TEAM_FLAG = TN.bool(), OTHER.bool()


def test_equal_shapes_pass():
    F.same_shape(reward=TN, value=TN + 1, terminated=FLAG)


def test_the_message_names_both_and_says_what_to_do():
    with pytest.raises(BatchError) as error:
        F.same_shape(reward=TN, value=TN, terminated=OTHER)
    assert str(error.value) == (
        "reward has shape [3, 1], but terminated has shape [3, 1, 2]: they must be equal. "
        "Nothing is broadcast here; expand, or squeeze a trailing 1, where terminated is made"
    )
    assert isinstance(error.value, ValueError)


REFUSED = {
    "gae": lambda: F.gae(OTHER, OTHER, OTHER, FLAG, FLAG, 0.9, 0.9),
    "gae, value": lambda: F.gae(TN, OTHER, TN, FLAG, FLAG, 0.9, 0.9),
    "gae, discount": lambda: F.gae(TN, TN, TN, FLAG, FLAG, torch.ones(3), 0.9),
    "vtrace": lambda: F.vtrace(OTHER, TN, TN, TN, FLAG, FLAG, 0.9),
    "discounted_return": lambda: F.discounted_return(TN, OTHER, FLAG, FLAG, 0.9),
    "reward_to_go": lambda: F.reward_to_go(TN, FLAG, TEAM_FLAG, 0.9),
    "n_step_return": lambda: F.n_step_return(TN, TN, TEAM_FLAG, FLAG, 0.9, 2),
    "lambda_return": lambda: F.lambda_return(TN, TN, FLAG, FLAG, torch.ones(()), 0.9),
    "recurrence": lambda: F.recurrence(TN, OTHER),
    "recurrence, final": lambda: F.recurrence(TN, TN, torch.zeros(3)),
    "standardise": lambda: F.standardise(OTHER, FLAG),
    "score_function": lambda: F.score_function(TN, OTHER),
    "clipped_surrogate": lambda: F.clipped_surrogate(TN, TN, OTHER, 0.2),
    "value_loss": lambda: F.value_loss(TN, TN.squeeze()),
    "clipped_value_loss": lambda: F.clipped_value_loss(TN, OTHER, TN, 0.2),
    "categorical_kl": lambda: F.categorical_kl(TN, OTHER),
    "gaussian_kl": lambda: F.gaussian_kl(TN, torch.zeros(1), TN, TN),
    "masked_mean": lambda: F.masked_mean(TN, TEAM_FLAG),
    "explained_variance": lambda: F.explained_variance(TN, OTHER),
    "merge_moments": lambda: F.merge_moments(TN, TN, torch.ones(()), TN, OTHER, torch.ones(())),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED.keys())
def test_nothing_broadcasts(call):
    with pytest.raises(BatchError, match="has shape .* but .* has shape .* must be equal"):
        call()


@pytest.mark.parametrize("name", ["terminated", "truncated"])
def test_flags_are_bool(name):
    flags = {"terminated": FLAG, "truncated": FLAG, name: TN}
    with pytest.raises(BatchError, match=f"{name} has dtype torch.float32, expected torch.bool"):
        F.gae(TN, TN, TN, **flags, discount=0.9, trace_decay=0.9)


def test_the_check_leaves_no_trace_in_a_graph():
    graphs = []

    def keep(module, _):
        graphs.append([node.op for node in module.graph.nodes])
        return module

    def checked(a, b):
        F.same_shape(a=a, b=b)
        return a * b

    compiled = torch.compile(checked, fullgraph=True, backend=keep)
    assert torch.equal(compiled(TN + 2, TN + 3), TN + 6)
    assert graphs == [["placeholder", "placeholder", "call_function", "output"]]
