"""A run: the loop with its folder, logs, evaluations and checkpoints; started, resumed or loaded."""

from __future__ import annotations

import dataclasses
import math
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whorl.agents.optimizers import load_optimizer_state, optimizer_state
from whorl.envs.env import Env
from whorl.errors import BadInput
from whorl.feeds import Replay, Stream
from whorl.functional.streams import stream
from whorl.training import checkpoint, folder
from whorl.training.build import build, check_replay, environment, new_buffer
from whorl.training.config import to_json
from whorl.training.curve import draw_curve
from whorl.training.evaluate import Evaluation, eval_envs, evaluate
from whorl.training.loggers import Loggers
from whorl.training.loggers.console import Console
from whorl.training.loggers.episodes import EpisodesCsv
from whorl.training.loggers.jsonl import JsonLines
from whorl.training.loggers.tensorboard import TensorBoard
from whorl.training.loops import hogwild, plain
from whorl.training.process import StopSignals, threads_of_torch
from whorl.training.trained import Settings, load
from whorl.training.video import film
from whorl.training.window import Window

KEEP = 5  # newest checkpoints that stay, beside `best`


class Run:
    """One training run and its folder. `train`, `resume` and the command line make it; users read `agent`, `path` and evaluate."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        config: Any,
        quiet: bool = False,
        env: Env | None = None,
        loggers: Sequence = (),
    ):
        s = settings
        self.path, self.settings, self.config = path, settings, config
        self.seconds = 0.0  # of the training loop in this process, learning included
        with threads_of_torch(s.threads):  # initial weights come from a QR decomposition, whose bits depend on them too
            self.parts = build(
                s.agent,
                env or s.env,
                config,
                s.num_envs,
                s.seed,
                s.device,
                s.compile,
                s.max_episode_steps,
                buffer=False,
            )
        self.agent = self.parts.agent
        self.parts.collector.most_episodes = s.total_episodes or math.inf
        self._loop = _loop_of(self.agent, self.parts.collector)
        self._started, self._first_step = 0.0, 0
        self._earlier = 0.0  # seconds that the run had taken when this process went on with it
        self._best, self._best_step = -np.inf, 0
        self._due: dict[str, int] = {}
        self._metrics: dict = {}  # of the last rollout that was learned from
        self.window = Window(s.window)  # sliding statistics of the training episodes
        self._stop = StopSignals()
        self._quiet, self._loggers = quiet, loggers
        self._eval_env: Env | None = None
        self._user_env = env

    # -- what users call ---------------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Environment steps taken so far."""
        return self.parts.collector.steps

    @property
    def steps_per_second(self) -> float:
        return (self.steps - self._first_step) / self.seconds if self.seconds else 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, over all the times it was resumed."""
        return self._earlier + time.monotonic() - self._started

    def evaluate(self, episodes: int = 100, seed: int | None = None) -> Evaluation:
        """The agent as it is now, greedily, over whole episodes: by default others than those that chose the best checkpoint."""
        if self._user_env is not None:
            raise BadInput(
                "this run trains on an environment object, which cannot be copied; evaluate with an environment of its own"
            )
        seed = stream(self.settings.seed, "final evaluation") if seed is None else seed
        n = eval_envs(episodes, self.parts.env.origin)
        if self._eval_env is None or self._eval_env.num_envs != n:
            self._close_eval_env()
            limit = self.settings.max_episode_steps
            self._eval_env = environment(self.settings.env, n, seed, max_episode_steps=limit)
        return evaluate(self.agent.policy, self._eval_env, episodes, seed)

    # -- the run -----------------------------------------------------------------------------------------------------

    def start(self, resume: bool = False) -> Run:
        """Train to `total_steps` inside the folder, then evaluate the best checkpoint and draw the curve. However it ends, the
        environments are closed, but for an object of the user's."""
        try:
            self._run(resume)
        except BaseException:
            with suppress(Exception):  # which would hide what ended the run
                self._close()
            raise
        self._close()
        return self

    def _run(self, resume: bool) -> None:
        self._started = time.monotonic()
        with folder.lock(self.path), threads_of_torch(self.settings.threads):
            checkpoint.clean(self.checkpoints)
            self._make_buffer()
            self.logs = Loggers(
                [
                    JsonLines(self.path / "metrics.jsonl"),
                    EpisodesCsv(self.path / "episodes.csv"),
                    TensorBoard(self.path / "tb"),
                    Console(self.settings.total_steps, quiet=self._quiet),
                    *self._loggers,
                ]
            )
            with self.logs:
                self._restore() if resume else self._greet()
                self.write_config()
                self._train()
            self._finish()

    def _close(self) -> None:
        try:
            self._close_eval_env()
        finally:
            if self._user_env is None:
                self.parts.env.close()

    def _close_eval_env(self) -> None:
        env, self._eval_env = self._eval_env, None  # `evaluate` makes it again
        if env is not None:
            env.close()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def _make_buffer(self) -> None:
        """Rows that a checkpoint needs stay on disk until the second checkpoint after it, in case the first is damaged."""
        p = self.parts
        folder = self.path / "replay" if self.settings.checkpoint_every else None
        p.buffer = new_buffer(self.agent, p.env, self.settings.seed, folder, self.slack)

    @property
    def slack(self) -> int:
        """Rows of each environment."""
        every, n = self.settings.checkpoint_every, self.parts.env.num_envs
        return 2 * (every // n + getattr(self.config.feed, "steps", 1)) if every else 0

    def write_config(self) -> None:
        settings = dataclasses.asdict(self.settings) | {"config": to_json(self.config)}
        folder.write_json(self.path / "config.json", settings)

    def _greet(self) -> None:
        self.logs.message(f"environment: {self.parts.env!r}")
        self.logs.message(f"run: {self.path}")
        if isinstance(self.config.feed, Replay):
            size = check_replay(self.parts.env, self.config.feed, self.slack)
            where = "on disk" if self.config.feed.storage == "memmap" else "in memory"
            self.logs.message(f"replay: {self.config.feed.capacity:,} rows, {size / 2**20:,.0f} MiB {where} when full")
        self._warn()
        if self.settings.checkpoint_every:
            self._save()

    def _warn(self) -> None:
        if self._loop is hogwild.train:
            self.logs.message(hogwild.NOTICE)

    def _train(self) -> None:
        s, c = self.settings, self.parts.collector
        self._first_step, self._started = c.steps, time.monotonic()
        for name in ("log", "eval", "checkpoint"):
            every = getattr(s, f"{name}_every")
            self._due[name] = (c.steps // every + 1) * every if every else 2**62
        with StopSignals() as self._stop:
            hooks = [self._log, self._evaluate, self._film, self._checkpoint]
            self._loop(self.agent, c, self.parts.buffer, s.total_steps, hooks)
        self.seconds = time.monotonic() - self._started

    def _is_due(self, name: str) -> bool:
        """Every K steps, and at the end."""
        every = getattr(self.settings, f"{name}_every")
        if not every or (self.steps < self._due[name] and not self.parts.collector.done(self.settings.total_steps)):
            return False
        self._due[name] = (self.steps // every + 1) * every
        return True

    def _log(self, rollout: Any, metrics: dict) -> None:
        self._metrics = {**self._metrics, **metrics}  # not every rollout is learned from
        episodes = self.parts.collector.episodes
        if episodes:
            for episode in episodes:
                self.window.add(episode.ret, episode.length)
            self.logs.add(episodes)
        if not self._is_due("log"):
            return
        rows = {
            "time/total_timesteps": self.steps,
            "time/fps": (self.steps - self._first_step) / (time.monotonic() - self._started),
            "time/seconds": self.elapsed,
        }
        if len(self.window):
            rows["rollout/ep_rew_mean"], rows["rollout/ep_rew_std"] = self.window.mean, self.window.std
            rows["rollout/ep_len_mean"] = self.window.mean_length
        self.logs.log(self.steps, rows | {f"train/{key}": float(value) for key, value in self._metrics.items()})

    def _evaluate(self, rollout: Any, metrics: dict) -> None:
        if self._user_env is not None or not self._is_due("eval"):
            return
        evaluation = self.evaluate(self.settings.eval_episodes, self.settings.seed)
        result = evaluation.summary()
        if evaluation.cut:
            self.logs.message(f"{evaluation.cut} of {result['episodes']} evaluation episodes had no end and were cut")
        row = {"eval/mean_reward": result["mean"], "eval/std_reward": result["std"], "time/seconds": self.elapsed}
        self.logs.log(self.steps, row)
        if result["mean"] > self._best:
            self._best, self._best_step = result["mean"], self.steps
            if self.settings.checkpoint_every:
                checkpoint.mark(self.checkpoints, "best", self._save())

    def _film(self, rollout: Any, metrics: dict) -> None:
        """The policy as it is now, whenever another `video_every` episodes are over."""
        every, finished = self.settings.video_every, self.parts.collector.finished
        if every and finished // every > (finished - len(self.parts.collector.episodes)) // every:
            file = self.path / "video" / f"episode_{finished // every * every:06d}.gif"
            limit = self.settings.max_episode_steps or 10_000
            film(self.agent.policy, self.settings.env, file, stream(self.settings.seed, "video", finished), limit)

    def _checkpoint(self, rollout: Any, metrics: dict) -> None:
        stop = self._stop.number
        if self.settings.checkpoint_every and (self._is_due("checkpoint") or stop):
            self._save()
        if stop:
            how = f"go on with: whorl resume {self.path}" if self.settings.checkpoint_every else "nothing was saved"
            self.logs.message(f"stopped by {signal.Signals(stop).name} at {self.steps:,} steps; {how}")
            raise SystemExit(128 + stop)

    # -- saving and restoring ----------------------------------------------------------------------------------------

    def _save(self) -> Path:
        agent, collector = self.agent, self.parts.collector
        arrays, numbers = collector.state()
        tensors = {
            "policy": dict(agent.policy.state_dict()),
            "agent": {key: value for key, value in agent.state_dict().items() if not key.startswith("policy.")},
            "collector": {key: torch.as_tensor(value) for key, value in arrays.items()},
        }
        groups = {}
        for name, optimizer in agent.optimizers().items():
            tensors[name], groups[name] = optimizer_state(optimizer)
        rows, place = self.parts.buffer.state()  # not the rows themselves: those lie beside the checkpoints
        tensors["buffer"] = rows
        state = {
            "collector": numbers,
            "buffer": place,
            "metrics": _finite(self._metrics),
            "report": _finite(agent.report),
            "optimizers": groups,
            "best": None if self._best == -np.inf else [self._best, self._best_step],
            "window": self.window.state(),
            "seconds": self.elapsed,
            "logs": self.logs.position(),
        }
        path = checkpoint.save(self.checkpoints, self.steps, tensors, state)
        checkpoint.mark(self.checkpoints, "last", path)
        checkpoint.prune(self.checkpoints, KEEP)
        return path

    def _restore(self) -> None:
        path = checkpoint.newest(self.checkpoints)
        if path is None and not self.settings.checkpoint_every:
            raise BadInput(f"{self.path} has no checkpoint to resume from: it was started with checkpoint_every=0")
        if path is None:  # killed before the first one was complete: nothing had been learned
            shutil.rmtree(self.path / "replay", ignore_errors=True)
            self._make_buffer()
            return self._greet()
        checkpoint.mark(self.checkpoints, "last", path)  # a kill between saving and marking leaves it one behind
        tensors, state = checkpoint.load(path)
        agent = self.agent
        agent.policy.load_state_dict(tensors["policy"])
        agent.load_state_dict({**tensors["agent"], **{f"policy.{k}": v for k, v in tensors["policy"].items()}})
        for name, optimizer in agent.optimizers().items():
            load_optimizer_state(optimizer, tensors[name], state["optimizers"][name])
        arrays = {key: value.numpy() for key, value in tensors["collector"].items()}
        exact = self.parts.collector.load_state(arrays, state["collector"])
        agent.report = {key: torch.tensor(value) for key, value in state["report"].items()}
        self._metrics = state["metrics"]
        if not self.parts.buffer.load_state(tensors["buffer"], state["buffer"]):
            self.logs.message(
                "rows of the replay buffer that this checkpoint used have been overwritten since: it goes on with those that are left, "
                "so the run is not bit-equal to an unbroken one"
            )
        if (
            state["best"] is not None
        ):  # marked again: a kill may have come before the mark, or the marked one is damaged
            self._best, self._best_step = state["best"]
            best = self.checkpoints / f"step_{self._best_step}"
            if best.exists():
                checkpoint.mark(self.checkpoints, "best", best)
            else:
                self.logs.message(f"the best checkpoint, {best.name}, is gone: the best from here on is kept")
                self._best = -np.inf
        self.window.load_state(state["window"])
        self._earlier = state.get("seconds", 0.0)
        self.logs.rewind(state["logs"])
        self.logs.message(f"resumed {self.path} at {self.steps:,} steps from {path.name}")
        self._warn()
        if not exact:
            self.logs.message(
                f"{self.settings.env} cannot save its state: fresh episodes begin here, so the run is not bit-equal to an unbroken one"
            )

    def _finish(self) -> None:
        """eval.json of the best and of the last policy on fresh episodes, and the curve."""
        s = self.settings
        c = self.parts.collector
        result: dict[str, Any] = {"steps": min(c.steps, s.total_steps)}
        result["episodes"] = c.finished
        if s.eval_every and self._user_env is None:
            seed = stream(s.seed, "final evaluation")
            result["last"] = self.evaluate(s.eval_episodes).summary()
            result["best"] = result["last"]
            if s.checkpoint_every and self._eval_env is not None:
                best = load(self.path, "best")
                best.env.close()
                result["best"] = evaluate(best.policy, self._eval_env, s.eval_episodes, seed).summary()
        folder.write_json(self.path / "eval.json", result)
        draw_curve(self.path)


def _finite(metrics: dict[str, Any]) -> dict[str, float]:
    """As JSON takes them."""
    return {key: float(value) for key, value in metrics.items() if math.isfinite(value)}


def _loop_of(agent: Any, collector: Any) -> Callable:
    """What runs the loop: the ordinary one, worker processes, or one compiled loop. They have the same arguments."""
    if agent.config.feed.own_envs:
        hogwild.check(agent, collector)
        return hogwild.train
    if isinstance(agent.config.feed, Stream) and agent.compiled:
        from whorl.training.loops import compiled_td

        compiled_td.check(agent, collector)
        return compiled_td.train
    return plain.train
