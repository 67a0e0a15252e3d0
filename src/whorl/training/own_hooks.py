"""The hooks that a user brings, as one hook of the run, and two that are ready: `StopAt` and `Schedule`.

Beside what every hook may have, one of the user's may have `check(run)`, called before anything is written, which raises BadInput for
what cannot be. Its state goes into the checkpoints under its place among those that have one.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch.optim import Optimizer

from whorl import options
from whorl.agents.agent import Agent
from whorl.batch import Arrays, Batch, Metrics, Numbers, Part, State
from whorl.errors import BadInput, StopTraining, command
from whorl.options import misfit, shown
from whorl.training.hooks import Hook, Run

RATE = "learning_rate"  # what the names of fields end in that move an optimizer


class OwnHooks:
    """Calls each in order. One that raises is named, with the progress of the run, after what can be saved is saved; StopTraining is
    the same as True. Its state says which of them have one."""

    def __init__(self, hooks: Sequence[Hook] | None):
        self.hooks = list(hooks or ())
        for hook in self.hooks:
            _check(hook)
        self._ended, self._others = False, ""

    def check(self, run: Run) -> None:
        for hook in self.hooks:
            if hasattr(hook, "check"):
                hook.check(run)

    def begin(self, run: Run) -> None:
        self._run = run
        if self._others:
            run.logs.message(self._others)
        for place, hook in enumerate(self.hooks):
            if hasattr(hook, "begin"):
                with self._named(place, "nothing was saved"):
                    hook.begin(run)

    def __call__(self, rollout: Batch | None, metrics: Metrics) -> bool:
        for place, hook in enumerate(self.hooks):
            with self._named(place):
                self._ended |= bool(hook(rollout, metrics))
        return self._ended

    @contextmanager
    def _named(self, place: int, saved: str = "") -> Iterator[None]:
        try:
            yield
        except StopTraining:
            self._ended = True
        except Exception as error:
            where = f"hook {place + 1} of {len(self.hooks)}, {name_of(self.hooks[place])}"
            error.add_note(f"{where}, raised this at {self._run.progress.count:,} steps; {saved or self._save()}")
            raise

    def _save(self) -> str:
        """What became of it."""
        if not self._run.settings.checkpoint_every:
            return "nothing was saved (checkpoint_every=0)"
        try:
            saved = self._run.save()
        except Exception as error:  # the hook's own error matters more
            return f"it could not be saved ({type(error).__name__}: {error}), but the last checkpoint stands"
        if saved is None:
            return "the disk was full, but the last checkpoint stands"
        return f"the run was saved: {command('resume', self._run.path)}"

    def parts(self) -> dict[str, Part]:
        """The hooks with a state, by their place among those: others may come and go."""
        parts = [cast(Part, hook) for hook in self.hooks if hasattr(hook, "state")]
        return {f"hook{place}": part for place, part in enumerate(parts)}

    def state(self) -> State:
        """What hooks there are, and which keep a state: each speaks for itself."""
        names = ", ".join(type(part).__name__ for part in self.parts().values())
        return {}, {"names": names, "all": ", ".join(map(name_of, self.hooks))}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Raises BadInput for another list of hooks with a state than was saved; of others the run says that they are others."""
        was, now = numbers, self.state()[1]
        if was["names"] != now["names"]:
            raise BadInput(
                f"this run was saved with hooks that keep a state: {was['names'] or 'none'}; now there are: {now['names'] or 'none'}. Pass "
                "the same hooks in the same order, whorl.resume(path, hooks=[...])"
            )
        if was["all"] != now["all"]:
            self._others = f"this run was saved with the hooks {shown(was['all'] or 'none')}; it goes on with {shown(now['all'] or 'none')}"
        return True


def _check(hook: Hook) -> None:
    """Raises BadInput for a hook that cannot be called as hooks are."""
    if not callable(hook):
        raise BadInput(f"a hook is called with (rollout, metrics); {type(hook).__name__} cannot be called")
    called = {"__call__": ("rollout", "metrics"), "check": ("run",), "begin": ("run",)}
    if hasattr(hook, "state"):
        called |= {"state": (), "load_state": ("arrays", "numbers")}
    for name, arguments in called.items():
        method = hook if name == "__call__" else getattr(hook, name, None)
        if method is None and name != "load_state":
            continue
        why = "there is none" if method is None else misfit(method, *arguments)
        if why:
            what = name_of(hook) if name == "__call__" else f"{name_of(hook)}.{name}"
            raise BadInput(f"the hook {what} must take ({', '.join(arguments)}): {why}")


def name_of(hook: Callable) -> str:
    """What people call it."""
    return getattr(hook, "__qualname__", "") or type(hook).__qualname__


class StopAt:
    """End the run once its mean return is at least `enough`: of the newest evaluation or, in a run that evaluates nothing, of a full
    window of training episodes."""

    def __init__(self, enough: float):
        if isinstance(enough, bool) or not isinstance(enough, int | float) or not math.isfinite(enough):
            raise BadInput(f"StopAt takes a finite return, got {enough!r}")
        self.enough = enough

    def begin(self, run: Run) -> None:
        self._run = run

    def __call__(self, rollout: Batch | None, metrics: Metrics) -> bool:
        run = self._run
        evaluated = bool(run.settings.eval_every)
        mean = run.evaluation.newest if evaluated else run.window.last_mean
        if mean is None or mean < self.enough:
            return False
        what = "evaluation" if evaluated else f"the last {run.window.size} episodes"
        run.logs.message(f"mean return of {what} {mean:.2f}, asked for {self.enough:g}: the run ends here")
        return True


