"""How fast prioritized replay is: one thread, CPU, rows of 17 observation and 6 action numbers (float32), batches of 256.

    python benchmarks/prioritized.py [--rows 1000000] [--cpprb]

One JSON line for each of: the draw (indexes and weights), the draw and the reading of its rows, the feedback of its
priorities; {name, rows, per_second}, the median of 5 measurements. With --cpprb (an interpreter that has both) its
PrioritizedReplayBuffer does the same in the same run, alternately; `times_cpprb` is ours over theirs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from whorl import batch
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.sample_prioritized import Prioritized
from whorl.buffers.storage_memory import Memory

SIZE, CHUNK, OBSERVATION, ACTION = 256, 10_000, 17, 6
CALLS, MEASUREMENTS = 1_000, 5


def rollout(steps: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "observation": generator.standard_normal((steps, OBSERVATION), np.float32),
        "action": generator.standard_normal((steps, ACTION), np.float32),
        "next_observation": generator.standard_normal((steps, OBSERVATION), np.float32),
        "reward": generator.standard_normal(steps, np.float32),
        "terminated": np.zeros(steps, bool),
    }


def whorl_work(rows: int, priorities: np.ndarray) -> dict[str, Callable[[int], object]]:
    buffer = ReplayBuffer(Memory(rows, lanes=1), Prioritized(seed=0), batch_size=SIZE)
    values = {key: torch.from_numpy(value)[:, None] for key, value in rollout(CHUNK).items()}
    ends = {"terminated": values["terminated"], "truncated": values["terminated"]}
    successor = batch.make({"observation": values["next_observation"], "reward": values["reward"], **ends}, (CHUNK, 1))
    entries = {"observation": values["observation"], "action": values["action"], "next": successor}
    for _ in range(0, rows, CHUNK):
        buffer.add(batch.make(entries, (CHUNK, 1)))
    storage, sampler = buffer.storage, buffer.sampler
    given = list(torch.from_numpy(priorities))
    sampler.feedback(storage, torch.arange(rows), torch.from_numpy(np.resize(priorities, rows)))
    drawn = [sampler.draw(storage, SIZE)[0] for _ in range(CALLS)]
    return {
        "draw": lambda i: sampler.draw(storage, SIZE),
        "draw and read": lambda i: buffer.sample(),
        "feedback": lambda i: buffer.feedback(drawn[i], given[i]),
    }


def cpprb_work(rows: int, priorities: np.ndarray) -> dict[str, Callable[[int], object]]:
    from cpprb import PrioritizedReplayBuffer

    fields = {
        "obs": {"shape": OBSERVATION},
        "act": {"shape": ACTION},
        "next_obs": {"shape": OBSERVATION},
        "rew": {},
        "done": {},
    }
    buffer = PrioritizedReplayBuffer(rows, fields, alpha=0.6)
    values = dict(zip(fields, rollout(CHUNK).values(), strict=True))
    values = {"obs": values["obs"], "act": values["act"], "next_obs": values["next_obs"], "rew": values["rew"]}
    for _ in range(0, rows, CHUNK):
        buffer.add(**values, done=np.zeros(CHUNK))
    buffer.update_priorities(np.arange(rows), np.resize(priorities, rows))
    drawn = [buffer.sample(SIZE, 0.4)["indexes"] for _ in range(CALLS)]
    return {
        "draw and read": lambda i: buffer.sample(SIZE, 0.4),
        "feedback": lambda i: buffer.update_priorities(drawn[i], priorities[i]),
    }


def per_second(f: Callable[[int], object]) -> float:
    start = time.perf_counter()
    for i in range(CALLS):
        f(i)
    return CALLS / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="how many rows there are to draw from")
    parser.add_argument("--cpprb", action="store_true", help="time cpprb's buffer too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    priorities = np.random.default_rng(1).exponential(size=(CALLS, SIZE)).astype(np.float32)
    ours = whorl_work(arguments.rows, priorities)
    theirs = cpprb_work(arguments.rows, priorities) if arguments.cpprb else {}
    for name, f in ours.items():
        f(0)  # compiles
        figures = [(per_second(f), per_second(theirs[name]) if name in theirs else None) for _ in range(MEASUREMENTS)]
        line = {"name": name, "rows": arguments.rows, "per_second": round(float(np.median([a for a, _ in figures])))}
        if name in theirs:
            line["cpprb_per_second"] = round(float(np.median([b for _, b in figures])))
            line["times_cpprb"] = round(line["per_second"] / line["cpprb_per_second"], 2)
        print(json.dumps(line))


if __name__ == "__main__":
    main()
