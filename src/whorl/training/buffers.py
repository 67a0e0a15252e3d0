"""Where rows are kept: the buffer that an agent's feed asks for. A feed names it, and the table here says what the names are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from whorl import options
from whorl.agents.agent import Agent
from whorl.batch import Buffer
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.datasets import Dataset
from whorl.buffers.lookup.n_step import NStep
from whorl.buffers.parts import Sampler, Storage
from whorl.buffers.rollout import RolloutBuffer
from whorl.buffers.sample_uniform import Uniform, WithoutReplacement
from whorl.buffers.storage_memory import Memory
from whorl.buffers.stream import StreamBuffer
from whorl.envs.env import Env
from whorl.errors import BadInput
from whorl.feeds import Feed, Part
from whorl.spaces import choices


class Asked(NamedTuple):
    """What a buffer is made for."""

    agent: Agent
    lanes: int  # environments
    seed: int
    env: Env | None = None
    data: Dataset | None = None
    folder: Path | None = None  # where rows are kept beside checkpoints; None: they are lost with the process
    slack: int = 0  # rows of each lane that stay behind those that can be drawn, at least as many as come between two checkpoints


def new_buffer(
    agent: Agent,
    env: Env | None,
    seed: int = 0,
    folder: Path | None = None,
    slack: int = 0,
    data: Dataset | None = None,
) -> Buffer:
    """The buffer that the agent's feed asks for. folder, slack: see `Asked`."""
    lanes = env.num_envs if env is not None else data.rows.batch_size[1] if data is not None else 1
    buffer = named(BUFFERS, "buffer", agent.config.feed.buffer, "asked")(
        Asked(agent, lanes, seed, env, data, folder, slack)
    )
    if lacking := [name for name in ("add", "batches", "feedback", "state", "load_state") if not hasattr(buffer, name)]:
        raise BadInput(
            f"a feed's buffer must give a buffer; what it gave, a {type(buffer).__name__}, lacks {', '.join(lacking)}"
        )
    return buffer


# ------------------------------------------------------------------------------------------------ the tables


def named(table: dict[str, Callable], what: str, part: Part | None, *arguments: str) -> Callable:
    """What a feed's word stands for. A class or function of the user's, which takes these arguments, stands for itself."""
    if callable(part):
        if why := options.misfit(part, *arguments):
            raise BadInput(f"a feed's {what} is called with ({', '.join(arguments)}): {why}")
        return part
    if part not in table:
        raise BadInput(f"a feed names its {what} as one of {', '.join(table)}, or gives a class; it gave {part!r}")
    return table[part]


def _rollouts(asked: Asked) -> RolloutBuffer:
    feed = asked.agent.config.feed
    if not asked.agent.policy.recurrent:
        if feed.sequence:
            raise BadInput(
                f"feed.sequence = {feed.sequence} is for agents with a memory, which this one is not: leave it out, or set memory"
            )
        return RolloutBuffer(feed, seed=asked.seed)
    length = feed.sequence or feed.steps
    if feed.minibatches > (count := feed.steps // length * asked.lanes):
        raise BadInput(
            f"feed.minibatches = {feed.minibatches} is more than the rollout's {count} sequences of {length} rows: use fewer minibatches, "
            "more environments or a shorter feed.sequence"
        )
    return RolloutBuffer(feed, asked.seed, length)


def _replay(asked: Asked) -> ReplayBuffer:
    """One lane for each environment; it takes its memory at the first write. Raises BadInput for a memmap without a folder; what else
    can be wrong, `sizes.check_replay` has found."""
    feed: Feed = asked.agent.config.feed
    size: Any = {
        "capacity": feed.capacity,
        "lanes": asked.lanes,
        "slack": asked.slack,
        "folder": asked.folder,
    }
    storage: Storage
    if feed.storage == "frames":
        from whorl.buffers.storage_frames import Frames

        assert asked.env is not None and asked.env.observation_space.shape is not None
        storage = Frames(**size, stack=asked.env.observation_space.shape[0])
    elif feed.storage == "memmap":
        from whorl.buffers.storage_memmap import Memmap

        if asked.folder is None:
            raise BadInput("storage='memmap' keeps its rows in a folder: train a run, or pass `folder` to new_buffer")
        storage = Memmap(**size)
    else:
        storage = Memory(**size)
    lookups: list[Any] = _n_step(asked)
    if feed.relabel != "none":
        from whorl.buffers.lookup.relabel import Hindsight

        assert asked.env is not None
        goal: Any = asked.env.goal  # its functions answer in the kind of array that they are asked in
        lookups.append(
            Hindsight(goal.reward, feed.relabel, feed.relabel_fraction, asked.seed, terminated=goal.terminated)
        )
    device = asked.agent.env_steps.device
    within: dict[str, tuple[int, ...]] = {}
    if asked.env is not None:
        seen = asked.env.observation_space
        within = {
            **choices(asked.env.action_space, "action"),
            **choices(seen, "observation"),
            **choices(seen, "next.observation"),
        }
    return ReplayBuffer(
        storage, _sampler(feed, asked.seed), lookups, feed.batch_size, feed.replay_ratio, feed.warmup, feed.prefetch, device, within=within,
    )  # fmt: skip


def _recorded(asked: Asked) -> ReplayBuffer:
    """Rows that are there already."""
    feed, data = asked.agent.config.feed, asked.data
    assert data is not None
    rows = data.rows.clone()
    rows["next"]["reward"] = rows["next"]["reward"] * feed.reward_scale + feed.reward_shift
    storage, sampler = Memory(rows.numel(), asked.lanes, writer="once"), _sampler(feed, asked.seed)
    sampler.written(storage, storage.write(rows))
    device = asked.agent.env_steps.device
    return ReplayBuffer(storage, sampler, _n_step(asked), feed.batch_size, device=device, recorded=True)


def _sampler(feed: Feed, seed: int) -> Sampler:
    from whorl.buffers import sample_prioritized, sample_sequence

    priorities = (feed.alpha, feed.beta, feed.beta_steps)
    if feed.length:
        windows = (feed.length, feed.burn_in, feed.overlap, feed.across_ends)
        if not feed.prioritized:
            return sample_sequence.Sequences(seed, *windows)
        return sample_sequence.PrioritizedSequences(seed, *windows, *priorities, eta=feed.eta)
    if feed.prioritized:
        return sample_prioritized.Prioritized(seed, *priorities)
    return Uniform(seed) if feed.replacement else WithoutReplacement(seed)


def _n_step(asked: Asked) -> list[NStep]:
    config, steps = asked.agent.config, asked.agent.config.feed.n_step
    if steps == 1 or asked.agent.policy.recurrent:  # whose agent sums them, as far as its memory reaches
        return []
    return [NStep(steps, options.value(config, "discount", f"feed.n_step = {steps} discounts rewards"))]


BUFFERS: dict[str, Callable[[Asked], Buffer]] = {
    "rollout": _rollouts,
    "stream": lambda asked: StreamBuffer(),
    "replay": _replay,
    "data": _recorded,
}
