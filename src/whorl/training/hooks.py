"""What happens after every rollout: a run's own log, evaluation, film and checkpoint are hooks like those of a user.

A hook is called with the rollout (None where the loop has none to show) and the metrics of the update; True ends the run. It may have
`begin(run)`, called once before the first rollout, and `state` and `load_state`, which put it into the checkpoints.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np
from torch import Tensor

from whorl.agents.agent import Agent
from whorl.agents.contract import numbers
from whorl.batch import Arrays, Batch, Metrics, Numbers, State
from whorl.buffers.datasets import Dataset
from whorl.collectors.ledger import Ledger
from whorl.collectors.tally import Tally
from whorl.envs.env import Env, Kind
from whorl.envs.guard import close
from whorl.envs.make import EnvLike
from whorl.errors import BadInput, command
from whorl.folders import Folder
from whorl.functional.streams import stream
from whorl.policies.policy import Policy
from whorl.training import checkpoint
from whorl.training.evaluate import Evaluation, eval_envs, evaluate, evaluate_in, look_alike
from whorl.training.full_disk import FullDisk
from whorl.training.loggers import Loggers
from whorl.training.process import StopSignals
from whorl.training.settings import Settings
from whorl.training.source import variant
from whorl.training.video import film
from whorl.training.window import Window
from whorl.training.written import Scores

Hook = Callable[[Batch | None, Metrics], bool | None]
FINAL = "final evaluation"  # the stream of episodes other than those that chose the best checkpoint


class Reporting(Protocol):
    """What says numbers for the log."""

    def report(self) -> dict[str, float]:
        """By whole names: `time/version_lag`."""


class Run(Protocol):
    """What a hook sees of its run."""

    path: Path
    settings: Settings
    agent: Agent
    progress: Ledger
    logs: Loggers
    stop: StopSignals
    disk: FullDisk
    evaluation: Evaluate
    tally: Tally | None

    @property
    def parts(self) -> Reporting:
        """What it is made of."""

    @property
    def window(self) -> Window:
        """Sliding statistics of the training episodes."""

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, over all the times it was resumed."""

    @property
    def over(self) -> bool:
        """Whether this was the last rollout."""

    def save(self) -> Path | None:
        """Publish a checkpoint of everything, and return it; None on a full disk: then the older ones stand."""


