"""The lean optimizer step is torch's own, bit for bit; gradients stay with the optimizer whose step it is; micro-batches; agents
inside agents; what `learn` says."""

import copy
import json
from functools import partial

import pytest
import torch
from gymnasium import spaces
from torch import nn

from whorl.agents.a2c import A2CConfig
from whorl.agents.agent import Agent
from whorl.agents.optimizer_states import load_optimizer_state, optimizer_state
from whorl.agents.optimizers import OPTIMIZERS, FusedAdam, adam, is_fused_adam, limited, optimizer
from whorl.agents.sac import SACConfig
from whorl.agents.step import judge
from whorl.batch import make
from whorl.errors import AgentError, BadInput, NotFinite
from whorl.feeds import Replay, Rollouts
from whorl.functional.streams import stream
from whorl.policies.random import Random
from whorl.training.build import build


def two(weight_decay=0.0):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    twin = copy.deepcopy(net)
    make_adam = lambda n: torch.optim.Adam(  # noqa: E731
        n.parameters(), lr=torch.tensor(0.01), betas=(0.8, 0.99), eps=1e-6, weight_decay=weight_decay, fused=True
    )
    return net, make_adam(net), twin, make_adam(twin)


def gradients(net, seed):
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(seed))
    net.zero_grad()
    net(x).square().sum().backward()
    return [p.grad for p in net.parameters()]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_lean_step_has_the_bits_of_torch(weight_decay):
    net, ours, twin, theirs = two(weight_decay)
    lean = FusedAdam(ours)
    for step in range(20):
        if step == 10:  # a schedule, in place
            ours.param_groups[0]["lr"].fill_(0.003)
            theirs.param_groups[0]["lr"].fill_(0.003)
        lean.step(gradients(net, step))
        gradients(twin, step)
        theirs.step()
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters()))
    for a, b in zip(net.parameters(), twin.parameters()):
        assert all(torch.equal(ours.state[a][key], theirs.state[b][key]) for key in ("step", "exp_avg", "exp_avg_sq"))


def test_a_void_step_moves_nothing_and_is_not_counted():
    net, ours, _, _ = two()
    lean = FusedAdam(ours)
    lean.step(gradients(net, 0))
    before = [p.clone() for p in net.parameters()]
    lean.step(gradients(net, 1), torch.ones(()))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters()))
    assert all(ours.state[p]["step"] == 1 for p in net.parameters())


def test_it_knows_that_a_loaded_optimizer_has_other_state():
    net, ours, twin, theirs = two()
    lean = FusedAdam(ours)
    lean.step(gradients(net, 0))
    saved = optimizer_state(theirs)  # before its first step
    load_optimizer_state(ours, *saved)
    assert not lean.holds(ours)


def test_only_plain_fused_adam_is_stepped_leanly():
    net, ours, _, _ = two()
    assert is_fused_adam(ours)
    groups = [{"params": [p]} for p in net.parameters()]
    for other in (
        torch.optim.AdamW(net.parameters(), fused=True), torch.optim.Adam(net.parameters(), fused=True, amsgrad=True),
        torch.optim.Adam(groups, fused=True), torch.optim.Adam(net.parameters()), torch.optim.SGD(net.parameters()),
    ):  # fmt: skip
        assert not is_fused_adam(other)


def test_judge():
    one, nan = torch.ones(()), torch.tensor(float("nan"))
    assert [float(judge(v * one, loss, norm)) for v, loss, norm in
            ((0, one, one), (0, nan, one), (0, one, nan), (0, nan, nan), (2, one, one), (1, one, nan))] == [0, 1, 2, 1, 2, 1]  # fmt: skip


class Pair(Agent):
    """An actor whose loss goes through a critic of its own optimizer."""

    Config = SACConfig

    def __init__(self, actor_limit=0.0, critic_limit=0.0):
        super().__init__(Random(spaces.Discrete(2)), SACConfig())
        torch.manual_seed(1)
        self.actor, self.critic = nn.Linear(2, 2), nn.Linear(2, 1)
        self.optimizer = adam(self.actor.parameters(), 0.1, max_grad_norm=actor_limit)
        self.critic_optimizer = adam(self.critic.parameters(), 0.1, max_grad_norm=critic_limit)

    def actor_loss(self, batch):
        return self.critic(self.actor(batch["x"])).mean(), {"size": batch["x"].abs().mean()}

    def loss(self, batch):
        return self.critic(batch["x"]).square().mean(), {}


