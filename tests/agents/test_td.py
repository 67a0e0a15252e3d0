"""TD(lambda): the ancestor's mistakes, one test each; targets by hand; several environments; networks; divergence; prediction."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import whorl
from whorl import batch
from whorl.agents.td import TD, TDConfig
from whorl.buffers.stream import StreamBuffer
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.make import make_env
from whorl.errors import BadInput, Incompatible, NotFinite
from whorl.functional.traces import COUNT
from whorl.nets.linear_q import LinearQ
from whorl.nets.tile_coding import OneHot, Raw
from whorl.policies.greedy import EPSILON, Greedy
from whorl.training.build import assemble, build
from whorl.training.loops import compiled_td, plain

TABLE = {"learning_rate": 0.5, "trace_decay": 0.5, "model": "table"}
CONTROL = ["sarsa", "expected_sarsa", "q_learning", "naive_q_learning"]


def make(observation_space=4, actions=2, **fields):
    space = spaces.Discrete(observation_space) if isinstance(observation_space, int) else observation_space
    return TD.build(space, spaces.Discrete(actions), TDConfig(**(TABLE | fields)))


def row(
    observation, action, reward, successor, next_action, terminated=False, truncated=False, mask=None, allowed=None
):
    """One step of N environments, [1, N]; of one where `action` is a number."""
    one = np.ndim(action) == 0
    shape = lambda x, dtype: torch.tensor(x, dtype=dtype)[(None,) * (1 + one)]  # noqa: E731
    spread = lambda x: x if one or np.ndim(x) else [x] * len(action)  # noqa: E731
    kind = torch.int64 if np.array(observation).dtype.kind == "i" else torch.float32
    next = {
        "observation": shape(successor, kind),
        "reward": shape(reward, torch.float32),
        "terminated": shape(spread(terminated), torch.bool),
        "truncated": shape(spread(truncated), torch.bool),
        "action": shape(next_action, torch.int64),
    }
    next |= {} if allowed is None else {"action_mask": shape(allowed, torch.bool)}
    entries = {"observation": shape(observation, kind), "action": shape(action, torch.int64), "next": next}
    entries |= {} if mask is None else {"mask": shape(mask, torch.bool)}
    return batch.make(entries, (1, 1 if one else len(action)))


def learn(agent, *args, **flags):
    buffer = StreamBuffer()
    buffer.add(agent.prepare(row(*args, **flags)))
    return agent.learn(buffer)


def q(agent, state, action):
    return float(agent.critic.weight[action, state])


# -- the ancestor's mistakes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", ["accumulating", "replacing", "dutch"])
def test_the_terminal_transition_gets_credit(trace):
    """The ancestor did not add the features of the last (s, a), the one that failed, to the trace before the terminal update."""
    agent = make(trace=trace)
    learn(agent, 0, 1, 0.0, 1, 0)
    learn(agent, 1, 0, 1.0, 2, 0, terminated=True)
    assert q(agent, 1, 0) == 0.5 and q(agent, 0, 1) == 0.25
    assert agent.critic.weight.sum() == 0.75


@pytest.mark.parametrize("target", CONTROL)
def test_the_terminal_reward_is_not_lost_after_an_exploratory_choice(target):
    """The ancestor drew a next action after the end, and an exploratory one emptied the traces before the terminal update."""
    agent = make(target=target)
    agent.critic.weight[1, 2] = 5.0  # action 1 is the greedy one where the episode ends
    learn(agent, 0, 1, 0.0, 1, 0)
    learn(agent, 1, 0, 1.0, 2, 0, terminated=True)
    assert q(agent, 1, 0) == 0.5 and q(agent, 0, 1) == 0.25


def after_an_exploratory_action(target):
    """s0 -> s1 with the exploratory a' = 0, then s1 -> s2 with reward 1, then the end. What each (s, a) has got at each step."""
    agent = make(target=target, discount=1.0)
    agent.critic.weight[1, 1] = 4.0  # in state 1, action 1 is greedy
    got = []
    for args, flags in (((3, 0, 2.0, 0, 0), {}), ((0, 0, 2.0, 1, 0), {}), ((1, 0, 1.0, 2, 0), {"terminated": True})):
        before = agent.critic.weight.clone()
        learn(agent, *args, **flags)
        change = agent.critic.weight - before
        got.append([float(change[0, s]) for s in (3, 0, 1)])
    return got


