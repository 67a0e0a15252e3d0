"""The process that steps a part of N environments for `Workers` (workers.py), and what the two share: `python -m whorl.envs.worker`.

What is small and often goes through one block of memory and an eventfd each way; all else are messages through the pipe. It imports what
its environments import, and numpy.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import traceback
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from whorl.envs.block import arrays
from whorl.envs.child import serve
from whorl.envs.env import Env, Kind, Observation
from whorl.errors import WhorlError, in_words

STEP, STEP_ROWS, CALL = 0, 1, 2  # what a worker is woken for, and
SECOND = 4  # into which of two memories observations go: the other one holds where all stood
MOVED, INVALID = 1, 2  # what came of a step: successors differ; `valid` was given
BESIDE = ("raw_reward", "reward_vector", "cost", "trajectory", "action_mask")  # attributes that cross with each step
DUMP, STACK_BYTES = signal.SIGUSR2, 1 << 16  # asks for the Python stack; most that is read of it
Arrays: TypeAlias = "dict[str, np.ndarray]"


class Field(NamedTuple):
    """An array [N, *shape] of the block."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()


class Task(NamedTuple):
    """What a worker is started with: `size` environments of `kind`, rows from `row` on of `num_envs`, the first of which is `first`."""

    number: int
    workers: int
    kind: Kind
    row: int
    size: int
    num_envs: int
    first: int
    seed: int
    limit: int | None  # of episodes
    pictures: bool
    replay_steps: int
    fields: tuple[Field, ...]
    block: int  # descriptors: of the memory,
    woken: int  # of what wakes it,
    done: int  # of what it answers by,
    stack: int  # of where its stack goes


class Asked(NamedTuple):
    """A message: a method of `Part`, and what it takes."""

    method: str
    value: Any = None


class Raised(NamedTuple):
    """An exception of an environment, in words: not every exception can travel."""

    error: WhorlError | None  # where it is one of whorl's own
    text: str
    row: int | None  # of the part
    trace: str


def named(fields: Sequence[Field], rows: int, workers: int, block: int) -> Arrays:
    """The block's arrays: for each worker what it is woken for ("command") and what came of it ("answer"), and the fields."""
    heads = [("int64", (workers,)), ("int64", (workers,))]
    found = arrays(block, [*heads, *((field.dtype, (rows, *field.shape)) for field in fields)])
    return dict(zip(["command", "answer", *(field.name for field in fields)], found, strict=True))


def observed(space: Any, kind: str) -> Iterator[Field]:
    """The leaves of an observation of this space, as fields `kind.0`, `kind.1`, ... in its order."""
    for k, leaf in enumerate(_leaves(space)):
        yield Field(f"{kind}.{k}", str(leaf.dtype), tuple(leaf.shape or ()))


def leaves_of(block: Arrays, kind: str) -> list[np.ndarray]:
    """The arrays of `observed` fields."""
    return [array for name, array in block.items() if name.startswith(f"{kind}.")]


def _leaves(space: Any) -> list[Any]:
    inner = getattr(space, "spaces", None)
    return [leaf for part in inner.values() for leaf in _leaves(part)] if isinstance(inner, Mapping) else [space]


def _flat(tree: Any) -> list[Any]:
    return [leaf for part in tree.values() for leaf in _flat(part)] if isinstance(tree, Mapping) else [tree]


