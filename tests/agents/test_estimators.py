"""`estimator`: four ways to advantages and returns, worked by hand, and a function of the user's in a run."""

import json

import pytest
import torch

import whorl
from tests.cases import each
from whorl import batch
from whorl.agents.a2c import A2CConfig
from whorl.errors import BadInput, BatchError
from whorl.options import override
from whorl.training.build import build


def td_error(reward, value, next_value, terminated, truncated, discount, trace_decay):
    return reward + discount * next_value.masked_fill(terminated, 0) - value


def prepared(name, **fields):
    """Rewards 1, 2, 3, then terminated; V = 1/2 everywhere, discount and trace_decay 1/2, pi = 1/2; the last action had mu = 1."""
    agent = build(name, "CartPole-v1", num_envs=1).agent
    agent.config = override(agent.config, {"discount": 0.5, "trace_decay": 0.5, "normalize_advantage": False, **fields})
    with torch.no_grad():
        for layer, bias in ((agent.policy.head, 0.0), (agent.critic.head, 0.5)):
            layer.weight.zero_()
            layer.bias.fill_(bias)
    flags = torch.zeros(3, 1, dtype=torch.bool)
    rows = {
        "observation": torch.zeros(3, 1, 4),
        "is_first": flags,
        "action": torch.zeros(3, 1, dtype=torch.int64),
        "log_prob": torch.tensor([[0.25], [0.25], [1.0]]).log(),
        "next": {
            "observation": torch.zeros(3, 1, 4),
            "reward": torch.tensor([[1.0], [2.0], [3.0]]),
            "terminated": torch.tensor([[False], [False], [True]]),
            "truncated": flags,
        },
    }
    kept = agent.prepare(batch.make(rows, (3, 1)))
    return kept["advantage"].flatten().tolist(), kept["return"].flatten().tolist()


def test_each_estimator_by_hand():
    # delta = 1 + 1/4 - 1/2, 2 + 1/4 - 1/2, 3 - 1/2; a trace is worth 1/4
    gae = [1.34375, 2.375, 2.5]
    cases = [
        ({}, gae, [1.84375, 2.875, 3.0]),
        ({"estimator": "lambda"}, gae, [1.84375, 2.875, 3.0]),
        # 1 + (2 + 1/4) / 2, 2 + 3/2, 3
        ({"estimator": "n_step", "n_step": 2}, [1.625, 3.0, 2.5], [2.125, 3.5, 3.0]),
        # rho = 1, 1, 1/2 (2 is clipped): y = 3/4 + 2.0625 / 4, 7/4 + 1.25 / 4, 5/4
        ({"estimator": "vtrace"}, [1.78125, 2.375, 1.25], [1.765625, 2.5625, 1.75]),
        ({"estimator": td_error}, [0.75, 1.75, 2.5], [1.25, 2.25, 3.0]),
    ]
    for name in ("ppo", "a2c"):
        for fields, advantage, target in each(cases):
            came = prepared(name, **fields)
            assert came[0] == pytest.approx(advantage, abs=1e-6) and came[1] == pytest.approx(target, abs=1e-6)


def test_what_is_no_estimator_is_named():
    for wrong in ("td", 3):
        with pytest.raises(
            BadInput, match=r"estimator must be one of 'gae', 'vtrace', 'lambda', 'n_step', or a function"
        ):
            build("ppo", "CartPole-v1", override(A2CConfig(), {"estimator": wrong}))
    for wrong, came in ((lambda *a: a[0].sum(), r"got torch.float32 \(\)"), (lambda *a: None, "got None")):
        with pytest.raises(BatchError, match=rf"must give one advantage for each row, torch.float32 \(3, 1\), {came}"):
            prepared("ppo", estimator=wrong)


def test_a_function_of_the_users_goes_through_a_run_and_is_asked_for_again(tmp_path):
    own = {"num_envs": 2, "eval_every": 0, "quiet": True, "runs": tmp_path}
    run = whorl.train("a2c", "CartPole-v1", estimator=td_error, anneal_steps=0, total_steps=64, **own)
    config = json.loads((run.path / "config.json").read_text())["config"]
    assert config["estimator"] == f"{__name__}:td_error"
    for call in (whorl.load, whorl.resume):
        with pytest.raises(
            BadInput, match=r"estimator = .*:td_error, and a file imports nothing: pass it again, estimator=td_error"
        ):
            call(run)
        with pytest.raises(BadInput, match=r"estimator = .*:td_error, and <built-in function max> came: pass that"):
            call(run, estimator=max)
    assert whorl.load(run, estimator=td_error).evaluate(1).lengths.min() > 0
    with pytest.raises(BadInput, match="whorl.load has no argument 'estimater'; did you mean 'estimator'"):
        whorl.load(run, estimator=td_error, estimater=td_error)
    assert whorl.resume(run.path, total_steps=128, config=run.config, quiet=True).steps == 128
    again = whorl.resume(run, total_steps=192, estimator=td_error, learning_rate=1e-4, quiet=True)
    assert again.config.estimator is td_error and [line.split(":")[0] for line in again.changes.said] == [
        "total_steps",
        "learning_rate",
    ]
    again = whorl.train(recipe=run, estimator=td_error, runs=tmp_path, quiet=True)
    assert again.config.estimator is td_error and again.steps == 192
    assert whorl.train(recipe=run, estimator="gae", runs=tmp_path, quiet=True).config.estimator == "gae"
    other = override(run.config, {"estimator": max})
    with pytest.raises(BadInput, match="was started with another config"):
        whorl.resume(run.path, total_steps=256, config=other, quiet=True)