def test_only_the_parameters_of_the_optimizer_move():
    """Compiled: `test_compiled_equals_eager` of agents with several optimizers."""
    agent = Pair()
    batch = make({"x": torch.randn(4, 2, generator=torch.Generator().manual_seed(2))}, (4,))
    critic, actor = [[p.clone() for p in part.parameters()] for part in (agent.critic, agent.actor)]
    metrics = agent.optimize(agent.actor_loss, agent.optimizer, batch)
    assert set(metrics) == {"actor_loss", "actor_grad_norm", "size"}
    assert all(torch.equal(a, b) for a, b in zip(critic, agent.critic.parameters()))
    assert all(p.grad is None for p in agent.critic.parameters())
    assert not torch.equal(actor[0], agent.actor.weight)
    assert set(agent.optimize(agent.loss, agent.critic_optimizer, batch)) == {"loss", "grad_norm"}


def test_the_norm_is_that_before_clipping_and_clipping_is_torchs():
    agent, free = Pair(), Pair()
    agent.optimizer = torch.optim.SGD(limited(agent.actor.parameters(), 0.01, 0.0), lr=1.0)
    batch = make({"x": torch.full((4, 2), 3.0)}, (4,))
    before = [p.clone() for p in agent.actor.parameters()]
    norm = agent.optimize(agent.actor_loss, agent.optimizer, batch)["actor_grad_norm"]
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, agent.actor.parameters())]).norm().item()
    assert norm > 1 and moved == pytest.approx(0.01, rel=1e-3)
    assert free.optimize(free.actor_loss, free.optimizer, batch)["actor_grad_norm"] == norm


def gradient(optimizer):
    """What came to an Adam that has taken one step: its first moment is a tenth of it."""
    (group,) = optimizer.param_groups
    return torch.cat([optimizer.state[p]["exp_avg"].flatten() for p in group["params"]]) * 10


@pytest.mark.parametrize("compiled", [False, pytest.param(True, id="compiled", marks=pytest.mark.compiled)])
def test_each_optimizer_has_its_own_limits_and_sees_the_mean_over_ranks(compiled):
    """Compiled: torch gives up after some recompilations of one function, here none, so each agent and loss has one of its own."""
    batch = make({"x": torch.full((4, 2), 3.0)}, (4,))
    sizes = {}
    for limits in ((0.0, 0.0), (0.01, 0.02)):
        agent = Pair(*limits)
        agent.compiled = compiled
        agent.step.reduce = lambda gradients: [g.mul_(0.5) for g in gradients]  # as if the other rank had zeros
        with torch._dynamo.config.patch(recompile_limit=1):
            norms = (
                agent.optimize(agent.actor_loss, agent.optimizer, batch)["actor_grad_norm"],
                agent.optimize(agent.loss, agent.critic_optimizer, batch)["grad_norm"],
            )
        sizes[limits] = [gradient(o).norm().item() for o in agent.optimizers().values()]
    assert sizes[0.0, 0.0] == pytest.approx([float(norm) for norm in norms], rel=1e-4)
    assert sizes[0.01, 0.02] == pytest.approx([0.01, 0.02], rel=1e-3)
    plain = Pair()
    assert norms[0].item() == pytest.approx(
        plain.optimize(plain.actor_loss, plain.optimizer, batch)["actor_grad_norm"].item() / 2, rel=1e-4
    )


