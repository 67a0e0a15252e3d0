"""A run: the loop with its folder, logs, evaluations and checkpoints; started, resumed or loaded."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

from whorl.batch import Part
from whorl.buffers.datasets import Dataset
from whorl.envs.env import Env
from whorl.envs.guard import close
from whorl.envs.make import EnvKind, EnvLike
from whorl.envs.watchdog import watching
from whorl.errors import StopTraining
from whorl.feeds import Fed
from whorl.files import lock
from whorl.functional.streams import stream
from whorl.nets.encoder import EncoderFactory, notices
from whorl.training import checkpoint
from whorl.training import state as states
from whorl.training.asked import ask
from whorl.training.buffers import new_buffer
from whorl.training.build import build
from whorl.training.catalog import AgentLike
from whorl.training.changes import Changes
from whorl.training.collecting import Collecting
from whorl.training.curve import draw_curve
from whorl.training.evaluate import Evaluation
from whorl.training.evaluator import evaluation_of
from whorl.training.folder import begin_anew
from whorl.training.full_disk import FullDisk
from whorl.training.hooks import FINAL, Checkpoint, Film, Hook, Log
from whorl.training.loggers import Logger, known
from whorl.training.loggers.places import loggers_of, names
from whorl.training.notices import of_resume, of_start
from whorl.training.own_hooks import OwnHooks, StopAt
from whorl.training.process import StopSignals, threads_of_torch
from whorl.training.same_spaces import noted
from whorl.training.settings import Settings
from whorl.training.trained import Trained, settings_json
from whorl.training.window import Window
from whorl.training.written import Result, columns, read_config, write_config, write_result


class Run:
    """One training run and its folder. `train`, `resume` and the command line make it; users read `agent`, `path` and evaluate."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        config: Fed,
        quiet: bool = False,
        source: EnvKind | Env | None = None,
        loggers: Sequence[Logger] | None = (),
        hooks: Sequence[Hook] | None = (),
        data: Dataset | None = None,
        agent: AgentLike | None = None,
        encoder: EncoderFactory | None = None,
    ):
        """agent: its class, or itself, where the settings' name does not say it. encoder: see `Agent.build`."""
        s, self.kind, self.encoder = settings, agent or settings.agent, encoder
        self.path, self.config, self.data = path, config, data
        with threads_of_torch(s.threads):  # initial weights come from a QR decomposition, whose bits depend on them too
            self.parts = build(
                self.kind, source, config, s.num_envs, s.seed, s.device, s.update, s.max_episode_steps,
                buffer=False, data=data, encoder=encoder, spaces_before=s.spaces, precision=s.precision, collecting=Collecting.of(s),
            )  # fmt: skip
        self.parts.check()
        self.known, self.slack = cast(Env | Dataset, self.parts.env or data), self.parts.slack(s.checkpoint_every)
        body, compiled = self.parts.update, self.parts.agent.compiled
        self.settings = s = replace(settings, spaces=noted(self.known), update=body, compile=compiled)
        if self.parts.env is not None:
            self.parts.env.replay_steps = s.replay_steps
        self.agent, self.progress = self.parts.agent, self.parts.progress
        self.progress.most_episodes = s.total_episodes or math.inf
        self.stop = StopSignals()
        self.changes = Changes()  # of what it was started with
        self.seconds, self._first = 0.0, 0  # of the training loop in this process, learning included; steps before it
        kind = source if isinstance(source, EnvKind) else None
        self._owned, self._quiet, self._loggers = kind is not None, quiet, [known(logger) for logger in loggers or ()]
        self.tally = ask(self.parts, s, config)
        names(s.logger)  # raises before anything is written
        self.own_hooks = OwnHooks(hooks)
        self.log = Log(s.window, s.log_every)
        self.evaluation = evaluation_of(s, kind, self.known, self.agent.policy)
        self.hooks: dict[str, Hook] = {
            "log": self.log,
            "hooks": self.own_hooks,  # before anything saves
            "evaluation": self.evaluation,
            **({} if s.stop_at is None else {"stop": StopAt(s.stop_at)}),
            "film": Film(s.video_every, kind),
            "checkpoint": Checkpoint(s.checkpoint_every or 0),
        }
        self.own_hooks.check(self)

    # -- what users call ---------------------------------------------------------------------------------------------

    def __fspath__(self) -> str:
        """Its folder: a run goes where a path goes."""
        return str(self.path)

    @property
    def steps(self) -> int:
        """Progress so far: environment steps taken, or updates where the run learns from data."""
        return self.progress.count

    @property
    def steps_per_second(self) -> float:
        return (self.steps - self._first) / self.seconds if self.seconds else 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, over all the times it was resumed."""
        return self.log.seconds

    @property
    def window(self) -> Window:
        """Sliding statistics of the training episodes."""
        return self.log.window

    def evaluate(self, episodes: int = 100, seed: int | None = None, env: EnvLike | None = None) -> Evaluation:
        """The agent as it is now, greedily, over whole episodes: by default others than those that chose the best checkpoint.

        env: another environment with the same spaces, as `Trained.evaluate` takes it.
        """
        seed = stream(self.settings.seed, FINAL) if seed is None else seed
        return self.evaluation.play(self.agent.policy, episodes, seed, env)

    def metrics(self) -> dict[str, list[float | None]]:
        """Every metric that was logged, as a column: see `written.columns`."""
        return columns(self.path)

    # -- the run -----------------------------------------------------------------------------------------------------

    def start(self, resume: bool = False) -> Run:
        """Train to `total_steps` inside the folder, then evaluate the best checkpoint and draw the curve. However it ends, the
        environments are closed, but for an object of the user's."""
        s = self.settings
        with watching(s.env_timeout), closing(self), lock(self.path), threads_of_torch(s.threads):
            self._run(resume)
        return self

    def _run(self, resume: bool) -> None:
        checkpoint.clean(self.path, self.checkpoints, self.path / "replay", self.path / "video")
        self._make_buffer()
        self.logs = loggers_of(self.path, self.settings, self._loggers, self._quiet)
        self.disk = FullDisk(self.path, self.logs.error)
        with self.logs:
            self._restore() if resume else self._greet()
            self._train()
        self._finish()

    def close(self) -> None:
        """Its environments, but for an object of the user's."""
        self.evaluation.close()
        if self._owned and self.parts.env is not None:
            close(self.parts.env)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def over(self) -> bool:
        return self.progress.done(self.settings.total_steps)

    def _make_buffer(self) -> None:
        """Rows that a checkpoint needs stay on disk until the second checkpoint after it, in case the first is damaged."""
        folder = self.path / "replay" if self.settings.checkpoint_every else None
        self.parts.buffer = new_buffer(self.agent, self.parts.env, self.settings.seed, folder, self.slack, self.data)

    def write_config(self) -> None:
        self.written = write_config(self.path, settings_json(self.settings, self.config, self.kind))

    def _greet(self) -> None:
        self.logs.messages(of_start(self.path, self.parts.env, self.config.feed, self.slack))
        self._begin()
        if self.settings.checkpoint_every:
            self.save()

    def _begin(self) -> None:
        self.logs.messages([*self.parts.notices, *notices(self.agent.policy)])
        for hook in self.hooks.values():
            if hasattr(hook, "begin"):
                hook.begin(self)

    def _train(self) -> None:
        self._first, began = self.steps, time.monotonic()
        with StopSignals() as self.stop:
            with suppress(StopTraining):
                self.parts.train(self.settings.total_steps, self.hooks.values())
            if not self.over and self.settings.checkpoint_every:  # a hook has ended it
                self.save()
            self.evaluation.finish()
        self.seconds = time.monotonic() - began
        self.logs.messages(self.tally.missed() if self.tally else ())

    # -- saving and restoring ----------------------------------------------------------------------------------------

    def _state_parts(self) -> dict[str, Part]:
        """All that a checkpoint holds, by name. Rows are not in it: they lie beside the checkpoints."""
        p, agent = self.parts, self.agent
        parts: dict[str, Part] = {"policy": agent.policy, "agent": agent, "collector": p.collector or p.progress}
        parts |= {"buffer": p.buffer, "loggers": self.logs}
        parts |= {name: cast(Part, hook) for name, hook in self.hooks.items() if hasattr(hook, "state")}
        return parts | self.own_hooks.parts() | ({} if self.tally is None else {"info": self.tally})

    def save(self) -> Path | None:
        """Publish a checkpoint of everything, and return it; None on a full disk: then the older ones stand."""
        with self.disk.tolerated("a checkpoint"):
            path = states.save(self.checkpoints, self.steps, self._state_parts(), self.written)
            checkpoint.mark(self.checkpoints, "last", path)
            self.evaluation.saved()
            checkpoint.prune(self.checkpoints, self.settings.keep_checkpoints, self.evaluation.held)
            return path
        return None

    def _restore(self) -> None:
        self.written = read_config(self.path).check()
        path = checkpoint.newest(self.checkpoints)
        if path is None:  # killed before the first one was complete: nothing had been learned
            begin_anew(self.path, self.settings)
            self._make_buffer()
            self.write_config()
            return self._greet()
        exact = states.load(path, self._state_parts(), self.written)
        self.changes.apply(self.agent)
        with self.disk.tolerated("config.json"):
            self.write_config()
        with self.disk.tolerated("the link to the last checkpoint"):
            checkpoint.mark(self.checkpoints, "last", path)  # a kill between saving and marking leaves it one behind
        self._begin()
        self.logs.messages(of_resume(self.path, self.steps, path.name, self.changes.said, exact, self.parts.collector))

    def _finish(self) -> None:
        """The curve, and eval.json of the best and of the last policy on fresh episodes, the last file that a run writes."""
        s, marked = self.settings, checkpoint.marked(self.checkpoints)
        last = best = self.evaluation.final(self.agent.policy) if s.eval_every else None
        if s.eval_every and marked:  # none: there never was room for one
            which, env = "best" if "best" in marked else "last", self.evaluation.env(s.eval_episodes)
            best = self.evaluation.final(Trained(self.path, s, self.config, which, env, self.kind, self.encoder).policy)
        self.result = Result(self.steps, self.progress.finished, last, best)
        with self.disk.tolerated("curve.png"):
            draw_curve(self.path)
        with self.disk.tolerated("eval.json"):
            write_result(self.path, self.result)
