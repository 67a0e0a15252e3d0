"""Replay agents with memories: losses along sequences against one row at a time, burn-in, n-step returns, exact resume, refusals."""

from dataclasses import replace

import pytest
import torch

import whorl
from whorl.agents.recall import after, here, learned_rows, td_along
from whorl.batch import make
from whorl.errors import BadInput, Incompatible
from whorl.feeds import Sequences
from whorl.functional.bellman import rescaled, unrescaled
from whorl.nets.rnn import memory_of
from whorl.options import override
from whorl.training.build import build
from whorl.training.catalog import default_config, find

L, B, BURN = 6, 3, 2


def test_rescaled_values_by_hand():
    x = torch.tensor([3.0, -8.0, 0.0, 99.0], dtype=torch.float64)
    expected = [1 + 0.003, -2 - 0.008, 0.0, 9 + 0.099]
    torch.testing.assert_close(rescaled(x), torch.tensor(expected, dtype=torch.float64))
    for value in (1e-3, 1.0, 1e4, 1e8):
        x = torch.tensor([value, -value], dtype=torch.float64)
        torch.testing.assert_close(unrescaled(rescaled(x)), x, rtol=1e-9, atol=0)


def agent_of(name="dqn", env="CartPoleP-v1", **fields):
    feed = {"length": L - BURN, "burn_in": BURN, "batch_size": B, "capacity": 400, "replay_ratio": 0.25, "warmup": 40}
    config = (
        find(name, "RepeatPrevious-v0").config if name == "dqn" else replace(default_config(name), feed=Sequences())
    )
    config = override(config, {"memory": "gru", "memory_width": 8, "hidden": (8,), "feed": feed, **fields})
    return build(name, env, config, num_envs=4, update="eager")


def batch_of(parts):
    while True:
        parts.buffer.add(parts.agent.prepare(parts.collector.collect()))
        found = [batch.clone() for batch in parts.buffer.batches()]
        if found and found[0]["is_first"][1:].any():
            return found[0]


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_along_a_sequence_as_row_by_row(cell):
    parts = agent_of(memory=cell)
    agent, batch = parts.agent, batch_of(parts)
    memory, ends = memory_of(agent.policy.q), batch["next", "terminated"] | batch["next", "truncated"]
    seen, later = here(agent, agent.policy.q, batch), after(agent, agent.policy.q, batch)
    state = batch["recurrent_state"][0]
    with torch.no_grad():
        for t in range(L):
            begins = batch["is_first"][t] | (ends[t - 1] if t else False)
            state = memory.step(batch["observation"][t], state * ~begins.unsqueeze(-1))
            if t >= BURN:
                torch.testing.assert_close(seen[t - BURN], memory.features(state), atol=1e-6, rtol=1e-5)
                there = memory.features(memory.step(batch["next", "observation"][t], state))
                torch.testing.assert_close(later[t - BURN], there, atol=1e-6, rtol=1e-5)


def test_what_acted_is_what_is_recalled():
    """Of the newest rows: the q-values of a sequence choose the actions that were taken."""
    parts = agent_of(epsilon=0.0, epsilon_min=0.0)
    batch = batch_of(parts)
    q = parts.agent.policy.q(here(parts.agent, parts.agent.policy.q, batch))
    assert torch.equal(q.argmax(-1), learned_rows(parts.agent, batch)["action"])


def test_the_burn_in_has_no_gradient_and_no_loss():
    parts = agent_of()
    agent, batch = parts.agent, batch_of(parts)
    loss, metrics = agent.loss(batch)
    assert metrics["priority"].shape == (L - BURN, B)
    changed = batch.clone()
    changed["next", "reward"][:BURN] += 5.0
    assert torch.equal(agent.loss(changed)[0], loss)
    observation = batch["observation"].clone().requires_grad_()
    batch["observation"] = observation
    agent.loss(batch)[0].backward()
    assert (observation.grad[:BURN] == 0).all() and (observation.grad[BURN:] != 0).any()


def test_n_step_returns_by_hand():
    """They end with an episode, at a lost row's successor, and with the sequence."""
    agent = agent_of(
        discount=0.5, feed={"length": 4, "burn_in": 0, "batch_size": 2, "n_step": 3, "capacity": 400, "warmup": 9}
    ).agent
    flags = torch.tensor([[0, 0], [1, 0], [0, 0], [0, 0]], dtype=torch.bool)
    first = torch.tensor([[1, 0], [0, 0], [1, 0], [0, 1]], dtype=torch.bool)
    next = {"reward": torch.ones(4, 2), "terminated": flags, "truncated": flags & False}
    rows = make({"is_first": first, "next": next}, (4, 2))
    value = torch.full((4, 2), 8.0)
    expected = [
        [1.5, 1 + 0.5 + 0.25 + 8 / 8],
        [1.0, 1 + 0.5 + 8 / 4],
        [1 + 0.5 + 8 / 4, 1 + 8 / 2],
        [1 + 8 / 2, 1 + 8 / 2],
    ]
    assert td_along(agent, rows, value, 0.5).tolist() == expected


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    options = {
        "agent": "dqn",
        "env": "RepeatPrevious-v0",
        "num_envs": 4,
        "quiet": True,
        "eval_every": 0,
        "logger": "none",
        "runs": tmp_path,
    }
    options |= {
        "memory_width": 8,
        "checkpoint_every": 1000,
        "feed": {"capacity": 800, "warmup": 400, "replay_ratio": 0.05},
    }
    whole = whorl.train(**options, total_steps=4000)
    part = whorl.resume(whorl.train(**options, total_steps=2000).path, 4000, quiet=True)
    for (name, one), other in zip(whole.agent.state_dict().items(), part.agent.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_actors_and_critics_remember_for_themselves(name):
    parts = agent_of(name, "Pendulum-v1")
    agent = parts.agent
    actor, critic = memory_of(agent.policy), memory_of(agent.critic)
    assert actor is not critic and memory_of(agent.target) is not None
    before = [p.clone() for p in (actor.rnn.weight_hh_l0, critic.rnn.weight_hh_l0)]
    parts.train(400)
    assert all(
        not torch.equal(a, b) for a, b in zip(before, (actor.rnn.weight_hh_l0, critic.rnn.weight_hh_l0), strict=True)
    )


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"memory": "none"}, BadInput, "feed.burn_in = 2 rows warm a memory up, and DQN has none here"),
        ({"memory": "rnn"}, BadInput, "memory"),
    ],
)
def test_what_cannot_be(fields, error, says):
    with pytest.raises(error, match=says):
        agent_of(**fields)


def test_single_rows_and_hindsight_have_no_memory():
    for env, also in (("CartPoleP-v1", ""), ("BitFlipping15-v0", "relabelled goals need single rows")):
        config = override(find("dqn", env).config, {"memory": "gru"})
        with pytest.raises(
            Incompatible, match=f"a memory learns along sequences, and Replay draws single rows.*{also}"
        ):
            build("dqn", env, config, num_envs=2)