class Schedule:
    """Move a field of the agent's config along the run: before each rollout it becomes `function(progress)`.

    progress goes from 0 to 1, by steps or by episodes, whichever comes first. A field that ends in `learning_rate` moves its optimizer,
    in compiled steps too; another one must be marked `options.Live` in the agent's config. The value stands in the metrics under the
    field's name. The function cannot be written down: config.json names it for people, and `whorl.resume` asks for it again.
    """

    def __init__(self, field: str, function: Callable[[float], float]):
        if not callable(function):
            raise BadInput(
                f"Schedule({field!r}, ...) takes a function of progress (0 to 1), got {type(function).__name__}"
            )
        self.field, self.function = field, function

    def check(self, run: Run) -> None:
        """Raises BadInput for a field that nothing reads again, and for a first value out of the field's bounds."""
        agent, s, config = run.agent, run.settings, run.agent.config
        known = {field.name: field for field in options.fields(type(config))}
        if self.field not in known:
            raise BadInput(f"{s.agent} has no option {self.field!r}{options.did_you_mean(self.field, known)}")
        live = [name for name, field in known.items() if field.live]
        rates = [name for name in known if moved_by(name, agent)]
        if self.field not in live + rates:
            raise BadInput(
                f"{s.agent} reads {self.field} once, when it is built; what a schedule can move: {', '.join(rates + live) or 'nothing'}"
            )
        if config.feed.own_envs:
            raise BadInput(
                f"the workers of {s.agent} have an agent each, which no schedule reaches: leave {self.field}'s out"
            )
        if s.update == "compiled" and self.field not in rates:
            raise BadInput(
                f"{self.field} is a constant of compiled steps, only learning rates move there: use update='auto'"
            )
        for name in annealing(type(config)) if self.field == RATE else ():
            if length := getattr(config, name):
                raise BadInput(f"{name} = {length:,} anneals the learning rate that is scheduled: set {name}=0")
        self._bounds = known[self.field].bounds or options.Bounds()
        self._whole = known[self.field].kind is int
        self.value(0.0)

    def begin(self, run: Run) -> None:
        self._run = run
        self(None, {})

    def __call__(self, rollout: Batch | None, metrics: Metrics) -> None:
        run, done = self._run, self._run.progress
        value = self.value(min(1.0, max(done.count / run.settings.total_steps, done.finished / done.most_episodes)))
        agent = run.agent
        agent.config = dataclasses.replace(agent.config, **{self.field: value})
        agent.report[self.field] = torch.tensor(float(value))
        optimizer = moved_by(self.field, agent)
        for group in optimizer.param_groups if optimizer else ():
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(value)  # in place: a compiled step holds it
            else:
                group["lr"] = value

    def value(self, progress: float) -> float:
        """Raises BadInput for one out of the field's bounds."""
        value = self.function(progress)
        if isinstance(value, bool) or not math.isfinite(value) or not self._bounds.holds(value):
            raise BadInput(
                f"{self.field} must be {self._bounds}, its schedule {name_of(self.function)} gave {value!r} at progress {progress:g}"
            )
        return int(value) if self._whole else float(value)


def moved_by(field: str, agent: Agent) -> Optimizer | None:
    """The optimizer whose rate a field is: `critic_learning_rate` is the `critic_optimizer`'s, the only rate is the only one's."""
    rated = {name: one for name, one in agent.optimizers().items() if "lr" in one.param_groups[0]}
    if field == RATE and len(rated) == 1:
        return next(iter(rated.values()))
    return rated.get(field.replace(RATE, "optimizer")) if field.endswith(RATE) else None


def taken_out(fields: Mapping[str, object], config: type) -> tuple[dict[str, object], list[Schedule]]:
    """(The options that are values, schedules for those that are functions of progress, where the field itself takes none)."""
    own = {field.name for field in options.fields(config) if field.function}
    moving = {
        name: value
        for name, value in fields.items()
        if callable(value) and not isinstance(value, type) and name not in own
    }
    schedules = [Schedule(name, cast(Callable[[float], float], value)) for name, value in moving.items()]
    return {name: value for name, value in fields.items() if name not in moving}, schedules


def annealing(config: type) -> list[str]:
    """The fields that let the learning rate fall to 0 over the run."""
    return [field.name for field in options.fields(config) if field.bounds and field.bounds.spans]


def unannealed(fields: dict[str, object], schedules: Sequence[Schedule], config: type) -> dict[str, object]:
    """`fields` with the preset's annealing off where the learning rate is scheduled in its place."""
    scheduled = any(schedule.field == RATE for schedule in schedules)
    return {**dict.fromkeys(annealing(config), 0), **fields} if scheduled else fields


def described(hooks: Sequence[Hook] | None) -> str:
    """The schedules among hooks, for people: "learning_rate (cosine), clip_range (<lambda>)"."""
    found = [hook for hook in hooks or () if isinstance(hook, Schedule)]
    return ", ".join(f"{hook.field} ({name_of(hook.function)})" for hook in found)


def scheduled_fields(scheduled: str) -> list[str]:
    """The fields in what `described` gave."""
    return re.findall(r"(\w+) \(", scheduled)


def check_again(scheduled: str, hooks: Sequence[Hook] | None) -> None:
    """Raises BadInput where a run that was started with schedules is resumed without one of them."""
    given = {hook.field for hook in hooks or () if isinstance(hook, Schedule)}
    if missing := [field for field in scheduled_fields(scheduled) if field not in given]:
        raise BadInput(
            f"this run was started with a function for {', '.join(missing)}, and a run folder holds none ({scheduled!r}): pass it "
            f"again, whorl.resume(path, hooks=[whorl.Schedule({missing[0]!r}, function)])"
        )