def test_watkins_cut_comes_after_the_update_and_not_a_step_early():
    """The ancestor zeroed the trace with a_{t+1} before the update of step t, so that step t's earlier steps got nothing and
    (s_t, a_t) survived the cut."""
    first, second, third = after_an_exploratory_action("q_learning")
    assert first == [1.0, 0, 0]
    assert second[1] == 0.5 * (2 + 4) and second[0] == second[1] / 2  # the step before still gets its share
    assert third == [0, 0, 0.5]  # the exploratory action itself learns, those before it do not


@pytest.mark.parametrize("target", ["sarsa", "expected_sarsa", "naive_q_learning"])
def test_only_watkins_is_cut(target):
    """The ancestor cut Sarsa's traces too."""
    third = after_an_exploratory_action(target)[2]
    assert third == [0.125, 0.25, 0.5]


@pytest.mark.parametrize("tie", [False, True])
def test_a_random_draw_that_is_greedy_does_not_cut(tie):
    """The ancestor counted every random draw as exploratory; so does what is as good as the best, whichever came first."""
    agent = make(target="q_learning")
    agent.critic.weight[1, 1] = 4.0
    agent.critic.weight[0, 1] = 4.0 if tie else 0.0
    learn(agent, 0, 0, 0.0, 1, 1)
    before = q(agent, 0, 0)
    learn(agent, 1, 1, 6.0, 2, 0, terminated=True)
    assert q(agent, 0, 0) == before + 0.5 * (6 - 4) / 2


@pytest.mark.parametrize("env", ["CartPole-v1", "ProbeConstant-v0"])
def test_epsilon_decays_exactly_once_per_step(env):
    """The ancestor decayed it at every choice: also for the first action of an episode, and for one after the end that nobody takes."""
    model = "tile_coding" if "Probe" in env else "linear"  # CartPole's velocities have no bounds
    config = TDConfig(epsilon=0.5, epsilon_decay=0.99, epsilon_min=0.05, model=model, trace="accumulating")
    parts, expected = build("td", env, config, num_envs=1), 0.5
    parts.collector.begin()
    assert parts.agent.policy.exploration[EPSILON] == 0.5  # the first action decayed nothing
    for steps in (50, 100, 400):
        before, seen = expected, parts.collector.steps
        plain.train(parts.agent, parts.collector, parts.buffer, steps)
        for _ in range(steps - seen):
            expected = max(expected * 0.99, 0.05)
        assert parts.agent.policy.exploration[EPSILON] == expected < before
    assert expected == 0.05 and parts.collector.finished > 10


def test_a_step_that_an_engine_invents_decays_and_learns_nothing():
    engine = SyncVectorEnv(
        [lambda: gymnasium.make("CliffWalking-v1", max_episode_steps=7)], autoreset_mode=AutoresetMode.NEXT_STEP
    )
    config = TDConfig(epsilon=0.5, epsilon_decay=0.99, model="table", learning_rate=0.5)
    parts = build("td", Gymnasium(engine), config)
    invented, learned = 0, []

    def look(rollout, metrics):
        nonlocal invented
        invented += int(not rollout["mask"].all())
        learned.append((bool(rollout["mask"].all()), parts.agent.critic.weight.clone()))

    plain.train(parts.agent, parts.collector, parts.buffer, 60, [look])
    assert invented > 3 and len(learned) == 60 + invented
    for (_, before), (true_step, after) in zip(learned, learned[1:], strict=False):
        assert true_step or torch.equal(before, after)
    assert parts.agent.env_steps == parts.collector.steps == 60
    assert float(parts.agent.policy.exploration[EPSILON]) == pytest.approx(0.5 * 0.99**60, rel=1e-12)


@pytest.mark.parametrize("target", [*CONTROL, "prediction"])
def test_a_time_limit_bootstraps_and_an_end_does_not(target):
    """To the ancestor a time limit was an end."""
    for flags, future in (
        ({"truncated": True}, 4.0),
        ({"terminated": True}, 0.0),
        ({"terminated": True, "truncated": True}, 0.0),
    ):
        agent = make(target=target, epsilon=0.0)
        agent.critic.weight[-1, 1] = 4.0
        action = agent.critic.actions - 1
        learn(agent, 0, action, 1.0, 1, 1, **flags)
        assert q(agent, 0, action) == 0.5 * (1 + future)


