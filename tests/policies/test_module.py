"""Modules of tensordict's as policies: drawn and greedy actions, their streams, what they must give, and a run that says what acts."""

import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential
from tensordict.nn import TensorDictModule as Module
from torch import nn

import whorl
from tests.cases import each
from whorl.agents.a2c import A2CConfig
from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam
from whorl.agents.parts import loss_of
from whorl.envs.make import EnvKind
from whorl.errors import BadInput
from whorl.functional.returns import reward_to_go
from whorl.policies.module import ModulePolicy
from whorl.training.evaluate import evaluate
from whorl.training.video import film

BOX, THREE = spaces.Box(-1, 1, (3,)), spaces.Discrete(3)


class Normal(torch.distributions.Independent):
    """One density for all components."""

    def __init__(self, loc, scale):
        super().__init__(torch.distributions.Normal(loc, scale), 1)


def gaussian(inputs=None):
    """TorchRL's stochastic actor, of ordinary layers; its first one is lazy unless `inputs` are given."""
    first = nn.LazyLinear(8) if inputs is None else nn.Linear(inputs, 8)
    net = nn.Sequential(first, nn.Tanh(), nn.Linear(8, 2), NormalParamExtractor())
    return ProbabilisticTensorDictSequential(
        Module(net, in_keys=["observation"], out_keys=["loc", "scale"]),
        ProbabilisticTensorDictModule(
            in_keys=["loc", "scale"], out_keys=["action"], distribution_class=Normal, return_log_prob=True
        ),
    )


def test_it_collects_as_its_distribution_says_and_leaves_torchs_stream_alone():
    def rollout():
        env = whorl.make_env("Pendulum-v1", num_envs=4)
        return whorl.SerialCollector(env, policy, 8, seed=3).collect()

    policy = ModulePolicy(gaussian(), BOX, spaces.Box(-2, 2, (1,)))
    assert policy.module[0].module[0].weight.shape == (8, 3)  # lazy no more
    before = torch.get_rng_state()
    first = rollout()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again = rollout()
    assert torch.equal(first["action"], again["action"])
    assert len(first["action"].unique()) == 32
    loc, scale = policy.module[0].module(first["observation"])
    expected = torch.distributions.Normal(loc, scale).log_prob(first["action"]).squeeze(-1)
    torch.testing.assert_close(first["log_prob"], expected)
    assert set(first.keys()) == {"observation", "is_first", "action", "log_prob", "version", "next"}


def test_greedy_it_evaluates_and_is_filmed_with_the_mean(tmp_path):
    policy = ModulePolicy(gaussian(), BOX, spaces.Box(-2, 2, (1,)))
    seen, first = torch.randn(5, 3), torch.zeros(5, dtype=torch.bool)
    decided, carry = policy.act(seen, None, first, None)
    torch.testing.assert_close(decided["action"], policy.module[0].module(seen)[0])
    assert carry is None
    kind = EnvKind("Pendulum-v1")
    one, two = (evaluate(policy, kind.make(4, 0, max_episode_steps=20), 4, seed=1).returns for _ in range(2))
    assert (one == two).all() and one.max() < 0
    _, steps = film(policy, kind, tmp_path / "film.gif", max_steps=5)
    assert steps == 5 and (tmp_path / "film.gif").read_bytes()[:3] == b"GIF"


class Allowed(nn.Module):
    def forward(self, observation, mask):
        return torch.where(mask, observation, -torch.inf).argmax(-1)


def test_it_may_read_the_action_mask_where_all_is_allowed_without_one():
    policy = ModulePolicy(
        Module(Allowed(), in_keys=[("observation", "x"), "action_mask"], out_keys=["action"]), spaces.Dict(x=BOX), THREE
    )
    seen, first = {"x": torch.tensor([[1.0, 2, 3], [6, 5, 4]])}, torch.ones(2, dtype=torch.bool)
    assert policy.act(seen, None, first, None)[0]["action"].tolist() == [2, 0]
    mask = torch.tensor([[True, True, False], [False, True, True]])
    assert policy.act(seen, None, first, None, mask)[0]["action"].tolist() == [1, 1]


def test_what_is_no_policy_is_named():
    def module(out="action", reads="observation", net=None):
        return Module(net or nn.Linear(3, 1), in_keys=[reads], out_keys=[out])

    class Picks(nn.Module):
        def forward(self, known):
            return 3

    class OneHot(nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(x.argmax(-1), 3)

    class LogProb(nn.Module):
        def forward(self, known):
            return known.update({"action": known["observation"][:, :1], "log_prob": known["observation"][:, :1]})

    box = spaces.Box(-1, 1, (1,))
    cases = [
        (module(reads="obs"), box, "TensorDictModule, tried on Box(3), raises KeyError: .*'obs'.*it is given a TensorDict with "
         "observation, is_first"),
        (module(net=nn.Linear(4, 1)), box, "raises RuntimeError: .*cannot be multiplied"),
        (module("act"), box, "a module that acts writes 'action' for Box(1); TensorDictModule gives observation, is_first, act"),
        (module(net=nn.Linear(3, 2)), box, "must write 'action' as float32 [2, 1] for 2 rows of Box(1), it writes float32 [2, 2]"),
        (module(net=OneHot()), THREE, "as int64 [2] for 2 rows of Discrete(3), it writes int64 [2, 3]"),
        (LogProb(), box, "must write 'log_prob' as float32 [2] for 2 rows of Box(1), it writes float32 [2, 1]"),
        (Picks(), box, "Picks, tried on Box(3), must give a TensorDict, it gives a int"),
    ]  # fmt: skip
    for policy, space, words in each(cases):
        pattern = words.translate(str.maketrans({c: f"\\{c}" for c in "()[]"}))
        with pytest.raises(BadInput, match=pattern):
            ModulePolicy(policy, BOX, space)


class FromModule(Agent):
    """REINFORCE on whatever distribution the module has."""

    Config = A2CConfig

    def __init__(self, policy, config):
        super().__init__(policy, config)
        self.optimizer = adam(self.parameters(), 1e-2)

    def prepare(self, rollout):
        rollout = super().prepare(rollout)
        after = rollout["next"]
        rollout["return"] = reward_to_go(after["reward"], after["terminated"], after["truncated"], 0.9)
        return rollout

    def loss(self, batch):
        log_prob = self.policy.module.get_dist(TensorDict({"observation": batch["observation"]})).log_prob(
            batch["action"]
        )
        return loss_of(-log_prob * batch["return"], batch), {}


def test_an_agent_trains_it_and_the_run_says_what_acts(tmp_path, capsys):
    policy = ModulePolicy(gaussian(), BOX, spaces.Box(-2, 2, (1,)))
    before = [p.detach().clone() for p in policy.parameters()]
    short = {"total_steps": 48, "num_envs": 2, "max_episode_steps": 10, "eval_every": 0, "eval_episodes": 1}
    run = whorl.train(FromModule(policy, A2CConfig()), "Pendulum-v1", runs=tmp_path, **short)
    assert run.steps == 48
    assert all(not torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
    words = "ProbabilisticTensorDictSequential acts through a TensorDict, which is slower than a policy of whorl's"
    assert capsys.readouterr().err.splitlines().count(words) == 1