class Regular:
    """Whether something is due: at every multiple of `every` in the run's progress, and at its end. 0 = never."""

    def __init__(self, every: int, run: Run):
        self.every, self._run = every, run
        self._next = self._after(run.progress.count) if every else 0

    def _after(self, count: int) -> int:
        return (count // self.every + 1) * self.every

    def due(self) -> bool:
        if not self.every or (self._run.progress.count < self._next and not self._run.over):
            return False
        self._next = self._after(self._run.progress.count)
        return True


class Log:
    """Episodes, metrics and their sliding statistics to the loggers."""

    def __init__(self, window: int, every: int):
        self.window, self._every = Window(window), every  # statistics of the training episodes
        self._metrics: dict[str, Tensor | float] = {}  # the newest of each name: not every rollout is learned from
        self._infos: list[list[float]] = []  # what was asked of info, of the episodes since the last row
        self._earlier = 0.0  # seconds that the run had taken when this process went on with it
        self._began, self._first = time.monotonic(), 0

    def begin(self, run: Run) -> None:
        self._run, self._regular = run, Regular(self._every, run)
        self._began, self._first = time.monotonic(), run.progress.count

    @property
    def seconds(self) -> float:
        """Of training so far, over all the times it was resumed."""
        return self._earlier + time.monotonic() - self._began

    def __call__(self, rollout: Batch | None, metrics: Metrics) -> None:
        run, progress = self._run, self._run.progress
        self._metrics = {**self._metrics, **metrics}
        if progress.episodes:
            for episode in progress.episodes:
                self.window.add(episode.ret, episode.length)
            run.logs.add(progress.episodes)
            self._infos += [[*episode.info] for episode in progress.episodes if episode.info]
        if not self._regular.due():
            return
        rows = {
            "time/total_timesteps": progress.count,
            "time/fps": (progress.count - self._first) / (time.monotonic() - self._began),
            "time/seconds": self.seconds,
            **run.parts.report(),
        }
        if len(self.window):
            rows["rollout/ep_rew_mean"], rows["rollout/ep_rew_std"] = self.window.mean, self.window.std
            rows["rollout/ep_len_mean"] = self.window.mean_length
        if run.tally is not None and self._infos:
            table = np.array(self._infos, float)
            rows |= {
                f"rollout/{name}": column[~np.isnan(column)].mean()
                for name, column in zip(run.tally.ways, table.T)
                if not np.isnan(column).all()
            }
            self._infos = []
        run.logs.log(progress.count, rows | {f"train/{key}": value for key, value in numbers(self._metrics).items()})

    def state(self) -> State:
        finite = {key: value for key, value in numbers(self._metrics).items() if math.isfinite(value)}
        infos = {"infos": [[None if math.isnan(x) else x for x in each] for each in self._infos]} if self._infos else {}
        return {}, {"metrics": finite, "window": self.window.state()[1], "seconds": self.seconds} | infos

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        self._metrics = {key: float(value) for key, value in numbers["metrics"].items()}
        self._earlier = numbers["seconds"]
        self._infos = [[math.nan if x is None else float(x) for x in each] for each in numbers.get("infos", [])]
        return self.window.load_state({}, numbers["window"])


def end(run: Run, saved: bool) -> NoReturn:
    """Say that a signal has ended the run, and end it."""
    how = f"go on with: {command('resume', run.path)}" if saved else "nothing was saved"
    number = run.stop.number
    run.logs.message(f"stopped by {signal.Signals(number).name} at {run.progress.count:,} steps; {how}")
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


class Evaluate:
    """Whole greedy episodes now and then, in environments of their own; what scores best is marked among the checkpoints.

    kind: what the environments are made from; None: there is nothing to evaluate in. known: what the policy is made for; who steps the
    run's environments says how many are used. needy: whether a checkpoint is needed here and now;
    held: names of those that must stay.
    """

    needy: bool = False
    held: Collection[str] = ()

    def __init__(self, settings: Settings, kind: Kind | None, known: Env | Dataset):
        self.settings, self.kind, self.known = settings, kind, known
        self._env: Env | None = None
        self.best, self.best_at = -np.inf, 0  # mean return, and the progress at which it was found
        self.newest: float | None = None  # mean return of the newest evaluation of this process

    def begin(self, run: Run) -> None:
        """The best of a resumed run is marked again: a kill may have come before the mark, or the marked one is damaged."""
        self._run, self._regular = run, Regular(self.settings.eval_every or 0, run)
        if self.best == -np.inf:
            return
        folder = run.path / "checkpoints"
        best = folder / f"step_{self.best_at}"
        if best.name in checkpoint.steps(folder):
            checkpoint.mark(folder, "best", best)
        else:
            run.logs.message(f"the best checkpoint, {best.name}, is gone: the best from here on is kept")
            self.best = -np.inf

    def rows(self, episodes: int) -> int:
        """How many environments share so many episodes."""
        return eval_envs(episodes, self.known.origin if isinstance(self.known, Env) else "native")

    def env(self, episodes: int) -> Env:
        """The environments that share so many episodes. Raises BadInput where there is none to evaluate in."""
        s, n = self.settings, self.rows(episodes)
        if self.kind is None and s.own_env:
            raise BadInput(
                "this run trains on an environment object, which cannot be copied; evaluate with an environment of its own, "
                "evaluate(env=...)"
            )
        if self.kind is None:
            raise BadInput("this run learns from data and names no environment: there is nothing to evaluate in")
        if self._env is None or self._env.num_envs != n:
            self.close()
            self._env = self.kind.make(n, stream(s.seed, FINAL), max_episode_steps=s.max_episode_steps)
        return self._env

    def play(self, policy: Policy, episodes: int, seed: int, env: EnvLike | None = None) -> Evaluation:
        """Evaluate a policy over whole episodes, in another environment with the same spaces if one is given."""
        if env is None:
            env = self.env(episodes)
            look_alike(env, self.known)
            return evaluate(policy, env, episodes, seed)
        return evaluate_in(policy, self.known, variant(self.kind, env), episodes, seed, self.settings.max_episode_steps)

    def final(self, policy: Policy) -> Scores:
        """On episodes other than those that chose the best checkpoint."""
        return Scores.of(self.play(policy, self.settings.eval_episodes, stream(self.settings.seed, FINAL)))

    def close(self) -> None:
        env, self._env = self._env, None  # `env` makes it again
        if env is not None:
            close(env)

    def saved(self) -> None:
        """A checkpoint of the progress so far was published."""

    def finish(self) -> None:
        """The run has learned all that it will."""

    def __call__(self, rollout: Batch | None, metrics: Metrics) -> None:
        if self._regular.due():
            run = self._run
            evaluation = self.play(run.agent.policy, run.settings.eval_episodes, run.settings.seed)
            self.take(evaluation, run.progress.count, run.elapsed)

    def take(self, evaluation: Evaluation, step: int, seconds: float) -> None:
        """Log what the policy of that step, after so many seconds of training, was found worth, and mark it where it is the best."""
        run, result = self._run, evaluation.summary()
        self.newest = result["mean"]
        run.logs.messages(run.tally.missed() if run.tally else ())
        if evaluation.cut:
            run.logs.message(f"{evaluation.cut} of {result['episodes']} evaluation episodes had no end and were cut")
        row = {"eval/mean_reward": result["mean"], "eval/std_reward": result["std"], "time/seconds": seconds}
        run.logs.log(step, row)
        if result["mean"] > self.best:
            before, self.best, self.best_at = (self.best, self.best_at), result["mean"], step
            if run.settings.checkpoint_every and not self._keep():
                self.best, self.best_at = before

    def best_checkpoint(self) -> Path | None:
        """That of the best, which has just been found; None: there is none."""
        return self._run.save()

    def _keep(self) -> bool:
        """Whether the best is kept."""
        with self._run.disk.tolerated("the best checkpoint"):
            path = self.best_checkpoint()
            if path is not None:
                checkpoint.mark(path.parent, "best", path)
                return True
        return False

    def state(self) -> State:
        return {}, {"best": None if self.best == -np.inf else [self.best, self.best_at]}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        best, at = numbers["best"] or (-np.inf, 0)
        self.best, self.best_at = float(best), int(at)
        return True


class Film:
    """A video of the policy as it is now, whenever another `every` episodes are over; 0 = never."""

    def __init__(self, every: int, kind: Kind | None):
        self.every, self.kind = every, kind

    def begin(self, run: Run) -> None:
        self._run = run

    def __call__(self, rollout: Batch | None, metrics: Metrics) -> None:
        run, finished = self._run, self._run.progress.finished
        if self.every and self.kind and finished // self.every > (finished - len(run.progress.episodes)) // self.every:
            name = f"episode_{finished // self.every * self.every:06d}.gif"
            s = run.settings
            limit = s.max_episode_steps or 10_000
            with run.disk.tolerated("a video"), Folder.inside(run.path / "video", make=True) as folder:
                film(
                    run.agent.policy,
                    self.kind,
                    folder.path / name,
                    stream(s.seed, "video", finished),
                    limit,
                    folder,
                    run.evaluation.known,
                )


class Checkpoint:
    """Everything to disk now and then, where an evaluation needs it, and when a signal asks the run to end, which it then does.
    every 0 = never."""

    def __init__(self, every: int):
        self.every = every

    def begin(self, run: Run) -> None:
        self._run, self._regular = run, Regular(self.every, run)

    def __call__(self, rollout: Batch | None, metrics: Metrics) -> None:
        run, number = self._run, self._run.stop.number
        saved = run.save() if self._regular.due() or run.evaluation.needy or (number and self.every) else None
        if number:
            end(run, saved is not None)
