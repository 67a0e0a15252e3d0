"""The vocabulary: check names the fault and the writer; values, rename, TorchRL's layout."""

import pytest
import torch
from tensordict import TensorDict

from tests import seeds
from whorl import batch
from whorl.errors import BatchError


def rollout(T=5, N=3, mask=False):
    g = torch.Generator().manual_seed(seeds.seed(0))
    ended = torch.rand(T, N, generator=g) < 0.4
    terminated = ended & (torch.rand(T, N, generator=g) < 0.5)
    observation, successor = torch.rand(T, N, 2, generator=g), torch.rand(T, N, 2, generator=g)
    for t in range(T - 1):  # the next row's observation is the successor wherever the episode goes on
        successor[t][~ended[t]] = observation[t + 1][~ended[t]]
    entries = {
        "observation": observation,
        "is_first": torch.zeros(T, N, dtype=torch.bool),
        "action": torch.zeros(T, N, dtype=torch.int64),
        "log_prob": torch.rand(T, N, generator=g),
        "foreign": torch.rand(T, N, 7),
        "next": {
            "observation": successor,
            "reward": torch.rand(T, N, generator=g),
            "terminated": terminated,
            "truncated": ended & ~terminated,
        },
    }
    if mask:
        entries["mask"] = torch.rand(T, N, generator=g) < 0.7
    return batch.make(entries, (T, N))


def test_check_passes_and_names_what_is_wrong():
    good = rollout()
    batch.check(good, "observation", "is_first", "log_prob", "next.reward", "next.terminated", "next.truncated")
    with pytest.raises(BatchError, match="no 'advantage'; `agent.prepare` writes it. It has observation"):
        batch.check(good, "advantage")
    good["next", "reward"] = good["next", "reward"].double()
    with pytest.raises(
        BatchError, match="'next.reward' has dtype torch.float64, expected torch.float32; the environment writes it"
    ):
        batch.check(good, "next.reward")
    good["next", "reward"] = torch.zeros(5, 3, 1)
    with pytest.raises(BatchError, match=r"shape \[5, 3, 1\], expected \[5, 3\] \(no trailing 1: squeeze it\)"):
        batch.check(good, "next.reward")
    good["next", "reward"] = torch.zeros(5, 3, 4)
    batch.check(good, "next.reward", team=4)
    with pytest.raises(BatchError, match=r"expected \[5, 3, 2\]"):
        batch.check(good, "next.reward", team=2)


@pytest.mark.parametrize("mask", [False, True])
def test_values_equals_evaluating_everywhere_with_fewer_rows(mask):
    r, seen = rollout(T=40, N=6, mask=mask), []

    def f(x):
        seen.append(x[..., 0].numel())
        return x.sum(-1)

    value, next_value = batch.values(f, r)
    torch.testing.assert_close(value, r["observation"].sum(-1), rtol=0, atol=0)
    torch.testing.assert_close(next_value, r["next", "observation"].sum(-1), rtol=0, atol=0)
    assert seen[0] == 240 and 0 < seen[1] < 240


def test_values_of_one_row():
    r = rollout(T=1, N=4)
    _, next_value = batch.values(lambda x: x.sum(-1), r)
    torch.testing.assert_close(next_value, r["next", "observation"].sum(-1))


def test_values_of_a_nested_observation():
    r = rollout()
    nested = batch.make({"a": r["observation"], "b": {"c": r["observation"]}}, (5, 3))
    nested_next = batch.make({"a": r["next", "observation"], "b": {"c": r["next", "observation"]}}, (5, 3))
    deep = batch.make({"observation": nested, "next": r["next"].clone()}, (5, 3))
    deep["next", "observation"] = nested_next
    f = lambda x: x["a"].sum(-1) + x["b"]["c"].sum(-1)  # noqa: E731
    _, next_value = batch.values(f, deep)
    torch.testing.assert_close(next_value, 2 * r["next", "observation"].sum(-1))


def test_rename_moves_keys_and_refuses_what_it_cannot():
    foreign = batch.make({"obs": torch.ones(2, 3), "r": torch.zeros(2), "kept": torch.ones(2)}, (2,))
    ours = batch.rename(foreign, {"obs": "observation", "r": "next.reward"})
    assert sorted(batch.names(ours)) == ["kept", "next.reward", "observation"]
    assert ours["observation"] is foreign["obs"] or torch.equal(ours["observation"], foreign["obs"])
    assert sorted(batch.names(foreign)) == ["kept", "obs", "r"]
    swapped = batch.rename(foreign, {"obs": "kept", "kept": "obs"})
    assert torch.equal(swapped["kept"], foreign["obs"]) and torch.equal(swapped["obs"], foreign["kept"])
    with pytest.raises(BatchError, match="cannot rename 'missing': the batch has obs, r, kept"):
        batch.rename(foreign, {"missing": "observation"})
    with pytest.raises(BatchError, match="cannot rename 'obs' to 'kept': that name is taken"):
        batch.rename(foreign, {"obs": "kept"})


def test_torchrl_layout_and_back():
    ours = rollout(mask=True)
    theirs = batch.to_torchrl(ours)
    assert theirs.batch_size == (3, 5)
    assert theirs["next", "reward"].shape == (3, 5, 1)
    assert theirs["action_log_prob"].shape == (3, 5)
    assert theirs["collector", "mask"].shape == (3, 5)
    ended = (ours["next", "terminated"] | ours["next", "truncated"]).T.unsqueeze(-1)
    assert torch.equal(theirs["next", "done"], ended)
    assert not theirs["done"].any()
    back = batch.from_torchrl(theirs)
    assert back.batch_size == (5, 3)
    assert sorted(batch.names(back)) == sorted(batch.names(ours))
    for name in batch.names(ours):
        assert torch.equal(batch.get(back, name), batch.get(ours, name)), name


def test_unknown_keys_are_carried():
    assert torch.equal(batch.from_torchrl(batch.to_torchrl(rollout()))["foreign"].isfinite().all(), torch.tensor(True))
    assert isinstance(rollout(), TensorDict)
