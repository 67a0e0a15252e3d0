"""Every agent on every probe environment; and a probe fails when the part it names is broken."""

import pytest

from tests import seeds
from whorl.agents.ppo import PPO
from whorl.errors import AgentError
from whorl.training.catalog import AGENTS
from whorl.training.check_agent import PROBES, check_agent

Q_AGENT = {
    "steps": 2_400,
    "learning_rate": 6e-3,
    "target_rate": 0.1,
    "epsilon_steps": 1_200,
    "hidden": (32, 32),
    "feed": {"replay_ratio": 0.25, "warmup": 200, "batch_size": 32},
}
ACTOR_CRITIC = {
    "steps": 4_000,
    "learning_rate": 6e-3,
    "critic_learning_rate": 6e-3,
    "target_rate": 0.1,
    "hidden": (32, 32),
    "feed": {"replay_ratio": 0.2, "warmup": 400, "batch_size": 64},
}
CALM = {
    "steps": 8_000,
    "learning_rate": 3e-3,
    "critic_learning_rate": 3e-3,
    "target_rate": 0.05,
}  # ten critics overshoot
FAST = {
    "ppo": {"steps": 12_000, "learning_rate": 3e-3},
    "a2c": {
        "steps": 10_000,
        "learning_rate": 3e-3,
        "entropy_weight": 0.0,
    },  # and a3c, which is the same class in another loop
    "impala": {
        "steps": 10_000,
        "learning_rate": 3e-3,
        "entropy_weight": 0.0,
        "optimizer": "adam",
        "max_grad_norm": 0.5,
        "feed": {"steps": 8},
    },
    "reinforce": {"learning_rate": 1e-2, "feed": {"steps": 32}},
    "trpo": {"steps": 10_000, "learning_rate": 3e-3, "feed": {"steps": 64, "epochs": 4, "minibatches": 4}},
    "cem": {"feed": {"steps": 16}},
    "td": {"learning_rate": 0.05 / 8},
    "random": {},
    "ddpg": ACTOR_CRITIC,
    "td3": ACTOR_CRITIC,
    "sac": ACTOR_CRITIC,
    "discrete_sac": ACTOR_CRITIC | {"target_entropy": 0.3},
    "redq": ACTOR_CRITIC | CALM | {"policy_delay": 2},
    "crossq": {k: v for k, v in ACTOR_CRITIC.items() if k != "target_rate"}
    | {"steps": 2_500, "critic_hidden": (32, 32), "temperature": 0.1},
    "tqc": ACTOR_CRITIC | {"steps": 2_500, "critic_hidden": (32, 32)},
    "dqn": Q_AGENT,
    "c51": Q_AGENT,
    "qr_dqn": Q_AGENT,
    "iqn": Q_AGENT,
    "rainbow": {key: value for key, value in Q_AGENT.items() if key != "epsilon_steps"},
}
CONTINUOUS = ("ddpg", "td3", "sac", "redq", "crossq", "tqc")
# action values are for Discrete actions only
DISCRETE = ("td", "dqn", "c51", "qr_dqn", "iqn", "rainbow", "discrete_sac")


@pytest.mark.parametrize("agent", [name for name in AGENTS if name != "a3c"])
def test_agent_on_all_probes(agent):
    checked = check_agent(agent, seed=seeds.seed(), **FAST[agent])
    assert list(checked) == PROBES
    done = [text for text in checked.values() if "cannot act there" not in text]
    kinds = 1 if agent in DISCRETE + CONTINUOUS else 2
    assert len(done) == 5 * kinds
    if agent != "random":
        assert sum("actions" in text for text in done) == 2 * kinds
        assert sum("values" in text for text in done) == (0 if agent == "cem" else 5 * kinds)  # cem has none


def test_a_dropped_discount_is_named(monkeypatch):
    import whorl.agents.parts as module

    gae = module.gae
    monkeypatch.setattr(module, "gae", lambda r, v, nv, d, e, discount, decay: gae(r, v, nv, d, e, 0.0, decay))
    with pytest.raises(AgentError, match=r"ppo on ProbeDiscount.*value\(\+0\) is .* the discount or the bootstrap"):
        check_agent("ppo", **FAST["ppo"])


def test_a_wrong_sign_is_named(monkeypatch):
    import whorl.agents.ppo as module

    surrogate = module.clipped_surrogate
    monkeypatch.setattr(module, "clipped_surrogate", lambda *a: -surrogate(*a))
    with pytest.raises(AgentError, match="ppo on ProbeAction-v0: .* the advantage or the policy loss"):
        check_agent("ppo", **FAST["ppo"])


def test_an_impure_loss_is_named(monkeypatch):
    pure = PPO.loss

    def loss(self, batch):
        self.env_steps += 1
        return pure(self, batch)

    monkeypatch.setattr(PPO, "loss", loss)
    with pytest.raises(AgentError, match=r"ppo.loss is not pure: it changed \['env_steps'\]"):
        check_agent("ppo", **FAST["ppo"])