@pytest.mark.compiled
def test_where_torch_cannot_compile_the_steps_are_eager_and_one_sentence_says_so():
    from torch._inductor import config

    eager, agent = Pair(), Pair()
    agent.compiled = True
    batch = make({"x": torch.full((4, 2), 3.0)}, (4,))
    with (
        config.patch({"cpp.cxx": (None, "/nowhere/g++")}),
        pytest.warns(UserWarning, match="steps are eager: .*g\\+\\+"),
    ):
        came = agent.optimize(agent.actor_loss, agent.optimizer, batch)
    assert not agent.compiled
    wanted = eager.optimize(eager.actor_loss, eager.optimizer, batch)
    assert all(torch.equal(came[key], wanted[key]) for key in wanted)
    for _ in range(2):
        for a in (eager, agent):
            a.optimize(a.actor_loss, a.optimizer, batch)
    assert all(torch.equal(a, b) for a, b in zip(eager.parameters(), agent.parameters(), strict=True))
    assert torch.backends.cpu.get_cpu_capability() in torch.compiler.config.cache_key_tag


class Times(Pair):
    """Its loss reads a plain number of its own."""

    scale = 1.0

    def loss(self, batch):
        return self.scale * self.critic(batch["x"] * batch["y"]).square().mean(), {}


@pytest.mark.compiled
@pytest.mark.parametrize("unit", ["step", "episode"])
def test_a_compiled_step_sees_what_may_change_and_looks_at_nothing_else(unit, monkeypatch):
    """Another number of rows, a plain number, one array in two columns; episodes of any length are one graph."""
    real, looked = torch.compile, []

    def only_dynamo(function, options, **rest):  # the backend takes the seconds, and has no part in this
        keep = options["guard_filter_fn"]

        def noted(guards):
            looked.append((sum(kept := keep(guards)), len(guards)))
            return kept

        return real(function, backend="eager", options={"guard_filter_fn": noted}, **rest)

    monkeypatch.setattr(torch, "compile", only_dynamo)
    eager, agent = Times(), Times()
    agent.compiled = True
    for a in (eager, agent):
        a.config = A2CConfig(feed=Rollouts(unit=unit))
    generator = torch.Generator().manual_seed(3)
    x, y, more = torch.randn(3, 9, 2, generator=generator).unbind()
    steps = [(x[:4], y[:4]), (x[:4], more[:4]), (x, y), (x[:4], y[:4]), (x, x), (x, y)]
    for i, (one, other) in enumerate(steps):
        batch = make({"x": one, "y": other}, one.shape[:1])
        for a in (eager, agent):
            a.scale = 1.0 if i < 3 else 2.0
        wanted, came = [a.optimize(a.loss, a.critic_optimizer, batch) for a in (eager, agent)]
        for key in wanted:
            assert came[key].item() == pytest.approx(wanted[key].item(), rel=1e-3), (i, key)
        if i == 2:
            assert len(looked) == (2 if unit == "step" else 1)
    assert agent.compiled and all(kept * 5 < all_of_them for kept, all_of_them in looked)
    with (
        torch._dynamo.config.patch(recompile_limit=1),
        pytest.raises(AgentError, match="Times.loss reads a plain value"),
    ):
        agent.scale = 3.0
        agent.optimize(agent.loss, agent.critic_optimizer, batch)


# -- micro-batches ---------------------------------------------------------------------------------------------------


def rows(masked):
    config = A2CConfig(max_grad_norm=0.0, feed=Rollouts(steps=16))
    p = build("a2c", "CartPole-v1", config, num_envs=4)
    batch = p.agent.prepare(p.collector.collect()).reshape(-1)
    if masked:
        batch["mask"] = torch.arange(len(batch)) % 5 != 1
    return p.agent, batch