class Part:
    """The environments of this process, between the block and the messages."""

    def __init__(self, task: Task):
        self.row, rows = task.row, slice(task.row, task.row + task.size)
        block = named(task.fields, task.num_envs, task.workers, task.block)
        self._of = {field.name: block[field.name][rows] for field in task.fields}
        self._here = [leaves_of(self._of, kind) for kind in ("here", "other")]
        self._there, self._fresh = leaves_of(self._of, "successor"), leaves_of(self._of, "fresh")
        self._beside = [name for name in BESIDE if name in self._of]
        self.env: Env = task.kind.make(task.size, task.seed, max_episode_steps=task.limit, pictures=task.pictures)
        self.env.first, self.env.replay_steps = task.first + task.row, task.replay_steps

    def step(self, some: bool, second: bool) -> int:
        """Step, write what came of it, and say what it was."""
        of = self._of
        step = self.env.step(of["action"], of["rows"].copy()) if some else self.env.step(of["action"])
        _copy(self._here[second], step.observation)
        of["reward"][:], of["terminated"][:], of["truncated"][:] = step.reward, step.terminated, step.truncated
        said = 0
        if step.next_observation is not step.observation:
            _copy(self._there, step.next_observation)
            said |= MOVED
        if step.valid is not None:
            of["valid"][:] = step.valid
            said |= INVALID
        if step.discount is not None:
            of["discount"][:] = step.discount
        for name in self.env.told:
            of[f"info.{name}"][:] = step.info[name]
        for name in self._beside:
            of[name][:] = getattr(self.env, name)
        return said

    def reset(self, seed: int | None) -> None:
        self._stands(self.env.reset(seed))

    def begin(self, after: tuple[int, np.ndarray, int]) -> None:
        """As after a reset with this seed, with the episodes that come after these numbers; another seed where streams are not counted."""
        seed, episode, otherwise = after
        self.env.reset(seed)
        if self.env.episode is None:
            return self.reset(otherwise)
        self.env.episode = episode
        return self.reset(None)

    def restart(self, _: None) -> None:
        self._stands(self.env.restart(self._of["rows"].copy()))

    def state(self, _: None) -> Arrays | None:
        return self.env.state()

    def load_state(self, state: Arrays) -> None:
        self._stands(self.env.load_state(state))

    def be_first(self, row: int) -> None:
        self.env.first = row + self.row

    def replay(self, steps: int) -> None:
        self.env.replay_steps = steps

    def render(self, _: None) -> np.ndarray | None:
        return self.env.render()

    def _stands(self, observation: Observation) -> None:
        """Write where all stand after a call."""
        _copy(self._fresh, observation)
        for name in self._beside:
            self._of[name][:] = getattr(self.env, name)


def _copy(there: list[np.ndarray], tree: Observation) -> None:
    for array, leaf in zip(there, _flat(tree), strict=True):
        array[:] = leaf


def _raised(error: BaseException) -> Raised:
    own = error if isinstance(error, WhorlError) else None
    trace = "".join(traceback.format_exception(error))[-STACK_BYTES:]
    if own is not None:  # its cause may not travel
        own = type(own)(*map(str, own.args)).with_traceback(None)
    return Raised(own, in_words(error), getattr(error, "row", None), trace)


def work(task: Task, pipe: Connection) -> None:
    """Step when woken, and do what messages ask for, until the pipe is closed."""
    faulthandler.register(DUMP, file=task.stack, all_threads=True)
    try:
        part = Part(task)
    except BaseException as error:  # SystemExit too
        return pipe.send(_raised(error))
    pipe.send(None)
    block = named(task.fields, task.num_envs, task.workers, task.block)
    command, answer, k = block["command"], block["answer"], task.number
    waiting = select.poll()
    waiting.register(task.woken, select.POLLIN)
    waiting.register(pipe.fileno(), select.POLLHUP)
    while any(descriptor == task.woken for descriptor, _ in waiting.poll()):
        os.eventfd_read(task.woken)
        what = int(command[k])
        try:
            if what & 3 == CALL:
                asked: Asked = pipe.recv()
                pipe.send(getattr(part, asked.method)(asked.value))
            else:
                answer[k] = part.step(what & 3 == STEP_ROWS, bool(what & SECOND))
                os.eventfd_write(task.done, 1)
        except (EOFError, BrokenPipeError):
            break
        except BaseException as error:  # SystemExit too: an environment does not end a run
            pipe.send(_raised(error))
    part.env.close()


if __name__ == "__main__":
    from whorl.envs import worker  # by its name, so that its messages are of classes that the other side knows

    serve(worker.work)
