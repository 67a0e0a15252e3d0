"""What an agent and its environments will take of memory, found before anything is allocated. Counted generously: sizes that could
multiply each other do."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import torch
from gymnasium import Space

from whorl import batch, options, spaces
from whorl.buffers.layout import Layout, available_memory, check_disk, check_room
from whorl.buffers.storage_memory import Memory
from whorl.envs.env import Env
from whorl.errors import BadInput, Incompatible
from whorl.feeds import Feed
from whorl.spaces import action_size, flat_size

COPIES = 4  # of a weight in training: itself, its gradient, two moments
NATIVE, FOREIGN = (
    1 << 9,
    1 << 16,
)  # bytes that an environment takes at least: a row of arrays, or an object with what it imports
BINS = 1 << 20  # more along each number of an observation are no table


def numbers(config: object, observation: int, actions: int, rows: int) -> int:
    """Most numbers that the networks of an agent hold at once, or their outputs for so many rows.

    config: an agent's, checked; its fields say what of a network they multiply (`Bounds.sizes`). observation, actions: how many numbers
    they have.
    """
    fields = {f: getattr(config, f.name) for f in options.fields(type(config))}
    hidden = [list(value) for f, value in fields.items() if f.kind == tuple[int, ...]]
    sizes = [(f.bounds.sizes, value) for f, value in fields.items() if f.bounds and f.bounds.sizes]

    def size(what: str) -> int:
        return prod(value for multiplied, value in sizes if multiplied == what)

    outputs = actions * size("outputs")
    layers = [[observation, *widths, outputs] for widths in [[], *hidden]]
    weights = size("members") * sum(a * b for widths in layers for a, b in pairwise(widths))
    activations = rows * size("actions") * max(map(max, layers))
    if "tile_coding" in fields.values():
        slots = size("slots") or min(size("bins"), BINS) ** min(observation, 32)
        weights += actions * size("tables") * slots
    return max(weights, activations, *(value for _, value in sizes), 0)


def named(config: object) -> str:
    """What of a config `numbers` looks at, for a message."""
    found = {f.name: getattr(config, f.name) for f in options.fields(type(config)) if _multiplies(f)}
    return ", ".join(
        f"{name} = {str(list(value) if isinstance(value, tuple) else value)[:60]}" for name, value in found.items()
    )


def _multiplies(field: options.Field) -> bool:
    return field.kind == tuple[int, ...] or bool(field.bounds and field.bounds.sizes)


def check_networks(config: object, observation: Space, action: Space) -> None:
    """Raises BadInput for networks that memory could not hold; nothing is allocated."""
    wanted = 4 * COPIES * numbers(config, flat_size(observation), action_size(action), 1)
    check_memory(wanted, f"networks of {named(config)}", "make them smaller")


def check_environments(num_envs: int, native: bool) -> None:
    """Raises BadInput for more environments than memory could hold."""
    check_memory(num_envs * (NATIVE if native else FOREIGN), f"num_envs = {num_envs:,}", "use fewer")


def check_rollout(feed: Feed, num_envs: int, observation: Space, action: Space) -> None:
    """Raises BadInput for a rollout, or a batch of replay, that memory could not hold."""
    row = 8 * (2 * flat_size(observation) + action_size(action) + 8)
    check_memory(
        feed.steps * num_envs * row,
        f"a rollout of feed.steps = {feed.steps:,} for {num_envs:,} environments",
        "use fewer",
    )
    if feed.replays:
        check_memory(
            feed.batch_size * max(feed.length, 1) * row,
            f"a batch of feed.batch_size = {feed.batch_size:,}",
            "use a smaller one",
        )


def check_replay(env: Env, feed: Feed, slack: int = 0, folder: Path | None = None) -> int:
    """The bytes that a feed's rows will take, `slack` rows of each environment included; folder: where they are kept on disk.

    Raises BadInput when memory or disk is too small for them, Incompatible for frames of anything but stacks, and for
    hindsight where the environment does not say how its goals are rewarded. Nothing is allocated or written.
    """
    if feed.relabel != "none" and env.goal is None:
        raise Incompatible(
            f"feed.relabel = {feed.relabel!r} gives transitions other goals, but {env!r} does not say how a goal is rewarded "
            "(an attribute `goal` with `reward` and `terminated`); use relabel='none'"
        )
    one = (1, env.num_envs)
    size: Any = {"capacity": feed.capacity, "lanes": env.num_envs, "slack": slack}
    flags = {name: torch.zeros(one, dtype=torch.bool) for name in ("terminated", "truncated")}
    rows: dict[str, Any] = {"is_first": flags["truncated"], "action": spaces.zeros(env.action_space, one)}
    rows["next"] = {"reward": torch.zeros(one), **flags}
    if feed.storage == "frames":
        from whorl.buffers.storage_frames import Frames

        space = env.observation_space
        if len(space.shape or ()) < 2:
            raise Incompatible(
                f"feed.storage = 'frames' keeps each frame of a stack once: observations must be [stack, height, width] or "
                f"[stack, numbers], those of {env!r} are {spaces.describe(space)}; use storage='memory', or stack frames (the transform "
                "'stack_frames')"
            )
        seen = spaces.zeros(space, ())
        wanted = Frames(**size, stack=seen.shape[0]).needs(seen.shape[1:], seen.dtype, Layout.of(batch.make(rows, one)))
    else:
        seen = {"observation": spaces.zeros(env.observation_space, one)}
        layout = Layout.of(batch.make({**seen, **rows, "next": {**seen, **rows["next"]}}, one))
        wanted = Memory(**size).needs(layout)
    if feed.storage != "memmap":
        check_room(wanted, torch.device("cpu"))
    if folder is not None or feed.storage == "memmap":
        check_disk(wanted, folder or Path())
    return wanted


def check_memory(wanted: int, what: str, how: str) -> None:
    """Raises BadInput when `wanted` bytes cannot be had."""
    if wanted > 1 << 28 and wanted > (available := available_memory()):
        raise BadInput(
            f"{what} would take {wanted / 2**30:,.1f} GiB of memory, {available / 2**30:,.1f} GiB are available: {how}"
        )
