"""`check_agent`: the conformance test of every agent. Its failures name the part that is broken."""

from __future__ import annotations

import numpy as np
import torch

from whorl.agents.step import Batches, Loss, Weights, name_of
from whorl.batch import Batch, Metrics
from whorl.envs.native import WORLDS
from whorl.envs.native import make as make_world
from whorl.envs.native.probes import Probe
from whorl.errors import AgentError, Incompatible
from whorl.options import override
from whorl.training.build import Parts, build
from whorl.training.catalog import AgentLike, agent_class, agent_name, find
from whorl.training.evaluate import evaluate
from whorl.training.loops import plain

PROBES = [name for name in WORLDS if name.startswith("Probe")]
OBSERVATIONS = {"ProbeObservation": (-1.0, 1.0), "ProbeDiscount": (0.0, 1.0), "ProbePolicy": (-1.0, 1.0)}


def check_agent(
    agent: AgentLike, steps: int = 20_000, seed: int = 0, tolerance: float = 0.15, **fields: object
) -> dict[str, str]:
    """Train `agent` on every probe environment it can act in; returns what was checked on each.

    agent: a name or a class; of one that is built, the class with its config.
    Its values (where it has `value(observation)`) must come within `tolerance` of the true ones, its greedy actions within that of
    the best return. Also: its losses are pure. `fields` override its config.
    Raises AgentError naming the probe, what was expected and what came.
    """
    config = override(find(agent, "").config, fields)
    agent, name = agent if isinstance(agent, str) else agent_class(agent), agent_name(agent)
    checked = {}
    for probe in PROBES:
        try:
            parts = build(agent, probe, config, num_envs=8, seed=seed, update="eager")  # its own loss
        except Incompatible as reason:
            checked[probe] = f"cannot act there: {reason}"
            continue
        _check_pure(name, build(agent, probe, config, num_envs=8, seed=seed, update="eager"))
        assert parts.collector is not None
        plain.train(parts.agent, parts.collector, parts.buffer, steps)
        checked[probe] = ", ".join(_check_probe(name, parts, probe, tolerance)) or "runs"
    return checked


PATIENCE = 100  # updates in which every optimizer has its turn


def _check_pure(name: str, parts: Parts) -> None:
    """Two calls of each loss on one batch: equal results, and no parameter or buffer changed."""
    agent = parts.agent
    for called, loss, batch in _losses(parts):
        before = {key: value.clone() for key, value in agent.state_dict().items()}
        results = [loss(batch)[0] for _ in range(2)]
        changed = [key for key, value in agent.state_dict().items() if not torch.equal(value, before[key])]
        if changed or not torch.equal(*results):
            raise AgentError(
                f"{name}.{called} is not pure: it changed {changed or 'its own result'}; move state changes into update or learn"
            )


def _losses(parts: Parts) -> list[tuple[str, Loss, Batch]]:
    """(name, loss, batch) of every optimizer's last step, as they came to `optimize`."""
    agent, buffer = parts.agent, parts.buffer
    seen: dict[int, tuple[str, Loss, Batch]] = {}
    optimize = agent.optimize

    def record(loss: Loss, optimizer: torch.optim.Optimizer, batches: Batches, weights: Weights = None) -> Metrics:
        seen[id(optimizer)] = name_of(loss), loss, batches[-1] if isinstance(batches, list) else batches
        return optimize(loss, optimizer, batches, weights)

    agent.__dict__["optimize"] = record
    assert parts.collector is not None
    for _ in range(PATIENCE):
        buffer.add(agent.prepare(parts.collector.collect()))
        agent.learn(buffer, 1)
        if len(seen) == len(agent.optimizers()):
            break
    return list(seen.values())


def _check_probe(name: str, parts: Parts, probe: str, tolerance: float) -> list[str]:
    agent, world = parts.agent, parts.env
    assert isinstance(world, Probe)
    checked: list[str] = []
    kind = probe.removesuffix("-v0").removesuffix("Continuous")
    if agent.policy.greedy:
        for x in OBSERVATIONS.get(kind, (0.0,)):
            valued = agent.value(torch.tensor([[x]]))
            if valued is None:
                break
            came = float(valued.detach())
            true = float(world.value(np.array([[x]]), agent.config.discount)[0])
            # a policy that still explores earns less than the best one where actions matter
            slack = tolerance if kind not in ("ProbeAction", "ProbePolicy") else 4 * tolerance
            if abs(came - true) > slack:
                raise AgentError(
                    f"{name} on {probe}: value({x:+.0f}) is {came:.3f}, the true value is {true:.3f}; {_suspect(kind)}"
                )
        else:
            checked.append("values")
    if kind in ("ProbeAction", "ProbePolicy") and agent.policy.greedy:
        result = evaluate(agent.policy, make_world(probe, 100), 100, seed=1)
        best = 0.0 if "Continuous" in probe else 1.0
        if result.returns.mean() < best - tolerance:
            raise AgentError(
                f"{name} on {probe}: mean return {result.returns.mean():.3f}, the best is {best:.0f}; {_suspect(kind)}"
            )
        checked.append("actions")
    return checked


def _suspect(kind: str) -> str:
    part = {
        "ProbeConstant": "the value loss or its optimizer",
        "ProbeObservation": "the gradient through the network's input",
        "ProbeDiscount": "the discount or the bootstrap",
        "ProbeAction": "the advantage or the policy loss",
        "ProbePolicy": "the policy's use of the observation",
    }[kind]
    return f"look at {part}"
