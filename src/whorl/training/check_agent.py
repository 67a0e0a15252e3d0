"""`check_agent`: the conformance test of every agent. Its failures name the part that is broken."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from whorl.agents.agent import Agent
from whorl.envs.native import WORLDS
from whorl.envs.native import make as make_world
from whorl.errors import AgentError, Incompatible
from whorl.feeds import Replay
from whorl.training.build import Parts, build
from whorl.training.catalog import agent_class
from whorl.training.config import override
from whorl.training.evaluate import evaluate
from whorl.training.loops import plain

PROBES = [name for name in WORLDS if name.startswith("Probe")]
OBSERVATIONS = {"ProbeObservation": (-1.0, 1.0), "ProbeDiscount": (0.0, 1.0), "ProbePolicy": (-1.0, 1.0)}


def check_agent(
    agent: str, steps: int = 20_000, seed: int = 0, tolerance: float = 0.15, **fields: Any
) -> dict[str, str]:
    """Train `agent` on every probe environment it can act in; returns what was checked on each.

    Its values (where it has `value(observation)`) must come within `tolerance` of the true ones, its greedy actions within that of
    the best return. Also: its losses are pure. `fields` override its config.
    Raises AgentError naming the probe, what was expected and what came.
    """
    config = override(agent_class(agent).Config(), fields)
    checked = {}
    for probe in PROBES:
        try:
            parts = build(agent, probe, config, num_envs=8, seed=seed)
        except Incompatible as reason:
            checked[probe] = f"cannot act there: {reason}"
            continue
        _check_pure(agent, build(agent, probe, config, num_envs=8, seed=seed))
        plain.train(parts.agent, parts.collector, parts.buffer, steps)
        checked[probe] = ", ".join(_check_probe(agent, parts, probe, tolerance)) or "runs"
    return checked


def _check_pure(name: str, parts: Parts) -> None:
    """Two calls of each loss on one batch: equal results, and no parameter or buffer changed."""
    agent = parts.agent
    rollout = agent.prepare(parts.collector.collect())
    for called, loss, batch in _losses(parts, rollout):
        before = {key: value.clone() for key, value in agent.state_dict().items()}
        results = [loss(batch)[0] for _ in range(2)]
        changed = [key for key, value in agent.state_dict().items() if not torch.equal(value, before[key])]
        if changed or not torch.equal(*results):
            raise AgentError(
                f"{name}.{called} is not pure: it changed {changed or 'its own result'}; move state changes into update or learn"
            )


def _losses(parts: Parts, rollout: Any) -> list[tuple[str, Any, Any]]:
    """Every (name, loss, batch) of one update; of an agent that learns off-policy, as they came to `optimize`."""
    agent: Any = parts.agent
    if not isinstance(agent.config.feed, Replay):
        return [] if type(agent).loss is Agent.loss else [("loss", agent.loss, rollout.reshape(-1))]
    seen, optimize = [], agent.optimize

    def record(loss: Any, optimizer: Any, batch: Any) -> Any:
        seen.append((loss.__name__, loss, batch))
        return optimize(loss, optimizer, batch)

    agent.optimize = record
    parts.buffer.add(rollout)
    for _ in range(getattr(agent.config, "policy_delay", 1)):  # the actor has its turn too
        agent.update(parts.buffer.sample())
    return seen


def _check_probe(name: str, parts: Parts, probe: str, tolerance: float) -> list[str]:
    agent: Any = parts.agent
    world: Any = parts.env
    checked: list[str] = []
    kind = probe.removesuffix("-v0").removesuffix("Continuous")
    if hasattr(agent, "value") and getattr(agent, "critic", agent) is not None and agent.policy.greedy:
        for x in OBSERVATIONS.get(kind, (0.0,)):
            came = float(agent.value(torch.tensor([[x]])).detach())
            true = float(world.value(np.array([[x]]), agent.config.discount)[0])
            # a policy that still explores earns less than the best one where actions matter
            slack = tolerance if kind not in ("ProbeAction", "ProbePolicy") else 4 * tolerance
            if abs(came - true) > slack:
                raise AgentError(
                    f"{name} on {probe}: value({x:+.0f}) is {came:.3f}, the true value is {true:.3f}; {_suspect(kind)}"
                )
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
