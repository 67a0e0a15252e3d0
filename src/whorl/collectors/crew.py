"""The samplers of an `AsyncCollector`, seen from the learner: started, told what to sample, started again where one dies, stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import wait

from whorl.collectors.sampler import Forms, Rows, Task
from whorl.envs.child import Child, Failure, carried
from whorl.errors import EnvError

_log = logging.getLogger("whorl")
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds before a dead sampler is started again: twice as long each time
MOST_DEATHS, LATELY = 10, 600.0  # of one sampler within so many seconds; one more ends the run
LOOK = 1.0  # seconds between two looks at whether a silent sampler lives
GRACE = 2.0  # seconds that a sampler has to finish its rollout when all is over


class Sampler:
    """One of them, which is not running until `start`.

    due: how many rollouts it has been told to sample, of the whole run; done: how many are in the ring. fresh: numbers of those that began
    in a new process, so that they do not go on where the one before stopped.
    """

    def __init__(self, name: str, done: int):
        self.name, self.due, self.done = name, done, done
        self.restarts, self.fresh = 0, set[int]()
        self.deaths: list[float] = []  # when, lately
        self.again = 0.0  # when it is to be started, where it is dead
        self.child: Child | None = None

    def start(self, task: Task) -> None:
        self.child = Child("whorl.collectors.sampler", carried(task.kind, task), (task.weights, task.ring))
        self._tell(range(self.done, self.due))

    def sample(self, number: int) -> None:
        """Sample rollout `number`, when those before are done."""
        self.due = number + 1
        self._tell([number])

    def _tell(self, numbers: Sequence[int]) -> None:
        if self.child is not None:
            with suppress(OSError):  # it is dead, and `hear` will notice
                for number in numbers:
                    self.child.pipe.send(number)

    def hear(self) -> Forms | None:
        """What it says: that a rollout is done, and the first time what rollouts are made of. Raises EnvError for what it died of."""
        assert self.child is not None
        try:
            said = self.child.hear()
        except (EOFError, OSError):  # the second in the midst of a message
            self._died(self.child)
            return None
        if isinstance(said, Failure):
            error = EnvError(f"{self.name} raised {said.text}")
            error.add_note(f"In {self.name}:\n{said.trace}")
            raise error
        self.done += 1
        return said

    def _died(self, child: Child) -> None:
        child.process.kill()  # it may have closed its pipe only
        how, now = child.ended(), time.monotonic()
        child.stop()
        self.child, self.deaths = None, [*(t for t in self.deaths if t > now - LATELY), now]
        if len(self.deaths) > MOST_DEATHS:
            raise EnvError(
                f"{self.name} {how}, as {MOST_DEATHS} times before within {LATELY / 60:g} minutes: what it wrote to standard error says "
                "more; one that is killed may lack memory"
            )
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (len(self.deaths) - 1))
        self.again, self.restarts = now + pause, self.restarts + 1
        self.fresh.add(self.done)
        _log.warning("whorl: %s %s and is started again", self.name, how)


class Crew:
    """All samplers. `task(k, restarts)`: what sampler k is to do, the first time and each time that it is started again. `form`: what
    rollouts are made of, once one is there."""

    def __init__(self, task: Callable[[int, int], Task], rows: Sequence[Rows], what: str, done: int):
        self.task, self.rows = task, rows
        self.form: Forms | None = None
        names = [f"sampler {k} (environments {a} to {a + n - 1} of {what})" for k, (a, n, _) in enumerate(rows)]
        self.samplers = [Sampler(name, done) for name in names]

    @property
    def restarts(self) -> int:
        return sum(sampler.restarts for sampler in self.samplers)

    def sample(self, number: int) -> None:
        """All of them sample rollout `number`, when those before are done."""
        for sampler in self.samplers:
            sampler.sample(number)

    def wait(self, number: int) -> Forms:
        """Until rollout `number` is done by all of them. Raises EnvError for what ended one, or for one that dies again and again."""
        while waiting := [sampler for sampler in self.samplers if sampler.done <= number]:
            pause = self._start()
            pipes = [sampler.child.pipe for sampler in waiting if sampler.child is not None]
            if not pipes:
                time.sleep(pause)
                continue
            ready = wait(pipes, pause)
            for sampler in waiting:
                if sampler.child is not None and (sampler.child.pipe in ready or sampler.child.gone()):
                    self._know(sampler, sampler.hear())
        assert self.form is not None
        return self.form

    def _start(self) -> float:
        """Start those that do not run and whose pause is over; seconds until they are to be looked at again."""
        pause = LOOK
        for k, sampler in enumerate(self.samplers):
            left = 0.0 if sampler.child is not None else sampler.again - time.monotonic()
            if sampler.child is None and left <= 0:
                sampler.start(self.task(k, sampler.restarts))
            pause = min(pause, left) if left > 0 else pause
        return pause

    def _know(self, sampler: Sampler, form: Forms | None) -> None:
        if form is not None and form != (self.form or form):
            raise EnvError(f"{sampler.name} writes rollouts of {form}, those before are of {self.form}")
        self.form = form or self.form

    def fresh(self, number: int) -> list[Rows]:
        """The rows whose episodes under way were lost before rollout `number`."""
        return [rows for rows, sampler in zip(self.rows, self.samplers) if number in sampler.fresh]


def stop(samplers: Sequence[Sampler]) -> None:
    """End all of them; none is left."""
    children = [sampler.child for sampler in samplers if sampler.child is not None]
    for child in children:
        child.pipe.close()
    end = time.monotonic() + GRACE
    for child in children:
        child.stop(max(0.0, end - time.monotonic()))
