"""TD(lambda) against known numbers: writes results/td.json and results/td.md, and fails when a bar is missed.

    python benchmarks/td.py                  all of it
    python benchmarks/td.py random_walk      one experiment: random_walk, mountain_car, cliff_walking, cartpole

Bars are those of an independent implementation of the same experiments (Sutton and Barto 2018, examples 7.1, 12.1, 10.1, 6.6).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whorl.agents.td import TDConfig
from whorl.envs import native
from whorl.errors import NotFinite
from whorl.functional import n_step_return
from whorl.training import folder
from whorl.training.build import Parts, build
from whorl.training.catalog import find
from whorl.training.curve import moving_mean
from whorl.training.evaluate import evaluate
from whorl.training.loops import compiled_td

RESULTS = Path(__file__).parent.parent / "results"
ALPHAS = [round(0.05 * k, 2) for k in range(1, 21)]
Row = dict[str, Any]  # what, value, low, high


def episodes(parts: Parts, count: int) -> list:
    """The first `count` training episodes."""
    found: list = []
    parts.collector.most_episodes = count
    hook = lambda rollout, metrics: found.extend(parts.collector.episodes)  # noqa: E731
    compiled_td.train(parts.agent, parts.collector, parts.buffer, 10**12, [hook])
    return found


# -- 19-state random walk ------------------------------------------------------------------------------------------------


def random_walk(runs: int = 1000) -> list[Row]:
    """Root mean square error over the states after each of the first 10 episodes, averaged; best step size."""
    methods: dict[str, Callable[[float], float]] = {
        "TD(0)": lambda alpha: lambda_error(alpha, runs, trace_decay=0.0),
        "4-step TD": lambda alpha: n_step_error(alpha, runs, 4),
        "TD(.8), accumulating traces": lambda alpha: lambda_error(alpha, runs, trace_decay=0.8, trace="accumulating"),
        "true online TD(.8)": lambda alpha: lambda_error(alpha, runs, trace_decay=0.8, trace="dutch"),
    }
    bars = (0.345, 0.264, 0.262, 0.254)
    rows = []
    for (name, error), bar in zip(methods.items(), bars, strict=True):
        errors = {alpha: error(alpha) for alpha in ALPHAS}
        best = min(errors, key=errors.__getitem__)
        what = f"random walk, {name}, best alpha {best:g}: root mean square error, {runs} runs"
        rows.append({"what": what, "value": round(errors[best], 4), "low": bar - 0.006, "high": bar + 0.006})
    below = rows[2]["value"] - rows[3]["value"]
    rows.append(
        {
            "what": "random walk, TD(.8) minus true online TD(.8), same walks",
            "value": round(below, 4),
            "low": 1e-9,
            "high": 1,
        }
    )
    return rows


def lambda_error(alpha: float, runs: int, **fields: Any) -> float:
    config = TDConfig(model="table", learning_rate=alpha, epsilon=0.0, **fields)
    parts = build("td", "RandomWalk-v0", config=config, num_envs=1)
    weight, true = parts.agent.critic.weight[0].numpy(), parts.env.values
    errors = np.zeros((runs, 10))
    try:
        for run in range(runs):
            weight[:] = 0.0
            for episode in range(10):
                episodes(parts, parts.collector.finished + 1)
                errors[run, episode] = np.sqrt(np.mean((weight - true) ** 2))
    except NotFinite:  # at large step sizes accumulating traces diverge
        return float("inf")
    return float(errors.mean())


def n_step_error(alpha: float, runs: int, n: int) -> float:
    """V(s_k) += alpha (G_n[k] - V(s_k)) as soon as G_n[k] is known, for all walks side by side."""
    env = native.make("RandomWalk-v0", runs, seed=0)
    value, walk, errors = np.zeros((runs, env.observation_space.n)), np.arange(runs), []
    for _ in range(10):
        state, reward, terminated, successor = whole_walks(env)
        length = terminated.argmax(0) + 1
        for k in range(len(state)):
            rows, on = slice(k, k + n), k < length
            next_value = torch.from_numpy(value[walk, successor[rows]])
            ended = torch.from_numpy(terminated[rows])
            target = n_step_return(
                torch.from_numpy(reward[rows]).double(), next_value, ended, torch.zeros_like(ended), 1.0, n
            )[0]
            here = state[k]
            value[walk[on], here[on]] += alpha * (target.numpy() - value[walk, here])[on]
        errors.append(np.sqrt(((value - env.values) ** 2).mean(1)))
    return float(np.mean(errors))


def whole_walks(env: Any) -> tuple[np.ndarray, ...]:
    """One episode of each environment, [T, N], T the longest; rows behind an end do not count."""
    state, done, rows = env.reset().copy(), np.zeros(env.num_envs, bool), []
    while not done.all():
        step = env.step(np.zeros(env.num_envs, np.int64))
        rows.append((state, step.reward.copy(), step.terminated.copy(), step.next_observation.copy()))
        state, done = step.observation.copy(), done | step.terminated
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


# -- the others ----------------------------------------------------------------------------------------------------------


def mountain_car(runs: int = 20) -> list[Row]:
    """Steps per episode of greedy linear Sarsa, 8 tilings of 8 x 8, alpha .5 / 8, time limit 10,000."""

    def lengths(**fields: Any) -> np.ndarray:
        table = []
        for seed in range(runs):
            env = native.make("MountainCar-v0", 1, seed, max_episode_steps=10_000)
            parts = build("td", env, config=TDConfig(learning_rate=0.5 / 8, epsilon=0.0, **fields), seed=seed)
            table.append([e.length for e in episodes(parts, 105)])
        return np.array(table)

    def row(what: str, table: np.ndarray, first: int, last: int, bar: float, slack: float) -> Row:
        value = round(float(table[:, first - 1 : last].mean()), 1)
        return {
            "what": f"mountain car, {what}: steps, episodes {first} to {last}",
            "value": value,
            "low": bar - slack,
            "high": bar + slack,
        }

    plain = lengths(trace_decay=0.0)
    rows = [row("Sarsa", plain, *numbers) for numbers in ((46, 55, 162, 10), (96, 105, 141, 8), (1, 50, 280, 10))]
    rows.append(row("Sarsa(.9), replacing traces", lengths(trace_decay=0.9), 1, 50, 210, 10))
    rows.append(
        row(
            "the same, other actions' traces cleared",
            lengths(trace_decay=0.9, clear_other_actions=True),
            1,
            50,
            244,
            10,
        )
    )
    stopped = 0
    for seed in range(runs):
        env = native.make("MountainCar-v0", 1, seed, max_episode_steps=10_000)
        config = TDConfig(trace="accumulating", trace_decay=0.9, learning_rate=0.5 / 8, epsilon=0.0)
        try:
            episodes(build("td", env, config=config, seed=seed), 105)
        except NotFinite:
            stopped += 1
    what = f"mountain car, Sarsa(.9), accumulating traces: runs of {runs} that stop and name the TD error"
    return [*rows, {"what": what, "value": stopped, "low": runs, "high": runs}]


def cliff_walking(runs: int = 10) -> list[Row]:
    """Tables, alpha .5, epsilon .1, 500 episodes: the return of the greedy path, and of the last 400 training episodes."""
    greedy, online = {}, {}
    for target in ("q_learning", "sarsa", "expected_sarsa"):
        paths, returns = [], []
        for seed in range(runs):
            env = native.make("CliffWalking-v1", 1, seed, max_episode_steps=10_000)
            config = TDConfig(target=target, model="table", trace_decay=0.0, learning_rate=0.5, epsilon=0.1)
            parts = build("td", env, config=config, seed=seed)
            returns += [e.ret for e in episodes(parts, 500)[-400:]]
            world = native.make("CliffWalking-v1", 1, 0, max_episode_steps=200)
            paths.append(float(evaluate(parts.agent.policy, world, 1, 0).returns[0]))
        greedy[target], online[target] = paths, round(float(np.mean(returns)), 2)
    q, s, e = online.values()
    path, safe = min(greedy["q_learning"]), float(np.median(greedy["sarsa"]))
    return [
        {
            "what": "cliff walking, Q-learning: return of the greedy path, lowest",
            "value": path,
            "low": -13,
            "high": -13,
        },
        {"what": "cliff walking, Sarsa: return of the (safe) path, median", "value": safe, "low": -19, "high": -15},
        {"what": "cliff walking, online: Sarsa minus Q-learning", "value": round(s - q, 2), "low": 0, "high": 100},
        {"what": "cliff walking, online: Expected Sarsa minus Sarsa", "value": round(e - s, 2), "low": 0, "high": 100},
    ]


def cartpole(runs: int = 10) -> list[Row]:
    """The preset of CartPole-v1: the best mean over 100 consecutive training episodes, within 1,000."""
    best = []
    for seed in range(runs):
        parts = build("td", "CartPole-v1", config=find("td", "CartPole-v1").config, num_envs=1, seed=seed)
        best.append(moving_mean(np.array([e.ret for e in episodes(parts, 1000)]), 100)[99:].max())
    what = f"CartPole-v1, Sarsa(.9), 16 tilings: seeds of {runs} with 100 episodes of mean 475 within 1,000"
    return [{"what": what, "value": int(np.sum(np.array(best) >= 475)), "low": runs, "high": runs}]


EXPERIMENTS = {f.__name__: f for f in (random_walk, mountain_car, cliff_walking, cartpole)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="*", choices=[*EXPERIMENTS, []])
    chosen = parser.parse_args().experiment or list(EXPERIMENTS)
    file = RESULTS / "td.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in chosen:
        meta = {key: value for key, value in folder.meta().items() if key != "command"}
        results[name] = {"command": f"python benchmarks/td.py {name}", "meta": meta, "rows": EXPERIMENTS[name]()}
        for row in results[name]["rows"]:
            print(
                f"{'ok ' if good(row) else 'NOT'} {row['what']}: {row['value']} ({row['low']:g} to {row['high']:g})",
                flush=True,
            )
    file.write_text(json.dumps(results, indent=1) + "\n")
    lines = [
        f"| {r['what']} | {r['value']} | {r['low']:g} to {r['high']:g} |" for e in results.values() for r in e["rows"]
    ]
    head = "# TD(lambda)\n\nProduced by `python benchmarks/td.py`; versions, commit and machine are in `td.json`.\n\n"
    (RESULTS / "td.md").write_text(head + "| what | measured | bar |\n|---|---|---|\n" + "\n".join(lines) + "\n")
    sys.exit(not all(good(row) for name in chosen for row in results[name]["rows"]))


def good(row: Row) -> bool:
    return row["low"] <= row["value"] <= row["high"]


if __name__ == "__main__":
    main()