@pytest.mark.parametrize("flag", ["terminated", "truncated"])
@pytest.mark.parametrize("trace", ["accumulating", "replacing", "dutch"])
def test_traces_end_with_the_episode(trace, flag):
    agent = make(trace=trace)
    learn(agent, 0, 0, 1.0, 1, 0)
    learn(agent, 1, 0, 1.0, 2, 0, **{flag: True})
    before = agent.critic.weight.clone()
    learn(agent, 3, 0, 10.0, 2, 0)
    changed = (agent.critic.weight != before).nonzero().tolist()
    assert changed == [[0, 3]]


@pytest.mark.parametrize(
    ("field", "value", "choices"),
    [
        ("trace", "eligible", "'accumulating', 'replacing', 'dutch'"),
        ("target", "qLearning", "'sarsa', 'expected_sarsa', 'q_learning', 'naive_q_learning', 'prediction'"),
        ("exploration", "greedy", "'epsilon_greedy', 'softmax'"),
        ("model", "hash", "'auto', 'table', 'linear', 'tile_coding', 'mlp'"),
    ],
)
def test_unknown_kinds_are_errors(field, value, choices, tmp_path):
    """An unknown traceType or tdLearnUpdate made the ancestor learn nothing, silently."""
    with pytest.raises(BadInput, match=f"{field} must be one of {choices}, got '{value}'"):
        whorl.train("td", "MountainCar-v0", total_steps=10, runs=tmp_path, **{field: value})
    assert not list(tmp_path.iterdir())


def test_a_trace_costs_what_is_active_not_what_there_is():
    """The ancestor's update went over all weights at each step."""
    box = spaces.Box(0, 1, (2,))
    agent = make(box, model="tile_coding", tilings=8, tiles=50, bias=True, trace_decay=0.9)
    assert agent.critic.weight.numel() > 40_000
    for step in range(3):
        learn(agent, [0.3 * step, 0.5], 0, 0.0, [0.3 * step + 0.3, 0.5], 0)
        assert agent.traces_numbers[0, COUNT] == 1 + 8 * (step + 1)
    learn(agent, [0.9, 0.5], 0, 0.0, [0.9, 0.6], 0)
    learn(agent, [0.9, 0.5], 0, 0.0, [0.9, 0.6], 0)
    assert agent.traces_numbers[0, COUNT] == 33


# -- targets by hand ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "allowed", "future"),
    [
        ({"target": "sarsa"}, None, 1.0),
        ({"target": "q_learning"}, None, 3.0),
        ({"target": "naive_q_learning"}, None, 3.0),
        ({"target": "expected_sarsa", "epsilon": 0.0}, None, 3.0),
        ({"target": "expected_sarsa", "epsilon": 0.3}, None, 0.1 * 1 + 0.8 * 3 + 0.1 * 2),
        (
            {"target": "expected_sarsa", "exploration": "softmax", "temperature": 2.0},
            None,
            (np.exp([0.5, 1.5, 1]), [1, 3, 2]),
        ),
        ({"target": "q_learning"}, [True, False, True], 2.0),
        ({"target": "naive_q_learning"}, [True, False, True], 2.0),
        ({"target": "expected_sarsa", "epsilon": 0.3}, [True, False, True], 0.15 * 1 + 0.85 * 2),
        (
            {"target": "expected_sarsa", "exploration": "softmax", "temperature": 2.0},
            [True, False, True],
            (np.exp([0.5, 1.0]), [1, 2]),
        ),
    ],
)
@pytest.mark.parametrize("model", ["table", "mlp"])
def test_targets(model, fields, allowed, future):
    """q(s', .) = (1, 3, 2), a' = 0, r = 0.25, discount 0.9."""
    if isinstance(future, tuple):
        weights, values = future
        future = float((weights / weights.sum()) @ values)
    trace = "accumulating" if model == "mlp" else "replacing"
    agent = make(4, 3, model=model, discount=0.9, trace=trace, hidden=(), **fields)
    if model == "table":
        agent.critic.weight[:, 1] = torch.tensor([1, 3, 2])
    else:
        linear = [layer for layer in agent.critic.modules() if isinstance(layer, torch.nn.Linear)][-1]
        with torch.no_grad():
            linear.weight.zero_()
            linear.bias.zero_()
            linear.weight[:, 1] = torch.tensor([1.0, 3.0, 2.0])
    metrics = learn(agent, 0, 2, 0.25, 1, 0, allowed=allowed)
    assert float(metrics["td_error"]) == pytest.approx(0.25 + 0.9 * future, rel=1e-6)
    if model == "table":
        assert q(agent, 0, 2) == pytest.approx(0.5 * (0.25 + 0.9 * future))


