"""Asynchronous training: processes that act, take gradients and step on shared weights without waiting for each other.

Mnih et al. 2016, https://arxiv.org/abs/1602.01783; without locks: Recht et al. 2011, https://arxiv.org/abs/1106.5730.
Each worker repeats: copy the shared weights, collect a rollout, take the gradient at the copy, step on the shared weights with the shared
optimizer state. Whose step comes first is up to the machine, so no two runs are equal, and no resumed one is bit-equal.
"""

from __future__ import annotations

import copy
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import multiprocessing as mp

from whorl import errors
from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam_state
from whorl.batch import Buffer
from whorl.collectors.collector import Collector
from whorl.collectors.ledger import Episode
from whorl.envs.env import Kind
from whorl.envs.watchdog import TURN, watching
from whorl.errors import BadInput, Incompatible, WhorlError
from whorl.functional.streams import stream
from whorl.nets.normalizer import Normalizer
from whorl.training.build import assemble
from whorl.training.hooks import Hook

STEPS_ITSELF = True
NOTICE = "asynchronous training: no two runs are equal, and a resumed run begins fresh episodes and is not bit-equal"
REPORT = 8  # rollouts of a worker between two reports
PATIENCE = 0.2  # seconds without a report after which the hooks run all the same, because they obey signals
GRACE = 5.0  # seconds for the workers to finish their rollouts when the run ends early; then they are killed


class Report(NamedTuple):
    """What a worker has done since its last report."""

    steps: int
    episodes: list[Episode]
    metrics: dict[str, float]  # means over its rollouts
    last: bool = False  # nothing more will come


class Failure(NamedTuple):
    """Why a worker has ended early."""

    kind: str  # class of the exception
    text: str
    trace: str


class Task(NamedTuple):
    """What a worker is started with."""

    worker: int
    agent: Agent  # with all its tensors in shared memory
    taken: Tensor  # [workers] int64, shared: environment steps since the start; each worker writes its own
    stop: Tensor  # bool, shared
    begun: int  # environment steps that the agent had seen at the start
    budget: int  # environment steps to take, all workers together
    kind: Kind  # of its environments
    num_envs: int
    limit: int | None  # of their episodes
    seed: int  # of its environments and its acting
    patience: float  # seconds that a step of its environments may take; 0 = any


def check(agent: Agent, collector: Collector) -> None:
    """Raises BadInput or Incompatible for what cannot be trained asynchronously. Writes nothing, so call it before you do."""
    script = sys.modules.get("__mp_main__")  # so a spawned process calls what it imports, until that is its `__main__`
    if script is not None and script is not sys.modules["__main__"]:
        raise BadInput(
            "a worker process imports the script that started it, and would start the training again: put the call under "
            'if __name__ == "__main__":'
        )
    kind = collector.env.made_from
    if kind is None:
        raise Incompatible(
            "each worker makes environments of its own, so an environment object will not do: pass an id, a class or a function"
        )
    try:
        ForkingPickler.dumps(kind)
    except Exception as error:  # pickle raises many kinds
        raise Incompatible(
            f"each worker is a process that makes environments of its own, and {kind.name} and its wrappers cannot be handed to it "
            f"({error}): write the class or function at the top of a module"
        ) from error
    if agent.compiled:
        raise Incompatible("asynchronous workers take eager steps on shared weights: use update='auto'")
    if {tensor.device.type for tensor in tensors(agent)} != {"cpu"} or collector.env.device != "cpu":
        raise Incompatible("asynchronous workers share weights in the CPU's memory: use device='cpu'")
    if any(isinstance(module, Normalizer) for module in agent.modules()):
        raise Incompatible(
            "asynchronous workers share weights, not running statistics: build the policy with normalize_observation=False"
        )
    if learned := collector.env.learned():
        raise Incompatible(
            f"asynchronous workers share weights, not running statistics, and their environments learn {', '.join(learned)}: leave that "
            "transform out"
        )
    optimizers, feed = agent.optimizers().values(), agent.config.feed
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    adam = all(type(optimizer) is torch.optim.Adam for optimizer in optimizers)
    if not adam or any(p.requires_grad and id(p) not in held for p in agent.parameters()):
        raise Incompatible(
            f"asynchronous workers share weights and the moments of Adam, but not all of {type(agent).__name__}'s weights are an Adam's: "
            "use feeds.Rollouts"
        )
    if feed.epochs * feed.minibatches != 1:
        raise Incompatible(
            "asynchronous workers take one gradient step on each rollout, at the weights it was collected with: feed.epochs and "
            f"feed.minibatches must be 1, got {feed.epochs} and {feed.minibatches}"
        )