@pytest.mark.parametrize("pieces", [1, 2, pytest.param(7, id="7")])
@pytest.mark.parametrize("masked", [False, True])
def test_micro_batches_give_the_gradient_of_the_whole(pieces, masked):
    found = []
    for cut in (False, True):
        agent, batch = rows(masked)
        pieces_of = list(batch.split(-(-len(batch) // pieces))) if cut else batch
        assert not cut or len(pieces_of) == pieces
        metrics = agent.optimize(agent.loss, agent.optimizer, pieces_of)
        found.append((gradient(agent.optimizer), metrics))
    (whole, metrics), (cut, averaged) = found
    torch.testing.assert_close(cut, whole, atol=1e-6, rtol=0)
    assert list(averaged) == list(metrics)
    for key, value in metrics.items():
        assert averaged[key].item() == pytest.approx(value.item(), abs=1e-6, rel=1e-5)
    if pieces == 1:
        assert torch.equal(cut, whole)


@pytest.mark.compiled
def test_compiled_micro_batches_are_the_eager_ones():
    found = []
    for compiled in (False, True):
        agent, batch = rows(masked=True)
        agent.compiled = compiled
        metrics = agent.optimize(agent.loss, agent.optimizer, list(batch.split(40)), weights=[1.0, 3.0])
        found.append((gradient(agent.optimizer), torch.stack(list(metrics.values()))))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


def test_weights_of_micro_batches():
    """(w_1 g_1 + w_2 g_2) / (w_1 + w_2); rows that belong to a batch stay one behind the other."""
    agents = Pair(), Pair(), Pair()
    batches = [make({"x": torch.full((n, 2), x)}, (n,)) for n, x in ((4, 1.0), (2, 5.0))]

    def loss(agent):
        return lambda batch: (agent.loss(batch)[0], {"priority": batch["x"][:, 0], "mean": batch["x"].mean()})

    def named(agent):
        function = loss(agent)
        function.__name__ = "loss"
        return function

    for agent, batch in zip(agents, batches, strict=False):
        agent.optimize(named(agent), agent.critic_optimizer, batch)
    metrics = agents[2].optimize(named(agents[2]), agents[2].critic_optimizer, batches, weights=[1, torch.tensor(3.0)])
    one, two, both = (gradient(agent.critic_optimizer) for agent in agents)
    torch.testing.assert_close(both, (one + 3 * two) / 4, atol=1e-5, rtol=1e-5)
    assert metrics["mean"].item() == pytest.approx((1 + 3 * 5) / 4)
    assert metrics["priority"].tolist() == [1.0] * 4 + [5.0] * 2
    with pytest.raises(BadInput, match="got 2 micro-batches and 1 weights"):
        agents[2].optimize(named(agents[2]), agents[2].critic_optimizer, batches, weights=[1.0])


def test_micro_batches_without_a_row_that_counts_change_nothing_but_the_counter():
    agent, batch = rows(masked=True)
    batch["mask"] = torch.zeros(len(batch), dtype=torch.bool)
    agent.optimize(agent.loss, agent.optimizer, list(batch.split(40)))
    assert not agent.step.void and not gradient(agent.optimizer).any()


# -- names of losses -------------------------------------------------------------------------------------------------


class Scaled:
    """A loss that is an object."""

    def __init__(self, agent, name):
        self.agent, self.name = agent, name

    def __call__(self, batch):
        return 2 * self.agent.loss(batch)[0], {}


def test_a_loss_has_a_name_of_its_own():
    agent = Pair()
    batch = make({"x": torch.ones(4, 2)}, (4,))

    def scaled_loss(factor, batch):
        return factor * agent.loss(batch)[0], {}

    step = lambda loss: agent.optimize(loss, agent.critic_optimizer, batch)  # noqa: E731
    assert set(step(partial(scaled_loss, 2.0))) == {"scaled_loss", "scaled_grad_norm"}
    assert set(step(Scaled(agent, "twice_loss"))) == {"twice_loss", "twice_grad_norm"}
    for nameless in (Scaled(agent, None), partial(Scaled(agent, "")), lambda batch: agent.loss(batch)):
        with pytest.raises(BadInput, match="a loss needs a name of its own"):
            step(nameless)


# -- agents inside agents --------------------------------------------------------------------------------------------


class Holder(Agent):
    """Learns with two others inside, one of them in a list."""

    Config = SACConfig

    def __init__(self):
        super().__init__(Random(spaces.Discrete(2)), SACConfig())
        self.inner, self.more = Pair(), nn.ModuleList([Pair()])

    def update(self, batch):
        metrics = {}
        for agent in (self.inner, self.more[0]):
            agent.report["seen"] = batch["x"].mean()
            metrics |= agent.optimize(agent.loss, agent.critic_optimizer, batch)
            agent.updates += 1
        self.updates += 1
        return metrics


class Batches:
    """A buffer of what it was given."""

    def __init__(self, *batches):
        self.given, self.told = batches, []

    def batches(self, count=None):
        yield from self.given[:count]

    def feedback(self, index, priority):
        self.told.append((index, priority))


def test_an_agent_reaches_the_agents_that_it_holds():
    agent = Holder()
    agent.seed, agent.compiled = 5, True
    inner, other = agent.inner, agent.more[0]
    assert inner.compiled and other.compiled and len({agent.seed, inner.seed, other.seed}) == 3
    assert not torch.equal(agent.noise((3,)), inner.noise((3,)))
    twin = Holder()
    twin.seed = 5
    assert (twin.inner.seed, twin.more[0].seed) == (inner.seed, other.seed)
    names = [f"{where}{which}" for where in ("inner.", "more.0.") for which in ("optimizer", "critic_optimizer")]
    assert list(agent.optimizers()) == names
    assert agent.optimizers()["more.0.optimizer"] is other.optimizer


def test_an_agent_that_holds_agents_comes_back_whole():
    batch = make({"x": torch.full((4, 2), 3.0)}, (4,))
    agent, twin = Holder(), Holder()
    for _ in range(3):
        agent.learn(Batches(batch))
    arrays, numbers = agent.state()
    arrays = {key: value.clone() for key, value in arrays.items()}
    assert (
        not any(key.startswith("policy.") for key in arrays) and "optimizers.inner.critic_optimizer.0.exp_avg" in arrays
    )
    assert twin.load_state(arrays, json.loads(json.dumps(numbers)))
    assert (twin.updates, twin.inner.updates, twin.inner.report["seen"]) == (3, 3, 3.0)
    for one in (agent, twin):
        one.learn(Batches(batch))
    for a, b in zip(agent.state()[0].values(), twin.state()[0].values(), strict=True):
        assert torch.equal(a, b)


def test_a_void_step_of_an_agent_inside_is_told():
    agent = Holder()
    before = [p.clone() for p in agent.parameters()]
    with pytest.raises(NotFinite, match="the loss became NaN or infinite after 0 environment steps"):
        agent.learn(Batches(make({"x": torch.full((4, 2), torch.nan)}, (4,))))
    assert all(torch.equal(a, b) for a, b in zip(before, agent.parameters(), strict=True))


# -- learn -----------------------------------------------------------------------------------------------------------


class Told(Agent):
    """Says what it is given."""

    Config = SACConfig

    def __init__(self, feed=None):
        super().__init__(Random(spaces.Discrete(2)), SACConfig(feed=feed or Replay()))
        self.modes = []

    def update(self, batch):
        self.modes.append([part.training for part in self.modules()])
        return {key: batch[key] for key in batch.keys()}  # noqa: SIM118


def numbers(**values):
    return {key: torch.tensor(value) for key, value in values.items()}


def test_metrics_are_means_over_the_updates_that_have_them():
    every = Batches(numbers(a=1.0, b=2.0), numbers(a=3.0), numbers(a=5.0, c=7.0))
    assert Told().learn(every) == {"a": 3.0, "b": 2.0, "c": 7.0}
    assert Told().learn(every, 2) == {"a": 2.0, "b": 2.0}
    assert Told().learn(every, 0) == {}


def test_a_prioritized_feed_wants_priorities():
    agent = Told(Replay(prioritized=True))
    buffer = Batches(numbers(index=1, priority=2.0))
    assert agent.learn(buffer) == {"index": 1} and buffer.told == [(1, 2.0)]
    with pytest.raises(
        AgentError, match=r"Told.update gives no 'priority' \[B\]: return it, or use feed.prioritized=False"
    ):
        agent.learn(Batches(numbers(a=1.0)))
    assert Told().learn(Batches(numbers(a=1.0, priority=2.0))) == {"a": 1.0}  # nobody asked for it


def test_modules_that_come_later_follow_the_mode():
    agent = Told()
    agent.first = nn.Sequential(nn.Linear(2, 2))
    agent.learn(Batches(numbers(a=1.0)))
    agent.first = nn.Sequential(nn.BatchNorm1d(2))  # in place of another
    agent.first[0].extra = nn.Dropout()
    agent.learn(Batches(numbers(a=1.0)))
    assert all(map(all, agent.modes)) and not any(part.training for part in agent.modules())


def test_noise_by_name_is_other_noise():
    agent = Told()
    agent.seed, agent.updates = 3, 4
    plain, again, named, other = (agent.noise((5,), name=name) for name in ("", "", "actor", "critic"))
    known = torch.randn(5, generator=torch.Generator().manual_seed(stream(3, "learning", 4)))
    assert torch.equal(plain, known) and torch.equal(plain, again)
    assert len({tuple(x.tolist()) for x in (plain, named, other)}) == 3
    assert torch.equal(named, agent.noise((5,), name="actor"))
    assert not torch.equal(agent.noise((5,), "uniform"), plain)


def test_an_agent_names_the_array_that_its_file_lacks():
    agent = Holder()
    agent.learn(Batches(make({"x": torch.full((4, 2), 3.0)}, (4,))))
    arrays, numbers = agent.state()
    del arrays["optimizers.inner.critic_optimizer.1.exp_avg_sq"]
    with pytest.raises(BadInput, match="the array 'optimizers.inner.critic_optimizer.1.exp_avg_sq' is not there"):
        agent.load_state(arrays, numbers)


def stepped(name: str) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    parameters = [nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(2))]
    made = optimizer(name, parameters, 1e-3, 1e-8, 0.0, 0.9)
    for p in parameters:
        p.grad = torch.full_like(p, 0.5)
    made.step()
    return parameters, made


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_comes_back(name):
    parameters, made = stepped(name)
    others, other = stepped(name)
    other.state.clear()
    load_optimizer_state(other, *optimizer_state(made))
    for p in (*parameters, *others):
        p.grad = torch.full_like(p, -0.25)
    made.step(), other.step()
    assert all(map(torch.equal, parameters, others))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"0.exp_avg_sq": torch.tensor(0.5)},
            r"'0.exp_avg_sq' is wrong: .* shaped as it keeps it: step \[\], exp_avg \[3, 2\], exp_avg_sq \[3, 2\]",
        ),
        ({"1.exp_avg": torch.zeros(3, 2)}, "shaped as it keeps it"),
        ({"1.step": torch.zeros(9)}, "shaped as it keeps it"),
        ({"1.exp_avg": torch.full((2,), torch.nan)}, "must be finite"),
        ({"1.exp_avg": None}, "the array '1.exp_avg' is not there: .* shaped as it keeps it"),
        ({"1.more": torch.zeros(2)}, "the array '1.more' is wrong: .* shaped as it keeps it"),
    ],
)
def test_what_a_kernel_would_walk_beyond_is_refused(change, message):
    parameters, made = stepped("adam")
    tensors, groups = optimizer_state(made)
    with pytest.raises(BadInput, match=message):
        load_optimizer_state(made, {key: x for key, x in (tensors | change).items() if x is not None}, groups)
    for betas in ([200_000.0, 0.9], [-0.5, 0.9], ["much", 0.9], [0.9, float("nan")]):
        with pytest.raises(BadInput, match="are none that it can step with: (ValueError|TypeError)"):
            load_optimizer_state(made, tensors, [groups[0] | {"betas": betas}])
    with pytest.raises(BadInput, match="shaped as it keeps it: .*max_exp_avg_sq"):
        load_optimizer_state(made, tensors, [groups[0] | {"amsgrad": True}])
    load_optimizer_state(made, tensors, groups)


@pytest.mark.parametrize("agent", ["trpo", "reinforce"])
def test_every_agent_s_own_optimizer_comes_back(agent):
    one, other = (build(agent, "CartPole-v1", num_envs=2).agent for _ in range(2))
    arrays, numbers = one.state()
    assert other.load_state(arrays, json.loads(json.dumps(numbers)))


class OfItsOwn(torch.optim.Optimizer):
    """Keeps a matrix of each vector, and cannot be copied."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1})

    def __deepcopy__(self, memo):
        raise TypeError

    def step(self, closure):
        raise TypeError


def test_an_optimizer_of_the_user_s_keeps_what_it_likes():
    p = nn.Parameter(torch.ones(3))
    one, other = OfItsOwn([p]), OfItsOwn([p])
    one.state[p] = {"curvature": torch.eye(3)}
    load_optimizer_state(other, *optimizer_state(one))
    assert torch.equal(other.state[p]["curvature"], torch.eye(3))