def test_replacing_traces_clear_other_actions_only_when_asked():
    for clear, credit in ((False, 0.25), (True, 0.0)):
        agent = make(clear_other_actions=clear)
        learn(agent, 0, 0, 0.0, 0, 1)
        learn(agent, 0, 1, 1.0, 1, 0, terminated=True)
        assert q(agent, 0, 1) == 0.5 and q(agent, 0, 0) == credit


def test_epsilon_stays_where_it_is_below_its_floor():
    agent = make(epsilon=0.01, epsilon_decay=0.5, epsilon_min=0.1)
    learn(agent, 0, 0, 0.0, 1, 0)
    assert agent.policy.exploration[EPSILON] == 0.01


# -- several environments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", ["accumulating", "replacing", "dutch"])
def test_environments_share_weights_but_not_traces(trace):
    """N rows at a time are the same as the rows one after another, each environment with a dense trace of its own."""
    rng, n, states, actions = np.random.default_rng(0), 3, 5, 2
    agent = make(states, actions, trace=trace, learning_rate=0.3, trace_decay=0.8, discount=0.9)
    w, e, old = np.zeros((actions, states)), np.zeros((n, actions, states)), np.zeros(n)
    s, a = rng.integers(states, size=n), rng.integers(actions, size=n)
    for _ in range(50):
        s2, a2, r = rng.integers(states, size=n), rng.integers(actions, size=n), rng.normal(size=n).astype(np.float32)
        terminated, truncated = rng.random(n) < 0.1, rng.random(n) < 0.1
        learn(
            agent, s.tolist(), a.tolist(), r.tolist(), s2.tolist(), a2.tolist(), terminated.tolist(), truncated.tolist()
        )
        for i in range(n):
            value, future = w[a[i], s[i]], 0.0 if terminated[i] else w[a2[i], s2[i]]
            delta = float(r[i]) + 0.9 * future - value
            overlap = 0.72 * e[i, a[i], s[i]]
            e[i] *= 0.72
            e[i, a[i], s[i]] = {"accumulating": overlap + 1, "replacing": 1, "dutch": overlap + 1 - 0.3 * overlap}[
                trace
            ]
            w += 0.3 * delta * e[i]
            if trace == "dutch":
                w += 0.3 * (value - old[i]) * e[i]
                w[a[i], s[i]] -= 0.3 * (value - old[i])
                old[i] = future
            if terminated[i] or truncated[i]:
                e[i], old[i] = 0, 0
        np.testing.assert_allclose(agent.critic.weight.numpy(), w, rtol=1e-12, atol=1e-12)
        s, a = s2, a2


def test_invented_rows_are_skipped():
    agent = make()
    learn(agent, [0, 1], [0, 0], [1.0, 1.0], [2, 2], [0, 0], mask=[True, False])
    assert q(agent, 0, 0) == 0.5 and q(agent, 1, 0) == 0 and agent.env_steps == 1
    mlp = make(model="mlp", trace="accumulating")
    before = [p.detach().clone() for p in mlp.critic.parameters()]
    learn(mlp, [0], [0], [1.0], [2], [0], mask=[False])
    assert all(torch.equal(p, b) for p, b in zip(mlp.critic.parameters(), before, strict=True)) and mlp.env_steps == 0


def test_state_comes_back_for_any_number_of_environments():
    agent = make(5, learning_rate=0.3)
    rows = [
        ([0, 1, 2], [0, 1, 0], [1.0, 0.5, 2.0], [1, 2, 3], [0, 0, 1]),
        ([1, 2, 3], [0, 0, 1], [1.0, 2.0, 0.0], [2, 3, 4], [1, 1, 1]),
    ]
    learn(agent, *rows[0])
    other = make(5, learning_rate=0.3)
    learn(other, 0, 0, 1.0, 1, 0)  # has looked into a rollout of one environment
    other.load_state_dict({key: value.clone() for key, value in agent.state_dict().items()})
    for a in (agent, other):
        learn(a, *rows[1])
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in agent.state_dict().items())


