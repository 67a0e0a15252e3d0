"""Policy-gradient agents with a memory, and actors and critics on one torso: along sequences as step by step, exact resume, refusals."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

import whorl
from tests.agents.test_images import EYE
from whorl.agents.a2c import A2C, A2CConfig
from whorl.agents.parts import looked
from whorl.agents.ppo import PPO, PPOConfig
from whorl.batch import make, values
from whorl.buffers.rollout import RolloutBuffer
from whorl.errors import BadInput, Incompatible
from whorl.feeds import Rollouts
from whorl.options import override
from whorl.training.build import build
from whorl.training.catalog import default_config

CELLS = ["gru", "lstm"]


def parts_of(agent="ppo", env="RepeatPrevious-v0", num_envs=4, **fields):
    fields = {"memory": "gru", "memory_width": 8, "feed": {"steps": 32, "minibatches": 1, "epochs": 1}} | fields
    config = override(default_config(agent), fields)
    return build(agent, env, config, num_envs=num_envs)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("agent", ["ppo", "a2c", "impala"])
def test_a_sequence_is_what_was_done_step_by_step(agent, cell):
    """Log-probabilities and values of a rollout, in which episodes begin at any row, are those that were recorded while acting."""
    parts = parts_of(agent, "CartPoleP-v1", memory=cell)
    for _ in range(2):
        rollout = parts.collector.collect()
    assert rollout["is_first"][1:].any(1).sum() > 3 and rollout["recurrent_state"].shape == (
        32,
        4,
        8 if cell == "gru" else 16,
    )
    distribution, value = looked(parts.agent, rollout)
    torch.testing.assert_close(distribution.log_prob(rollout["action"]), rollout["log_prob"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(value, rollout["value"], atol=1e-6, rtol=1e-5)
    assert (rollout["recurrent_state"][rollout["is_first"]] == 0).all()


def test_values_of_successors():
    """As if the episode had gone on: against the memory, one row at a time."""
    parts = parts_of("ppo", "CartPoleP-v1")
    parts.collector.collect()
    rollout, agent = parts.collector.collect(), parts.agent
    memory = agent.policy.encoder
    _, next_value = values(agent.value, rollout, lambda rows: agent.critic(agent.policy.later(rows)))
    with torch.no_grad():
        for t in range(32):
            after = memory.step(rollout["observation"][t], rollout["recurrent_state"][t])
            there = memory.features(memory.step(rollout["next", "observation"][t], after))
            torch.testing.assert_close(next_value[t], agent.critic(there), atol=1e-5, rtol=1e-5)


def test_sequences_of_a_rollout():
    rows = make({"t": torch.arange(8)[:, None].expand(8, 3), "n": torch.arange(3).expand(8, 3)}, (8, 3))
    buffer = RolloutBuffer(Rollouts(steps=8, sequence=4, epochs=2, minibatches=3), 0, 4)
    buffer.add(rows)
    batches = list(buffer.batches())
    assert [tuple(b.batch_size) for b in batches] == [(4, 2)] * 6
    for epoch in (batches[:3], batches[3:]):
        found = sorted((int(b["t"][0, i]), int(b["n"][0, i])) for b in epoch for i in range(2))
        assert found == [(t, n) for t in (0, 4) for n in range(3)]
    for b in batches:
        assert (b["t"] - b["t"][0] == torch.arange(4)[:, None]).all() and (b["n"] == b["n"][0]).all()
    whole = RolloutBuffer(Rollouts(steps=8), 0, 8)
    whole.add(rows)
    assert torch.equal(next(whole.batches())["t"], rows["t"])


def test_a_killed_run_with_memory_goes_on_to_the_same_bits(tmp_path):
    options = {
        "agent": "ppo",
        "env": "TMaze20-v0",
        "num_envs": 4,
        "quiet": True,
        "eval_every": 0,
        "logger": "none",
        "runs": tmp_path,
    }
    options |= {"memory_width": 8, "checkpoint_every": 256, "feed": {"steps": 64, "minibatches": 2}}
    whole = whorl.train(**options, total_steps=1024)
    part = whorl.train(**options, total_steps=512)
    part = whorl.resume(part.path, 1024, quiet=True)
    for (name, one), other in zip(whole.agent.state_dict().items(), part.agent.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_rows_that_do_not_count_are_left_out():
    parts = parts_of("ppo", feed={"steps": 16, "minibatches": 1, "epochs": 1})
    rollout = parts.collector.collect()
    batch = parts.agent.prepare(rollout)
    mask = torch.ones(16, 4, dtype=torch.bool)
    mask[5, 2] = False
    losses = []
    for advantage in (0.0, 100.0):
        changed = batch.clone()
        changed["mask"], changed["advantage"][5, 2] = mask, advantage
        losses.append(parts.agent.loss(changed)[0].item())
    assert losses[0] == losses[1]


def test_v_trace_takes_the_values_of_the_policy_that_learns():
    """Of a rollout by an older one: what was recorded does not count."""
    parts = parts_of("impala")
    rollout = parts.collector.collect()
    fresh = parts.agent.prepare(rollout.clone())["advantage"]
    rollout["value"] += 100.0
    assert torch.equal(parts.agent.prepare(rollout)["advantage"], fresh)


@pytest.mark.parametrize("agent", [PPO, A2C])
def test_images_share_one_torso(agent):
    """Both losses reach it, it is there once, and values are recorded while acting."""
    config = {PPO: PPOConfig, A2C: A2CConfig}[agent]()
    one = agent.build(EYE, spaces.Discrete(2), config)
    apart = agent.build(EYE, spaces.Discrete(2), override(config, {"shared": False}))
    count = lambda agent: sum(p.numel() for p in agent.parameters())  # noqa: E731
    assert one.critic is one.policy.critic and count(apart) > 1.9 * count(one)
    observation = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (5, 36, 36, 1), np.uint8))
    decided, carry = one.policy.act(observation, None, torch.ones(5, dtype=torch.bool), None)
    assert carry is None
    torch.testing.assert_close(decided["value"], one.value(observation))


def test_vectors_share_one_torso_where_asked_for():
    parts = parts_of("ppo", "CartPole-v1", memory="none", shared=True)
    assert parts.update == "eager" and "value" in parts.collector.collect().keys()  # noqa: SIM118
    parts.train(2000)


@pytest.mark.parametrize(
    ("agent", "fields", "error", "says"),
    [
        ("ppo", {"feed": {"steps": 32, "sequence": 5}}, BadInput, "feed.sequence = 5 must divide feed.steps = 32"),
        ("ppo", {"feed": {"steps": 32, "minibatches": 8}}, BadInput, "feed.minibatches = 8 is more than the rollout's 4 sequences"),
        ("ppo", {"memory": "none", "feed": {"steps": 32, "sequence": 8}}, BadInput, "feed.sequence = 8 is for agents with a memory"),
        ("ppo", {"shared": False}, BadInput, "shared = False, and actor and critic share their memory"),
        ("ppo", {"memory": "rnn"}, BadInput, "memory"),
        ("a3c", {}, Incompatible, "A3C's workers learn from single rows"),
    ],
)  # fmt: skip
def test_what_cannot_be(agent, fields, error, says):
    with pytest.raises(error, match=says):
        config = override(default_config(agent), {"memory": "gru", **fields})
        build(agent, "RepeatPrevious-v0", config, num_envs=4)


@pytest.mark.parametrize("agent", ["trpo", "reinforce", "cem"])
def test_agents_without_memory_say_so(agent):
    with pytest.raises(BadInput, match="has no option 'memory'"):
        override(default_config(agent), {"memory": "gru"})


def test_compiled_steps_have_no_memory():
    with pytest.raises(BadInput, match="a memory stops where episodes happen to begin"):
        build("ppo", "TMaze20-v0", num_envs=4, update="compiled")