def train(agent: Agent, collector: Collector, buffer: Buffer, total_steps: int, hooks: Iterable[Hook] = ()) -> None:
    """`plain.train` with `agent.config.feed.workers` processes, until `collector.done(total_steps)` for all of them together.

    Every worker makes `collector.env.num_envs` environments of its own, of the same kind and time limit, and has its own streams, from
    the seed stream(collector.seed, "worker", w, collector.steps). Nothing here steps the collector's environment: this process adds
    up in `collector.steps` and `collector.episodes` what the workers report (`env` counts through all workers), copies the shared
    weights and optimizer state into `agent`, and runs the hooks, with None for a rollout. What hooks see stands still while they run;
    the workers go on, but wait when they have the next report ready (REPORT rollouts) and the hooks are not through with the last.

    Raises as `check` does; the error of a worker with its number in front; WhorlError when one dies. All workers are stopped then, and
    `agent` is what the hooks saw last.
    """
    if collector.done(total_steps):
        return
    check(agent, collector)
    for optimizer in agent.optimizers().values():
        adam_state(optimizer)  # made before the first step, so that it can be shared
    shared = copy.deepcopy(agent)  # not the agent's own memory, of which actors hold views
    for tensor in tensors(shared):
        tensor.share_memory_()
    with _crew(shared, collector, total_steps) as reports:
        for report in reports:
            step = collector.steps + report.steps
            collector.ledger.advance(report.steps, [episode._replace(step=step) for episode in report.episodes])
            shared.env_steps += report.steps
            _copy(tensors(shared), tensors(agent))
            metrics = {key: torch.tensor(value) for key, value in report.metrics.items()}
            ended = [hook(None, metrics) for hook in hooks]
            if any(ended):
                return


def tensors(agent: Agent) -> list[Tensor]:
    """All that learning changes, in the same order in every copy: weights, buffers, state and settings of the optimizers."""
    found: list[Tensor] = [*agent.parameters(), *agent.buffers()]
    for optimizer in agent.optimizers().values():
        for group in optimizer.param_groups:
            found += [value for value in group.values() if isinstance(value, Tensor)]
            found += [value for parameter in group["params"] for value in optimizer.state[parameter].values()]
    return found


