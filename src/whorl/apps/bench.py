"""How fast whorl learns on this machine: the same work with every body of updates, in turn. benchmarks/ puts peers beside it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from whorl.errors import BadInput, Incompatible, StopTraining
from whorl.training.loggers import Logger
from whorl.training.settings import Update
from whorl.training.start import train

ENDLESS = 100_000_000  # steps: the clock ends each run
_COMMON: dict[str, Any] = {
    "learning_rate": 1e-3,
    "entropy_weight": 0.01,
    "feed.epochs": 4,
    "feed.minibatches": 4,
    "feed.steps": 128,
}
_Q: dict[str, Any] = {
    "epsilon_steps": 1,
    "epsilon_min": 0.05,
    "feed.warmup": 1_000,
}  # acting at epsilon 1 would skip the network
_DQN = {
    **_Q,
    "learning_rate": 2.5e-4,
    "double": False,
    "target_rate": 1.0,
    "hidden": (120, 84),
    "feed.capacity": 10_000,
}


class Work(NamedTuple):
    """Something to learn, and what of it is timed."""

    title: str
    agent: str
    env: str
    counted_from: int  # environment steps: what happens once, such as filling a buffer, lies before
    row: int  # steps between rows of the log; the clock is read there, never in a step
    fields: Mapping[str, Any] = {}  # of `whorl.train`


WORKS = {
    "ppo": Work("PPO, CartPole-v1, 8 x 128", "ppo", "CartPole-v1", 2_048, 2_048),
    "ppo_1024": Work(
        "PPO, CartPole-v1, 1024 x 32", "ppo", "CartPole-v1", 32_768, 32_768, {"num_envs": 1024, "feed.steps": 32}
    ),
    "ppo_pendulum": Work(
        "PPO, Pendulum-v1, 8 x 128", "ppo", "Pendulum-v1", 2_048, 2_048,
        {**_COMMON, "num_envs": 8, "normalize_return": False, "anneal_steps": 0, "discount": 0.99},
    ),
    "ppo_cheetah": Work("PPO, HalfCheetah-v5, 8 x 128", "ppo", "HalfCheetah-v5", 2_048, 2_048, {**_COMMON, "num_envs": 8}),
    "dqn_32": Work(
        "DQN, CartPole-v1, 120x84, 32 rows every step", "dqn", "CartPole-v1", 1_500, 250,
        {**_DQN, "num_envs": 1, "target_every": 500, "feed.batch_size": 32, "feed.replay_ratio": 1.0},
    ),
    "dqn_128": Work(
        "DQN, CartPole-v1, 120x84, 128 rows every 10 steps", "dqn", "CartPole-v1", 2_000, 1_000,
        {**_DQN, "num_envs": 1, "target_every": 50, "feed.batch_size": 128, "feed.replay_ratio": 0.1, "feed.steps": 10},
    ),
    "sac": Work(
        "SAC, Pendulum-v1, 256x256, 256 rows every step", "sac", "Pendulum-v1", 150, 25,
        {"num_envs": 1, "learning_rate": 1e-3, "critic_learning_rate": 1e-3, "feed.warmup": 100,
         "feed.batch_size": 256, "feed.replay_ratio": 1.0},
    ),
    "a2c": Work("A2C, CartPole-v1, 8 x 5", "a2c", "CartPole-v1", 2_000, 1_000),
    "reinforce": Work("REINFORCE, CartPole-v1, 8 x 250", "reinforce", "CartPole-v1", 2_000, 2_000),
    "c51": Work("C51, CartPole-v1, 128 rows every 8 steps", "c51", "CartPole-v1", 2_000, 500, _Q),
    "qr_dqn": Work("QR-DQN, CartPole-v1, 128 rows every 8 steps", "qr_dqn", "CartPole-v1", 2_000, 500, _Q),
}  # fmt: skip


class Speed(NamedTuple):
    """What `measure` found."""

    steps_per_second: float
    share: float  # of its time that the process had the processor for: far below 1, something else ran
    final_return: float | None  # mean of the newest training episodes
    update: Update  # the body that was chosen


class Clock(Logger):
    """Reads the time at rows of the log, and ends the run once the rows that count span `seconds`."""

    def __init__(self, counted_from: int, seconds: float):
        self.counted_from, self.seconds = counted_from, seconds
        self.rows: list[tuple[int, float, float]] = []  # steps, seconds, seconds of this process
        self.final_return: float | None = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.final_return = metrics.get("rollout/ep_rew_mean")
        if step >= self.counted_from:
            self.rows.append((step, time.perf_counter(), time.process_time()))
            if self.rows[-1][1] - self.rows[0][1] >= self.seconds and len(self.rows) > 1:
                raise StopTraining


def measure(work: Work, update: Update = "auto", seconds: float = 1.5, seed: int = 0) -> Speed:
    """Train as `whorl.train` does, run folder and log as shipped, without evaluations and checkpoints, and say how fast it was.

    Raises BadInput or Incompatible for a body that the agent cannot take, and an environment that is not installed.
    """
    clock = Clock(work.counted_from, seconds)
    with tempfile.TemporaryDirectory() as runs:
        run = train(
            work.agent, work.env, runs=runs, quiet=True, loggers=[clock], seed=seed, update=update, total_steps=ENDLESS,
            eval_every=0, checkpoint_every=0, log_every=work.row, window=20, **work.fields,
        )  # fmt: skip
    (steps, wall, cpu), (last, end, cpu_end) = clock.rows[0], clock.rows[-1]
    return Speed((last - steps) / (end - wall), (cpu_end - cpu) / (end - wall), clock.final_return, run.settings.update)


class Found(NamedTuple):
    """What `compare` found of one work."""

    work: str
    medians: dict[str, float]  # body of updates -> environment steps per second
    refused: dict[str, str]  # body that cannot be -> why


def compare(only: Sequence[str], updates: Sequence[Update], seconds: float = 1.5, repeats: int = 1) -> Iterator[Found]:
    """Measure each of `WORKS` that is asked for, all if none is, with every body in turn.

    Raises BadInput for a name that is none, and where no body is asked for.
    """
    if not updates:
        raise BadInput("there is no body of updates to measure: name one, such as --updates eager")
    if strange := [name for name in only if name not in WORKS]:
        raise BadInput(f"there is no work {', '.join(strange)} to measure; there is {', '.join(WORKS)}")
    for name in only or WORKS:
        speeds: dict[str, list[float]] = {}
        refused: dict[str, str] = {}
        for seed in range(repeats):
            for update in updates:
                try:
                    speed = measure(WORKS[name], update, seconds, seed)
                except (BadInput, Incompatible) as reason:
                    refused[update] = str(reason)
                else:
                    speeds.setdefault(update, []).append(speed.steps_per_second)
        yield Found(name, {update: statistics.median(each) for update, each in speeds.items()}, refused)


def cells(found: Found, updates: Sequence[Update]) -> list[str]:
    """A row of the table: name, title, speeds, and how many times the first body's the best is."""
    medians = [found.medians.get(update) for update in updates]
    speeds = [speed for speed in medians if speed is not None]
    ratio = f"{max(speeds) / medians[0]:.2f}x" if medians[0] and len(speeds) > 1 else "-"
    shown = ("-" if speed is None else f"{speed:,.0f}" for speed in medians)
    return [found.work, WORKS[found.work].title, *shown, ratio]