# -- tile coding: collisions -------------------------------------------------------------------------------------------


def test_collisions_are_counted():
    """Slots that tiles of more than one place were hashed into, against a brute-force count."""
    agent = make(spaces.Box(0, 1, (2,)), model="tile_coding", tilings=4, tiles=8, memory=30)
    features, tiles, counts = agent.critic.features, {}, []
    table = features.table.numpy()
    for x in np.random.default_rng(0).random((60, 2)).astype(np.float32):
        learn(agent, x.tolist(), 0, 0.0, [0.5, 0.5], 0)
        index = features(torch.from_numpy(x))[0].tolist()
        for k in range(4):
            place = tuple(np.floor((x - table[0]) * table[1] + table[4 + k]).astype(int))
            tiles.setdefault(index[k], set()).add(place)
        counts.append(sum(len(places) > 1 for places in tiles.values()))
        assert agent.collisions == counts[-1]
    assert counts[0] == 0 and counts[-1] > 20
    exact = make(spaces.Box(0, 1, (2,)), model="tile_coding")
    learn(exact, [0.1, 0.1], 0, 0.0, [0.5, 0.5], 0)
    assert exact.collisions == 0


# -- values from a network ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["sarsa", "prediction"])
def test_a_network_learns_along_its_trace(target):
    """e <- gamma lambda e + grad q(s, a), w <- w + alpha delta e, with autograd by hand over three steps."""
    box = spaces.Box(-1, 1, (2,))
    torch.manual_seed(0)
    agent = make(box, 3, model="mlp", trace="accumulating", hidden=(8,), target=target, discount=0.9, learning_rate=0.1)
    weights = [p.detach().clone() for p in agent.critic.parameters()]
    names = [name for name, _ in agent.critic.named_parameters()]
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    actions, e = [0, 2, 1, 1], [torch.zeros_like(w) for w in weights]

    def value(parameters, t):
        out = torch.func.functional_call(agent.critic, dict(zip(names, parameters, strict=True)), (x[t],))
        return out[0 if target == "prediction" else actions[t]]

    for t in range(3):
        over = t == 2
        leaf = [w.clone().requires_grad_() for w in weights]
        v = value(leaf, t)
        delta = 1.0 + t + (0.0 if over else 0.9 * value(weights, t + 1)) - v.detach()
        for k, gradient in enumerate(torch.autograd.grad(v, leaf)):
            e[k] = 0.45 * e[k] + gradient
            weights[k] = weights[k] + 0.1 * delta * e[k]
        learn(agent, x[t].tolist(), actions[t], 1.0 + t, x[t + 1].tolist(), actions[t + 1], terminated=over)
        for p, w in zip(agent.critic.parameters(), weights, strict=True):
            torch.testing.assert_close(p.detach(), w)
    assert all(not agent.optimizer.state[p]["trace"].any() for p in agent.critic.parameters())


def test_a_networks_trace_is_cut_and_its_epsilon_decays_to_the_floor():
    agent = make(
        spaces.Box(-1, 1, (2,)),
        2,
        model="mlp",
        trace="accumulating",
        target="q_learning",
        epsilon=0.5,
        epsilon_decay=0.5,
        epsilon_min=0.1,
    )
    parameters = list(agent.critic.parameters())
    x = [0.5, 0.5]
    best = int(agent.critic(torch.tensor(x)).argmax())
    epsilons = []
    for a in (best, 1 - best):
        learn(agent, [0.1, 0.2], 0, float(agent.critic(torch.tensor([0.1, 0.2])).detach()[0]), x, a)
        epsilons.append(float(agent.policy.exploration[EPSILON]))
        assert any(agent.optimizer.state[p]["trace"].any() for p in parameters) == (a == best)
    learn(agent, x, 0, 0.0, x, best)
    assert [*epsilons, float(agent.policy.exploration[EPSILON])] == [0.25, 0.125, 0.1]


def test_a_network_learns_from_one_environment():
    agent = make(4, model="mlp", trace="accumulating")
    with pytest.raises(BadInput, match="learn from one environment at a time, got 2: num_envs=1"):
        learn(agent, [0, 1], [0, 0], [0.0, 0.0], [1, 2], [0, 0])


