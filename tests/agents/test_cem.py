"""The cross-entropy method and its population: the refit by hand, whose member acts when, exact resume, what it refuses."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

import whorl
from tests.training.fingerprint import fingerprint
from whorl import batch
from whorl.agents.cem import CEM, CEMConfig
from whorl.errors import BadInput, Incompatible, NotFinite
from whorl.feeds import Rollouts
from whorl.options import override
from whorl.policies.population import Population
from whorl.training.build import build

BOX = spaces.Box(-1, 1, (3,), np.float32)
ACTIONS = {"discrete": spaces.Discrete(3), "box": spaces.Box(-1, 1, (2,), np.float32)}


def parts(env="CartPole-v1", num_envs=10, **fields):
    return build("cem", env, override(CEMConfig(), fields), num_envs=num_envs, seed=0)


# -- the refit -------------------------------------------------------------------------------------------------------


def test_refit_by_hand():
    """Elite .4 of 5: the members with returns 9 and 7, (1, 4) and (3, 0): mean (2, 2), variance (1, 4)."""
    policy = Population(spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (1,)))  # one weight, one bias
    agent = CEM(policy, CEMConfig(elite=0.4, extra_std=2.0, extra_iterations=2))
    members = torch.tensor([[5.0, 5], [1, 4], [9, 9], [3, 0], [8, 8]])
    rows = batch.make({"parameters": members, "return": torch.tensor([1.0, 9, -3, 7, 6])}, (5,))
    expected = [(1 + 4, 4 + 4), (1 + 2, 4 + 2), (1, 4), (1, 4)]  # extra variance 4, falling to 0 over two iterations
    for k, (first, second) in enumerate(expected):
        metrics = agent.update(rows)
        assert policy.mean.tolist() == [2, 2]
        assert policy.std.tolist() == pytest.approx([first**0.5, second**0.5])
        assert metrics["return"] == 4 and metrics["elite_return"] == 8 and metrics["elite_threshold"] == 7
        assert metrics["std"].item() == pytest.approx((first**0.5 + second**0.5) / 2)
        assert metrics["extra_std"].item() == pytest.approx(max(0.0, 4 - 2 * k) ** 0.5)
    assert int(agent.iteration) == 4


def test_no_extra_noise():
    agent = parts(extra_iterations=0, extra_std=5.0).agent
    members = torch.randn(10, len(agent.policy.mean), generator=torch.Generator().manual_seed(0))
    agent.update(batch.make({"parameters": members, "return": torch.arange(10.0)}, (10,)))
    torch.testing.assert_close(agent.policy.std, members[8:].std(0, correction=0))


def test_an_episode_is_one_row():
    """Its undiscounted return, and the member that played it; steps spent waiting for the others do not count."""
    p = parts()
    rollout = p.collector.collect()
    rows = p.agent.prepare(rollout)
    assert rows.batch_size == (10,)
    assert rows["return"].tolist() == rollout["mask"].sum(0).tolist()  # CartPole: 1 for each step
    assert sorted(rows["return"].tolist()) == sorted(e.ret for e in p.collector.episodes)
    assert torch.equal(rows["parameters"], rollout["parameters"][0])
    assert len({tuple(member) for member in rows["parameters"].tolist()}) == 10
    assert int(p.agent.env_steps) == int(rollout["mask"].sum()) == p.collector.steps


def test_a_larger_feed_plays_more_members():
    p = parts(feed={"steps": 60}, num_envs=4)
    rollout = p.collector.collect()
    rows = p.agent.prepare(rollout)
    assert rows.batch_size[0] == len(p.collector.episodes) > 4
    assert sorted(rows["return"].tolist()) == sorted(e.ret for e in p.collector.episodes)
    assert len({tuple(member) for member in rows["parameters"].tolist()}) == rows.batch_size[0]


def test_masked_rows_never_count():
    def learn(garbage):
        p = parts(num_envs=6, normalize_observation=True, elite=0.5)
        rollout = p.collector.collect()
        rollout["next", "terminated"][3] = True
        rollout["mask"][4:] = False
        rollout["next", "reward"][4] = rollout["observation"][4] = rollout["parameters"][4] = garbage
        p.buffer.add(p.agent.prepare(rollout))
        p.agent.learn(p.buffer)
        return torch.cat([v.double().flatten() for v in p.agent.state_dict().values()])

    assert torch.equal(learn(0.0), learn(1000.0))


# -- the population --------------------------------------------------------------------------------------------------


def test_the_member_of_an_environment_stays_for_an_episode():
    policy = Population(BOX, ACTIONS["discrete"], std=2.0)
    policy.mean.fill_(1.0)
    actor, carry = policy.actor(4), policy.initial(4)
    noise = policy.noise((5, 4), torch.Generator().manual_seed(0)).numpy()
    firsts = np.array([[1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 1]], bool)
    current = np.zeros_like(noise[0])
    for first, n in zip(firsts, noise, strict=True):
        decided, carry = actor(np.zeros((4, 3), np.float32), carry, first, n)
        current[first] = (1 + 2 * n)[first]
        np.testing.assert_allclose(decided["parameters"], current, rtol=1e-6)


def test_actions_by_hand():
    """Layer by layer, weights [out, in] row by row, then biases."""
    x = torch.tensor([[2.0, -1.0]])
    linear = Population(spaces.Box(-9, 9, (2,)), spaces.Discrete(2))
    linear.mean.copy_(torch.tensor([1.0, 3.0, -2.0, 1.0, 0.5, 5.0]))  # outputs 2 - 3 + .5 and -4 - 1 + 5
    deep = Population(spaces.Box(-9, 9, (2,)), spaces.Box(-9, 9, (1,)), hidden=(2,))
    deep.mean.copy_(torch.tensor([1.0, 1.0, 0.0, 1.0, -0.5, 2.0, 2.0, -3.0, 0.25]))  # tanh(.5), tanh(1)
    for act in (lambda p: p.act(x, None, torch.tensor([True]), None), lambda p: p.actor(1)(x.numpy(), None, 0, None)):
        assert int(act(linear)[0]["action"][0]) == 1
        expected = 2 * np.tanh(0.5) - 3 * np.tanh(1.0) + 0.25
        assert float(act(deep)[0]["action"][0, 0]) == pytest.approx(expected, rel=1e-6)


def test_greedy_is_the_mean_and_sees_a_refit():
    policy = Population(BOX, ACTIONS["discrete"])
    actor = policy.actor(2)
    policy.mean[-3:] = torch.tensor([0.0, 0.0, 1.0])  # the last biases
    decided, _ = actor(np.zeros((2, 3), np.float32), policy.initial(2), np.ones(2, bool), None)
    assert decided["action"].tolist() == [2, 2]


def test_discrete_observations_act_one_hot():
    p = parts("CliffWalking-v1", num_envs=4)
    policy = p.agent.policy
    assert policy.sizes == (48, 4)
    policy.std.zero_()
    policy.mean.view(-1)[: 4 * 48].view(4, 48)[3, 36] = 1.0  # action 3 in state 36 alone
    observation = np.array([36, 0, 36, 1])
    noise = policy.noise((4,), torch.Generator().manual_seed(0)).numpy()
    decided, _ = policy.actor(4)(observation, policy.initial(4), np.ones(4, bool), noise)
    assert decided["action"].tolist() == [3, 0, 3, 0]


# -- runs ------------------------------------------------------------------------------------------------------------


def train(runs, env="CartPole-v1", total_steps=4000, **options):
    common = {"num_envs": 10, "eval_every": 0, "checkpoint_every": 500, "log_every": 300, "eval_episodes": 10}
    return whorl.train("cem", env, total_steps=total_steps, runs=runs, quiet=True, **(common | options))


@pytest.mark.parametrize("fields", [{}, {"normalize_observation": True, "hidden": (3,), "feed": {"steps": 30}}])
def test_resume_is_exact_and_evaluation_changes_nothing(fields, tmp_path):
    whole = train(tmp_path / "a", **fields, log_every=1)
    half = train(tmp_path / "b", **fields, log_every=1, total_steps=1500, eval_every=700)
    assert fingerprint(half.path) != fingerprint(whole.path)
    whorl.resume(half.path, 4000, quiet=True)
    assert fingerprint(half.path) == fingerprint(whole.path)
    assert fingerprint(train(tmp_path / "c", **fields, seed=1).path) != fingerprint(whole.path)


def test_it_learns_and_the_loaded_policy_acts_with_the_mean(tmp_path):
    run = train(tmp_path, num_envs=30, total_steps=40_000)
    assert run.evaluate(20, seed=3).returns.mean() > 300  # a random policy has 22
    trained = whorl.load(run.path, "last")
    assert trained.evaluate(20, seed=3).returns.tolist() == run.evaluate(20, seed=3).returns.tolist()
    assert torch.equal(trained.policy.mean, run.agent.policy.mean)


def test_a_return_that_is_not_finite_is_not_learned_from():
    p = parts()
    before = {key: value.clone() for key, value in p.agent.policy.state_dict().items()}
    rows = p.agent.prepare(p.collector.collect())
    rows["return"][3] = float("nan")
    p.buffer.add(rows)
    with pytest.raises(NotFinite, match="the returns of 1 of 10 episodes are NaN or infinite; nothing was learned"):
        p.agent.learn(p.buffer)
    assert all(torch.equal(before[key], value) for key, value in p.agent.policy.state_dict().items())


def test_an_elite_of_one_has_no_variance():
    p = parts(num_envs=4, elite=0.25)
    p.buffer.add(p.agent.prepare(p.collector.collect()))
    with pytest.raises(BadInput, match=r"elite = 0.25 of 4 episodes is 1, but a variance needs at least 2"):
        p.agent.learn(p.buffer)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"elite": 0.0}, BadInput, "elite is a share of the population above 0 and at most 1, got 0.0"),
        ({"elite": 1.5}, BadInput, "elite must be from 0 to 1, got 1.5"),
        ({"initial_std": -1.0}, BadInput, "initial_std must be at least 0, got -1.0"),
        ({"extra_std": -1.0}, BadInput, "extra_std must be at least 0, got -1.0"),
        ({"extra_iterations": -1}, BadInput, "extra_iterations must be at least 0, got -1"),
        (
            {"feed": Rollouts(steps=10)},
            Incompatible,
            "whole episodes: feed.unit must be 'episode', .* got 'step', 1 and 1",
        ),
        ({"feed": {"minibatches": 2}}, Incompatible, "got 'episode', 1 and 2"),
        ({"feed": {"epochs": 2}}, Incompatible, "got 'episode', 2 and 1"),
    ],
)
def test_impossible_numbers(fields, error, message):
    with pytest.raises(error, match=message):
        parts(**fields)


def test_spaces_it_cannot_do():
    image = spaces.Box(0, 255, (84, 84, 3), np.uint8)
    for observation in (image, spaces.Dict(a=BOX)):
        with pytest.raises(Incompatible, match="a population acts on vectors and discrete kinds, got"):
            CEM.build(observation, ACTIONS["discrete"], CEMConfig())
    for action in (spaces.MultiDiscrete([2, 2]), spaces.Box(-1, 1, (2, 2))):
        with pytest.raises(Incompatible, match="a population acts in Discrete or one-axis Box spaces, got"):
            CEM.build(BOX, action, CEMConfig())


def test_there_is_nothing_to_compile():
    with pytest.raises(BadInput, match="CEM takes no gradient step, so there is nothing to compile"):
        build("cem", "CartPole-v1", num_envs=4, update="compiled")
