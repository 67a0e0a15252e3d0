"""Single rows that restart and step while the others stand, for `check_env`."""

from __future__ import annotations

from typing import Any

import numpy as np

from whorl.envs.check_calls import Calls, as_numpy, copied, equal
from whorl.envs.check_spaces import leaves
from whorl.envs.env import Step

ABILITIES = {"restart", "rows"}
EVERY = 10  # steps between two restarts
ENOUGH = 20  # restarted rows of which one at least begins elsewhere than it stood


def check_partial(calls: Calls, steps: int, seed: int, varied: bool, limit: int | None) -> None:
    """Hold what `env.partial` says that single rows can do, in runs of `steps` steps with random rows: each by itself, then together.

    That the k-th episode of a row is the same however it was begun is not asked for.
    varied: observations are not all the same. limit: steps after which all episodes are cut that are; None: they differ, or none is.
    """
    able = calls.env.partial
    calls.demand(
        isinstance(able, frozenset | set) and able <= ABILITIES,
        f"partial must be a set of what single rows can do, 'restart' and 'rows', got {able!r}",
    )
    for part in sorted(able) if len(able) > 1 else ():
        _Partial(calls, {part}, seed, varied, limit).run(steps)
    if able:
        first, again = (_Partial(calls, able, seed, varied, limit).run(steps) for _ in range(2))
        message = (
            "reset(seed) with the same seed, actions and rows gave another {what} at step {step}: what restart() and "
            "step(action, rows) draw comes from streams that reset(seed) starts anew"
        )
        calls.same(first, again, message)


class _Partial:
    def __init__(
        self, calls: Calls, able: frozenset[str] | set[str], seed: int, varied: bool, limit: int | None
    ) -> None:
        self.calls, self.env, self.able, self.varied, self.limit = calls, calls.env, able, varied, limit
        self.rng = np.random.default_rng(seed)
        self.restarted: list[bool] = []  # of every row: does it stand elsewhere now?
        calls.reset(seed)

    def run(self, steps: int) -> list[tuple]:
        """All that the steps give, and where all stand after each restart."""
        calls, data, seen = self.calls, [], len(self.calls.cut_after)
        for t in range(steps):
            step = self.some_step() if "rows" in self.able and t % 3 else calls.step(calls.sample(self.rng))
            data.append(calls.given(step))
            if self.limit is not None and (odd := set(calls.cut_after[seen:]) - {self.limit}):
                raise calls.breach(
                    f"an episode was truncated after {odd.pop()} steps, the others last {self.limit}: restart(rows) begins "
                    "the count anew, and rows that stand are not counted"
                )
            if "restart" in self.able and (t % EVERY == 0 or _ended(step)):
                data.append(self.restart(step, t == 0))
        calls.demand(
            len(self.restarted) < ENOUGH or any(self.restarted) or not self.varied,
            f"restart(rows) left all of {len(self.restarted)} rows where they stood: it must begin a new episode there",
        )
        return data

    def rows(self) -> np.ndarray:
        """bool [N]: none, some or all."""
        return self.rng.random(self.env.num_envs) < self.rng.choice((0.0, 0.5, 0.5, 1.0))

    def some_step(self) -> Step:
        calls, rows = self.calls, self.rows()
        before = copied((calls.standing, self.env.action_mask))
        step = calls.step(calls.sample(self.rng), rows)
        call = "step(action, rows)"
        calls.demand(
            step.valid is not None and not as_numpy(step.valid)[~rows].any(),
            f"{call} must give `valid`, and False where rows is False",
        )
        calls.demand(
            not as_numpy(step.truncated)[~rows].any(),
            f"{call} ended episodes of rows which were to stand, by `truncated`",
        )
        for name in ("observation", "next_observation"):
            self.stand(before[0], getattr(step, name), ~rows, f"{call} gave another {name} for")
        self.stand(before[1], self.env.action_mask, ~rows, f"{call} changed the action_mask of")
        return step

    def restart(self, step: Step, ask: bool) -> tuple:
        """Twice, as two transforms do that end episodes. ask: whether others say where all stand, too."""
        calls, last = self.calls, copied(step[:7])
        here: Any = step.observation
        for rows in (self.rows(), self.rows()):
            before, before_mask = copied(here), copied(self.env.action_mask)
            returned, here = here, calls.restart(rows)
            message = (
                "restart() changed {what} of the step before: its arrays hold the true successors and must survive"
            )
            calls.same([last], [step], message)
            calls.demand(
                equal(before, returned), "restart() changed what the restart before it returned: give another array"
            )
            self.stand(before, here, ~rows, "restart(rows) gave another observation for")
            self.stand(before_mask, self.env.action_mask, ~rows, "restart(rows) changed the action_mask of")
            self.restarted += self.moved(before, here)[rows].tolist()
        standing = copied(here)
        if ask:
            self.ask(standing)
        return (standing,)

    def ask(self, standing: Any) -> None:
        calls, message = self.calls, "restart() must return where each environment stands; {} says otherwise"
        if (state := self.env.state()) is not None:
            calls.demand(equal(standing, self.env.load_state(state)), message.format("load_state(state())"))
        if "rows" in self.able:
            none = np.zeros(self.env.num_envs, bool)
            step = calls.step(calls.sample(self.rng), none)
            calls.demand(equal(standing, step.observation), message.format("a step of no row"))

    def moved(self, before: Any, after: Any) -> np.ndarray:
        """bool [N]: the rows with another observation or mask."""
        moved = np.zeros(self.env.num_envs, bool)
        for one, other in zip(leaves(before), leaves(after), strict=True):
            if one is not None:
                moved |= (as_numpy(one) != as_numpy(other)).reshape(len(moved), -1).any(-1)
        return moved

    def stand(self, before: Any, after: Any, still: np.ndarray, what: str) -> None:
        wrong = np.flatnonzero(self.moved(before, after) & still)
        self.calls.demand(not len(wrong), f"{what} rows {wrong.tolist()}, which were to stand")


def _ended(step: Step) -> bool:
    return bool((as_numpy(step.terminated) | as_numpy(step.truncated)).any())
