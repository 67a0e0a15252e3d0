"""What sequences cost: a memory along [L, B] by torch's kernel between episodes, beside a Python loop over time, forward and backward.

    python benchmarks/recurrent.py [--repeats 7]

And one torso beside two, an update of PPO on 84 x 84 x 4 images; and that CNN with channels first in memory beside last. CPU seconds of
this process, interleaved, medians.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import torch
from gymnasium import spaces

from whorl.agents.ppo import PPO, PPOConfig
from whorl.batch import make
from whorl.nets.cnn import NatureCNN
from whorl.nets.encoder import Encoder
from whorl.nets.rnn import Memory

L, B, WIDTH = 128, 16, 64
BOX = spaces.Box(-np.inf, np.inf, (8,), np.float32)


def along(memory: Memory, x: torch.Tensor, state: torch.Tensor, first: torch.Tensor) -> None:
    memory.unroll(x, state, first)[0].square().mean().backward()


def by_steps(memory: Memory, x: torch.Tensor, state: torch.Tensor, first: torch.Tensor) -> None:
    features = []
    for t in range(len(x)):
        state = memory.step(x[t], state * ~first[t].unsqueeze(-1))
        features.append(memory.features(state))
    torch.stack(features).square().mean().backward()


def cpu(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def ratio(repeats: int, one: Callable[[], None], other: Callable[[], None]) -> float:
    """Of the medians of both, in turn."""
    one(), other()
    pairs = [(cpu(one), cpu(other)) for _ in range(repeats)]
    return median(a for a, _ in pairs) / median(b for _, b in pairs)


def update(shared: bool) -> Callable[[], None]:
    space, actions = spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(6)
    agent = PPO.build(space, actions, PPOConfig(shared=shared))
    n = 256
    rows = make(
        {
            "observation": torch.randint(0, 255, (n, 4, 84, 84), dtype=torch.uint8),
            "action": torch.randint(0, 6, (n,)),
            "log_prob": torch.full((n,), -1.8),
            "advantage": torch.randn(n),
            "return": torch.randn(n),
            "value": torch.randn(n),
        },
        (n,),
    )
    return lambda: agent.update(rows) and None  # type: ignore[func-returns-value]


def pass_of(cnn: NatureCNN, images: torch.Tensor, layout: torch.memory_format) -> None:
    pixels = (images.float() / 255).contiguous(memory_format=layout)
    cnn.head(cnn.convolutions(pixels)).square().mean().backward()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    found = {}
    for cell in ("gru", "lstm"):
        memory = Memory(Encoder(BOX, (64,)), cell, WIDTH)  # type: ignore[arg-type]
        x, first = torch.randn(L, B, 8), torch.rand(L, B) < 1 / 500
        state = memory.initial(B)
        found[f"{cell} along a sequence / by steps"] = ratio(
            repeats, partial(along, memory, x, state, first), partial(by_steps, memory, x, state, first)
        )
    found["two torsos / one, PPO update"] = ratio(repeats, update(False), update(True))
    cnn, images = NatureCNN((4, 84, 84)), torch.randint(0, 255, (256, 4, 84, 84), dtype=torch.uint8)
    layouts = (partial(pass_of, cnn, images, layout) for layout in (torch.contiguous_format, torch.channels_last))
    found["channels first / last, the CNN"] = ratio(repeats, *layouts)
    print(json.dumps({name: round(value, 3) for name, value in found.items()}, indent=1))


if __name__ == "__main__":
    main()