# -- divergence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", ["accumulating", "replacing"])
def test_divergence_names_the_td_error_and_keeps_the_weights(trace):
    """alpha = 2 moves a value of four tiles eight times as far as it should."""
    box = spaces.Box(0, 1, (1,))
    agent = make(box, 2, model="tile_coding", trace=trace, learning_rate=2.0, trace_decay=0.9, tilings=4, tiles=2)
    run_until_it_diverges(agent, [0.1], [0.2], alpha="2", terminated=True)


def test_a_networks_divergence_keeps_the_weights():
    torch.manual_seed(0)
    fields = {"model": "mlp", "trace": "accumulating", "activation": "relu", "learning_rate": 0.1, "trace_decay": 0.9}
    run_until_it_diverges(make(spaces.Box(-100, 100, (2,)), 2, **fields), [90.0, 50.0], [80.0, 70.0], alpha="0.1")


def test_a_network_is_given_no_alarm_before_the_first_reward():
    agent = make(spaces.Box(-1, 1, (2,)), 2, model="mlp", trace="accumulating", learning_rate=0.01)
    for _ in range(20):
        learn(agent, [0.5, 0.5], 0, 0.0, [0.1, 0.2], 0)
    assert agent.env_steps == 20


def run_until_it_diverges(agent, here, there, alpha, terminated=False):
    weights = lambda: torch.cat([v.flatten().double().clone() for v in agent.critic.state_dict().values()])  # noqa: E731
    steps = 0
    with pytest.raises(NotFinite) as caught:
        for steps in range(1, 2000):  # noqa: B007
            before = weights()
            learn(agent, here, 0, 1.0, there, 0, terminated)
    assert 1 < steps < 1999 and agent.env_steps == steps
    assert caught.match(rf"the TD error of environment 0 became \S+ after {steps} environment steps")
    assert caught.match(
        f"The weights are those before it. Lower the learning rate .alpha = {alpha}., or use replacing or dutch"
    )
    assert before.isfinite().all() and torch.equal(weights(), before)


def test_no_alarm_without_rewards():
    """Optimistic values that only fall: gamma w - w = -w / 10, so with e -> 10 and alpha 1/2 they halve at each step."""
    agent = make(2, 1, trace="accumulating", discount=0.9, trace_decay=1.0, initial_value=1.0)
    for _ in range(60):
        learn(agent, 0, 0, 0.0, 0, 0)
    assert abs(q(agent, 0, 0)) < 1e-6


def test_no_alarm_for_a_second_environment():
    """It has not seen a reward yet, but learns the values that the first one's rewards made."""
    agent = make(3, 1, trace="accumulating", discount=0.9, trace_decay=1.0)
    for _ in range(30):
        learn(agent, [2, 0], [0, 0], [1.0, 0.0], [2, 0], [0, 0], terminated=[True, False])
    agent.critic.weight[0, 0] = 1.0
    for _ in range(60):
        learn(agent, [2, 0], [0, 0], [1.0, 0.0], [2, 0], [0, 0], terminated=[True, False])
    assert abs(q(agent, 0, 0)) < 1e-6


def test_no_alarm_while_errors_are_of_the_size_of_a_return():
    """Overshooting, with TD errors of over 100 rewards, and yet it learns CartPole."""
    config = TDConfig(
        trace="accumulating", learning_rate=0.5 / 16, epsilon=0.05, tilings=16,
        low=(-2.4, -3.0, -0.2095, -3.5), high=(2.4, 3.0, 0.2095, 3.5),
    )  # fmt: skip
    parts = build("td", "CartPole-v1", config=config, num_envs=1, seed=0)
    compiled_td.train(parts.agent, parts.collector, parts.buffer, 20_000)
    assert parts.agent.env_steps == 20_000


def test_traces_of_an_episode_that_was_lost_end_with_it():
    """A resumed run begins fresh episodes where the environment cannot be saved: `is_first` without an end before it."""
    agent = make(5, 1, trace="accumulating", trace_decay=1.0)
    learn(agent, 0, 0, 0.0, 1, 0)
    learn(agent, 1, 0, 0.0, 2, 0)
    fresh = row(3, 0, 1.0, 4, 0)
    fresh["is_first"] = torch.ones(1, 1, dtype=torch.bool)
    agent.prepare(fresh)
    agent.update(fresh)
    assert agent.critic.weight[0].tolist() == [0.0, 0.0, 0.0, 0.5, 0.0]