@torch.no_grad()
def _copy(sources: Iterable[Tensor], targets: Iterable[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


# ------------------------------------------------------------------------------------------------ in the process that watches


@contextmanager
def _crew(shared: Agent, collector: Collector, total_steps: int) -> Iterator[Iterator[Report]]:
    """Start the workers and hand out what they report; on the way out none is left, whatever happened."""
    workers, env, kind = shared.config.feed.workers, collector.env, collector.env.made_from
    assert kind is not None  # `check` has looked
    spawn = mp.get_context("spawn")
    stop = torch.zeros((), dtype=torch.bool).share_memory_()
    taken = torch.zeros(workers, dtype=torch.int64).share_memory_()
    crew: dict[Connection, Any] = {}
    try:
        for w in range(workers):
            seed = stream(collector.seed, "worker", w, collector.steps)
            task = Task(w, shared, taken, stop, int(shared.env_steps), total_steps - collector.steps,
                        kind, env.num_envs, env.max_episode_steps, seed, TURN.patience)  # fmt: skip
            here, there = spawn.Pipe()
            crew[here] = spawn.Process(target=_work, args=(task, there), name=f"worker {w}")
            with _signals_wait():
                crew[here].start()
            there.close()  # the worker holds the only other end, so its death closes the pipe
        yield _reports(crew, stop, total_steps - collector.steps, collector.ledger.most_episodes - collector.finished)
    finally:
        stop.fill_(True)
        for pipe in crew:
            pipe.close()  # a worker that waits to be read from ends, too
        started = [process for process in crew.values() if process.pid]
        deadline = time.monotonic() + GRACE
        try:
            for process in started:
                process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for process in started:
                process.kill()
                process.join()


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Processes started inside never see Ctrl-C or SIGTERM: this one alone decides what they mean, and gets them afterwards."""
    resource_tracker.ensure_running()  # its own start would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reports(crew: dict[Connection, Any], stop: Tensor, steps: int, episodes: float) -> Iterator[Report]:
    """What came since the last time, joined; empty after PATIENCE. When steps or episodes are enough, the workers are stopped, and what
    they still had to tell is in the last one.
    """
    waiting: list[Report] = []
    working = list(crew)
    while working:
        heard = [pipe for pipe in wait(working, PATIENCE) if isinstance(pipe, Connection)]
        for pipe in heard:
            report = _receive(pipe, crew[pipe])
            waiting.append(report)
            steps, episodes = steps - report.steps, episodes - len(report.episodes)
            if report.last:
                working.remove(pipe)
        if steps <= 0 or episodes <= 0:
            stop.fill_(True)
        if not stop or not working:
            yield _join(waiting)
            waiting = []
        for pipe in heard:
            with suppress(OSError):  # it has ended: if it should not have, reading from it will tell
                pipe.send(None)  # it may send the next one


def _receive(pipe: Connection, process: Any) -> Report:
    try:
        message = pipe.recv()
    except (EOFError, OSError):  # the second in the midst of a message
        process.join()
        code = process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise WhorlError(
            f"{process.name} {how}; the other workers were stopped, and what was saved before is kept. A worker that dies at the "
            'start may lack `if __name__ == "__main__":` around the training in your script, one that is killed may lack memory'
        ) from None
    if isinstance(message, Failure):
        kind = getattr(errors, message.kind, None)
        error = kind(f"{process.name}: {message.text}") if kind else WhorlError(
            f"{process.name} raised {message.kind}: {message.text}"
        )  # fmt: skip
        error.add_note(f"In {process.name}:\n{message.trace}")
        raise error
    return message


def _join(reports: list[Report]) -> Report:
    metrics = [report.metrics for report in reports if report.metrics]
    mean = {key: sum(m[key] for m in metrics) / len(metrics) for key in (metrics[0] if metrics else ())}
    return Report(sum(r.steps for r in reports), [e for r in reports for e in r.episodes], mean)


# ------------------------------------------------------------------------------------------------------------ in the workers


def _work(task: Task, pipe: Connection) -> None:
    """Body of a worker process. It ends with the process that started it, by a thread that watches, or by the pipe."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        with watching(task.patience):
            _learn(task, pipe)
    except Exception as error:
        with suppress(OSError):  # nobody reads any more
            pipe.send(Failure(type(error).__name__, str(error), traceback.format_exc()))


def _end_with_parent() -> None:
    parent = mp.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _learn(task: Task, pipe: Connection) -> None:
    env = task.kind.make(task.num_envs, task.seed, max_episode_steps=task.limit, training=True)
    shared, agent = task.agent, copy.deepcopy(task.agent)
    step_on(shared, agent)
    parts = assemble(agent, env, task.seed)
    collector, buffer = parts.collector, parts.buffer
    assert collector is not None
    theirs, mine = list(shared.parameters()), list(agent.parameters())
    first = task.worker * task.num_envs
    news: list[Report] = []
    told = False

    def tell(last: bool) -> None:
        nonlocal told
        if told:
            pipe.recv()  # the hooks have run on the report before: no worker runs ahead of them
        pipe.send(_join(news)._replace(last=last))
        news.clear()
        told = True

    try:
        while not task.stop and task.taken.sum() < task.budget:
            _copy(theirs, mine)
            agent.env_steps.fill_(task.begun + task.taken.sum())
            before = collector.steps
            buffer.add(agent.prepare(collector.collect()))
            metrics = agent.learn(buffer)
            collector.sync(agent.policy)
            task.taken[task.worker] = collector.steps
            episodes = [episode._replace(env=first + episode.env) for episode in collector.episodes]
            news.append(Report(collector.steps - before, episodes, {k: float(v) for k, v in metrics.items()}))
            if len(news) == REPORT:
                tell(last=False)
        tell(last=True)
    finally:
        env.close()


def step_on(shared: Agent, agent: Agent) -> None:
    """From now on `agent.optimize` takes gradients at its own weights and steps on those of `shared`.

    Its optimizers become those of `shared`, whose parameters are handed each gradient as soon as it is there.
    """
    own = {id(theirs): mine for theirs, mine in zip(shared.parameters(), agent.parameters(), strict=True)}
    for name, optimizer in shared.optimizers().items():
        inside, _, attribute = name.rpartition(".")
        holder: Any = agent.get_submodule(inside)
        setattr(holder, attribute, optimizer)
        holder.step.leaves[id(optimizer)] = [own[id(p)] for group in optimizer.param_groups for p in group["params"]]
    for theirs, mine in zip(shared.parameters(), agent.parameters(), strict=True):
        if mine.requires_grad:
            mine.register_post_accumulate_grad_hook(partial(_hand_over, theirs))


def _hand_over(theirs: Tensor, mine: Tensor) -> None:
    gradient, mine.grad = mine.grad, None
    assert gradient is not None
    theirs.grad = gradient if theirs.grad is None else theirs.grad + gradient  # of micro-batches there are several
