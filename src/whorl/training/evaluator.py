"""Evaluation beside training, `evaluate="concurrent"`: a process of its own plays the policies of checkpoints, `python -m
whorl.training.evaluator`, and the run logs what they were found worth when it hears of it. It writes nothing itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from copy import deepcopy
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from whorl.batch import Batch, Metrics
from whorl.buffers.datasets import Dataset
from whorl.envs.child import Child, Failure, carried, serve
from whorl.envs.env import Env, Kind
from whorl.envs.watchdog import watching
from whorl.errors import BadInput
from whorl.functional.streams import stream
from whorl.policies.policy import Policy
from whorl.training import checkpoint
from whorl.training import state as states
from whorl.training.evaluate import evaluate
from whorl.training.hooks import FINAL, Evaluate, Run, end
from whorl.training.settings import Settings
from whorl.training.written import read_config, read_metrics

LOOK = 0.05  # seconds between two looks at what the process says
RESTARTS = 1  # of a process that was killed
LAST = 600.0  # seconds that a run waits for it at its end


class Task(NamedTuple):
    """What the process is started with."""

    run: Path
    settings: Settings
    kind: Kind  # of its environments
    rows: int  # how many of them
    policy: Policy  # on the CPU; its numbers come from checkpoints


class Order(NamedTuple):
    """A checkpoint to evaluate: the step, and the seconds of training until then."""

    step: int
    seconds: float

    @property
    def name(self) -> str:
        return f"step_{self.step}"


def work(task: Task, pipe: Connection) -> None:
    """For each name of a checkpoint that comes through the pipe, the `Evaluation` of its policy."""
    s = task.settings
    torch.set_num_threads(s.threads)
    with (
        watching(s.env_timeout),
        closing(task.kind.make(task.rows, stream(s.seed, FINAL), max_episode_steps=s.max_episode_steps)) as env,
    ):
        while True:
            path = task.run / "checkpoints" / pipe.recv()
            states.load(path, {"policy": task.policy}, read_config(task.run))
            if learned := env.learned():
                env.load_learned(states.learned(path, learned))
            pipe.send(evaluate(task.policy, env, s.eval_episodes, s.seed))


class Concurrent(Evaluate):
    """`Evaluate` in a process of its own, one checkpoint after another. Where it falls behind, the newest one is next and the log names
    those that are left out. The run never waits for it but at its end, for LAST seconds; with it, it ends.

    Killed, it is started again once; after that, or where it raises, the run goes on without it.
    Raises BadInput without checkpoints, and Incompatible for environments or a policy that cannot be handed to a process.
    """

    def __init__(self, settings: Settings, kind: Kind, known: Env | Dataset, policy: Policy):
        super().__init__(settings, kind, known)
        if not settings.checkpoint_every:
            raise BadInput(
                "evaluate = 'concurrent' evaluates checkpoints, and checkpoint_every is 0: set it, or use 'inline'"
            )
        self._task = Task(Path(), settings, kind, self.rows(settings.eval_episodes), deepcopy(policy).cpu())
        carried(kind, self._task)  # raises here, before anything is written
        self._child: Child | None = None
        self._orders: list[Order] = []  # what is being evaluated, and what comes then
        self._restarts, self._look = 0, 0.0

    def begin(self, run: Run) -> None:
        """A resumed run orders what the one before has not heard of."""
        super().begin(run)
        self._start()
        for step in self._missed() if run.progress.count else ():
            self._order(Order(step, run.elapsed))

    def _missed(self) -> Iterator[int]:
        run, every = self._run, self.settings.eval_every or 1
        rows = read_metrics(run.path, "eval/mean_reward")
        last = int(rows[-1]["step"] or 0) if rows else 0
        for name in checkpoint.steps(run.path / "checkpoints"):
            step = int(name.removeprefix("step_"))
            at_end = run.over and step == run.progress.count
            if last < step <= run.progress.count and (step // every > last // every or at_end):
                yield (last := step)

    def __call__(self, rollout: Batch | None, metrics: Metrics) -> None:
        if time.monotonic() >= self._look:
            self._hear()
            self._look = time.monotonic() + LOOK
        self.needy = self._regular.due() and self._child is not None

    def saved(self) -> None:
        if self.needy:
            self.needy = False
            self._order(Order(self._run.progress.count, self._run.elapsed))

    @property
    def held(self) -> set[str]:  # type: ignore[override]  # nobody sets it
        return {order.name for order in self._orders}

    def best_checkpoint(self) -> Path | None:
        path = self._run.path / "checkpoints" / f"step_{self.best_at}"
        return path if path.is_dir() else None  # somebody may have removed it

    def finish(self) -> None:
        """Hear of what is ordered; and save that, so that nobody evaluates it again."""
        run, ordered, over = self._run, len(self._orders), time.monotonic() + LAST
        while self._child is not None and self._orders and time.monotonic() < over:
            if run.stop.number:
                end(run, saved=True)
            self._child.pipe.poll(LOOK)
            self._hear()
        if self._orders:
            self._give_up(f"has not evaluated {self._orders[0].name} within {LAST:g} seconds of the end of training")
        elif ordered:
            run.save()

    def close(self) -> None:
        super().close()
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    # -- the process -------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        task = self._task._replace(run=self._run.path.resolve())
        self._child = Child("whorl.training.evaluator", carried(task.kind, task))
        self._tell()

    def _tell(self) -> None:
        """What to evaluate now; one message at a time, so that no pipe is ever full."""
        if self._child is not None and self._orders:
            with suppress(OSError):  # it is dead, and `_hear` will notice
                self._child.pipe.send(self._orders[0].name)

    def _order(self, order: Order) -> None:
        self._orders.append(order)
        if len(self._orders) == 1:
            self._tell()
        elif len(self._orders) > 2:
            skipped = self._orders.pop(1)
            self._run.logs.message(f"evaluation has fallen behind and leaves out {skipped.name}")

    def _hear(self) -> None:
        child = self._child
        if child is None or not (child.gone() or child.pipe.poll()):
            return
        try:
            said = child.hear()
        except (EOFError, OSError):  # the second in the midst of a message
            return self._died(child)
        if isinstance(said, Failure):
            self._give_up(f"raised {said.text}", said.trace)
        else:
            order = self._orders.pop(0)
            self._tell()
            self.take(said, *order)

    def _died(self, child: Child) -> None:
        child.process.kill()  # it may have closed its pipe only
        how = child.ended()
        child.stop()
        if self._restarts == RESTARTS:
            return self._give_up(f"{how} again")
        self._restarts += 1
        self._run.logs.error(f"the process that evaluates {how} and is started again")
        self._start()

    def _give_up(self, why: str, trace: str = "") -> None:
        """Evaluate nothing more in this process: training matters more."""
        if self._child is not None:
            self._child.stop()
        self._child, self._orders, self.needy = None, [], False
        said = (
            f"the process that evaluates {why}: the run goes on without evaluations, and whorl resume begins them again"
        )
        self._run.logs.error(f"{said}\n{trace}".rstrip())


def evaluation_of(settings: Settings, kind: Kind | None, known: Env | Dataset, policy: Policy) -> Evaluate:
    """Who evaluates a run, as its settings ask. Raises BadInput where that is another process and nothing is evaluated, and what
    `Concurrent` raises."""
    if settings.evaluate == "inline":
        return Evaluate(settings, kind, known)
    if kind is None or not settings.eval_every:
        raise BadInput("evaluate = 'concurrent', and nothing is evaluated: set eval_every, or leave evaluate out")
    return Concurrent(settings, kind, known, policy)


if __name__ == "__main__":
    serve(work)