def test_update_learns_from_the_batch_it_is_given():
    agent = make(5, 1)
    agent.prepare(row(0, 0, 1.0, 1, 0))
    agent.update(row(2, 0, -1.0, 3, 0))
    assert agent.critic.weight[0].tolist() == [0.0, 0.0, -0.5, 0.0, 0.0]


def test_the_policy_of_a_prediction_stays_random():
    agent = make(5, 2, target="prediction", epsilon_decay=0.5)
    for _ in range(5):
        learn(agent, 0, 1, 1.0, 1, 0)
    assert float(agent.policy.exploration[EPSILON]) == 1.0


def test_divergence_names_the_environment():
    agent = make(3, learning_rate=1.0)
    agent.critic.weight[0, 1] = 1e101
    with pytest.raises(NotFinite, match=r"the TD error of environment 1 became -1e\+101"):
        learn(agent, [0, 1, 2], [0, 0, 0], [1.0, 1.0, 1.0], [2, 2, 2], [0, 0, 0])
    assert q(agent, 0, 0) == 1.0 and q(agent, 1, 0) == 1e101 and q(agent, 2, 0) == 0.0


# -- prediction --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", ["accumulating", "dutch"])
def test_prediction_finds_the_values_of_the_random_walk(trace):
    config = TDConfig(target="prediction", trace=trace, trace_decay=0.8, learning_rate=0.05, model="table")
    parts = build("td", "RandomWalk-v0", config, num_envs=1)
    plain.train(parts.agent, parts.collector, parts.buffer, 20_000)
    values = parts.agent.value(torch.arange(19)).numpy()
    assert np.sqrt(np.mean((values - parts.env.values) ** 2)) < 0.15  # 0.55 at the start
    assert np.corrcoef(values, parts.env.values)[0, 1] > 0.97


def test_prediction_of_a_given_policy():
    """Behind the cliff: the values of always going down from the column over the goal are those of the way that is left."""
    q = LinearQ(OneHot(spaces.Discrete(48)), 4)
    q.weight[1] = 1.0  # right ...
    q.weight[2, 11::12] = 2.0  # ... and down along the last column
    q.weight[0, 36] = 3.0  # up first
    critic = LinearQ(OneHot(spaces.Discrete(48)), 1)
    policy = Greedy(q, spaces.Discrete(4), epsilon=0.0)
    config = TDConfig(target="prediction", trace_decay=1.0, learning_rate=0.2)
    parts = assemble(TD(policy, config, critic), make_env("CliffWalking-v1"))
    plain.train(parts.agent, parts.collector, parts.buffer, 13 * 100)
    path = torch.tensor([36, 24, 25, 34, 35])
    torch.testing.assert_close(
        parts.agent.value(path), torch.tensor([-13.0, -12.0, -11.0, -2.0, -1.0]), rtol=0, atol=1e-3
    )


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model": "auto", "trace": "dutch", "target": "q_learning"},
            "true online TD .trace 'dutch'. is for sarsa and prediction, not q_learning",
        ),
        (
            {"model": "auto", "trace": "dutch", "target": "expected_sarsa"},
            "is for sarsa and prediction, not expected_sarsa",
        ),
        (
            {"model": "linear", "trace": "replacing"},
            "replacing traces are for features that are on or off; use accumulating or",
        ),
        (
            {"model": "mlp", "trace": "replacing"},
            "a network's traces are accumulating, not replacing .or set trace_decay 0.",
        ),
        (
            {"model": "auto", "trace": "accumulating", "clear_other_actions": True},
            "clear_other_actions is for replacing",
        ),
        ({"model": "table"}, "a table needs Discrete observations"),
        ({"model": "tile_coding", "low": (-np.inf, 0.0)}, "give low and high, or memory"),
    ],
)
def test_refusals(fields, message):
    with pytest.raises(Incompatible, match=message):
        make(spaces.Box(-1, 1, (2,)), **fields)


def test_continuous_actions_are_refused():
    with pytest.raises(Incompatible, match="action values need Discrete actions, got Box"):
        TD.build(spaces.Discrete(3), spaces.Box(-1, 1, (1,)), TDConfig())


def test_a_model_is_chosen_for_the_space():
    assert isinstance(make(5, model="auto").critic.features, OneHot)
    assert make(spaces.Box(0, 1, (2,)), model="auto").critic.features.active == 8
    assert isinstance(make(spaces.Box(0, 1, (2,)), model="linear", trace="dutch").critic.features, Raw)
