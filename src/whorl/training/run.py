"""A run: the loop with its folder, logs, evaluations and checkpoints; started, resumed or loaded."""

from __future__ import annotations

import dataclasses
import math
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whorl.envs.env import Env
from whorl.envs.make import as_env
from whorl.errors import BadInput
from whorl.feeds import Replay, Stream
from whorl.functional.streams import stream
from whorl.training import checkpoint, folder, hogwild, loop
from whorl.training.build import build, check_replay, environment, new_buffer
from whorl.training.catalog import find
from whorl.training.config import override, to_json
from whorl.training.curve import draw_curve
from whorl.training.evaluate import Evaluation, eval_envs, evaluate
from whorl.training.loggers import Loggers
from whorl.training.loggers.console import Console
from whorl.training.loggers.episodes import EpisodesCsv
from whorl.training.loggers.jsonl import JsonLines
from whorl.training.loggers.tensorboard import TensorBoard
from whorl.training.process import StopSignals, threads_of_torch
from whorl.training.trained import Settings, load, needs_no_object, read_settings
from whorl.training.video import drawable, film
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

    def evaluate(self, episodes: int = 100, seed: int | None = None) -> Evaluation:
        """The agent as it is now, greedily, over whole episodes: by default others than those that chose the best checkpoint."""
        if self._user_env is not None:
            raise BadInput(
                "this run trains on an environment object, which cannot be copied; evaluate with an environment of its own"
            )
        seed = stream(self.settings.seed, "final evaluation") if seed is None else seed
        n = eval_envs(episodes, self.parts.env.origin)
        if self._eval_env is None or self._eval_env.num_envs != n:
            limit = self.settings.max_episode_steps
            self._eval_env = environment(self.settings.env, n, seed, max_episode_steps=limit)
        return evaluate(self.agent.policy, self._eval_env, episodes, seed)

    # -- the run -----------------------------------------------------------------------------------------------------

    def start(self, resume: bool = False) -> Run:
        """Train to `total_steps` inside the folder, then evaluate the best checkpoint and draw the curve."""
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
                self._write_config()
                self._train()
            self._finish()
        if self._user_env is None:
            self.parts.env.close()
        return self

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def _make_buffer(self) -> None:
        """Rows that a checkpoint needs stay on disk until the second checkpoint after it, in case the first is damaged."""
        p = self.parts
        folder = self.path / "replay" if self.settings.checkpoint_every else None
        p.buffer = new_buffer(self.agent, p.env, self.settings.seed, folder, self._slack)

    @property
    def _slack(self) -> int:
        """Rows of each environment."""
        every, n = self.settings.checkpoint_every, self.parts.env.num_envs
        return 2 * (every // n + getattr(self.config.feed, "steps", 1)) if every else 0

    def _write_config(self) -> None:
        settings = dataclasses.asdict(self.settings) | {"config": to_json(self.config)}
        folder.write_json(self.path / "config.json", settings)

    def _greet(self) -> None:
        self.logs.message(f"environment: {self.parts.env!r}")
        self.logs.message(f"run: {self.path}")
        if isinstance(self.config.feed, Replay):
            size = check_replay(self.parts.env, self.config.feed, self._slack)
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
        self.logs.log(self.steps, {"eval/mean_reward": result["mean"], "eval/std_reward": result["std"]})
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
            tensors[name], groups[name] = checkpoint.optimizer_state(optimizer)
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
            checkpoint.load_optimizer_state(optimizer, tensors[name], state["optimizers"][name])
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
                result["best"] = evaluate(best.policy, self._eval_env, s.eval_episodes, seed).summary()
        folder.write_json(self.path / "eval.json", result)
        draw_curve(self.path)


def _finite(metrics: dict[str, Any]) -> dict[str, float]:
    """As JSON takes them."""
    return {key: float(value) for key, value in metrics.items() if math.isfinite(value)}


def train(
    agent: str,
    env: Any,
    *,
    config: Any = None,
    total_steps: int | None = None,
    seed: int = 0,
    num_envs: int | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    device: str = "cpu",
    compile: bool = False,
    threads: int = 1,
    eval_every: int | None = None,
    eval_episodes: int = 100,
    checkpoint_every: int | None = None,
    log_every: int = 2000,
    total_episodes: int | None = None,
    max_episode_steps: int | None = None,
    window: int = 100,
    video_every: int = 0,
    quiet: bool = False,
    loggers: Sequence = (),
    **agent_fields: Any,
) -> Run:
    """Train `agent` in `env` and return the finished run. What is not given comes from the preset of the pair.

    env: an id, or an object of yours: `Env`, `gymnasium.Env`, `VectorEnv`, or a callable that makes a `gymnasium.Env`. With an
    object there is no evaluation, and it is yours to close.
    loggers: of your own, beside the run's (see training/loggers).
    agent_fields: fields of the agent's config, `learning_rate=1e-3`. A preset that anneals over its own run anneals over yours.
    threads: of torch; one is fastest for small networks, more help convolutions.
    total_episodes: stop when so many have finished, if total_steps are not over before.
    max_episode_steps: a time limit, where the environment has none or a longer one.
    window: episodes that the sliding statistics are over. video_every [episodes]: record the policy into the run's video folder.
    eval_every, checkpoint_every [environment steps]: a twentieth of the run by default (checkpoints: of the replay buffer, if that
    is less); 0 switches off.
    Raises BadInput or Incompatible before anything is written.
    """
    own = None if isinstance(env, str) else as_env(env, num_envs, seed)
    preset = find(agent, env if own is None else own.id)
    total = preset.total_steps if total_steps is None else total_steps
    config = preset.config if config is None else config
    whole = getattr(preset.config, "anneal_steps", 0) == preset.total_steps
    if whole and getattr(config, "anneal_steps", 0) == preset.total_steps:
        config = override(config, {"anneal_steps": total})
    config = override(config, agent_fields)
    if own is not None and (video_every or max_episode_steps):
        raise BadInput(
            "an environment object cannot be copied or changed: pass an id for video_every and max_episode_steps"
        )
    if own is not None and hasattr(config, "workers"):
        raise BadInput(
            f"the workers of {agent} make environments of their own, so an environment object will not do: pass an id"
        )
    if own is not None and eval_every:
        raise BadInput("an environment object cannot be copied for evaluation: pass an id, or leave eval_every out")
    for option, value, least in (
        ("total_steps", total, 1), ("eval_every", eval_every, 0), ("checkpoint_every", checkpoint_every, 0),
        ("eval_episodes", eval_episodes, 1), ("log_every", log_every, 1), ("seed", seed, 0), ("threads", threads, 1),
        ("total_episodes", total_episodes, 1), ("max_episode_steps", max_episode_steps, 1), ("window", window, 1),
        ("video_every", video_every, 0),
    ):  # fmt: skip
        if value is not None and value < least:
            raise BadInput(f"{option} must be at least {least}, got {value}")
    check_annealing(config, total, total_episodes)
    if video_every:
        drawable(env, seed).close()  # has it a picture?
    often = max(1, total // 20)
    saved = often
    if isinstance(
        config.feed, Replay
    ):  # rows of an interval are kept twice beside those that can be drawn: a few percent
        saved = max(1, min(often, config.feed.capacity // (100 if config.feed.storage == "frames" else 20)))
    settings = Settings(
        agent=agent,
        env=env if own is None else own.id or type(env).__name__,
        own_env=own is not None,
        seed=seed,
        num_envs=preset.num_envs if num_envs is None else num_envs,
        total_steps=total,
        device=device,
        compile=compile,
        threads=threads,
        eval_every=often if eval_every is None else eval_every,
        eval_episodes=eval_episodes,
        checkpoint_every=saved if checkpoint_every is None else checkpoint_every,
        log_every=log_every,
        total_episodes=total_episodes,
        max_episode_steps=max_episode_steps,
        window=window,
        video_every=video_every,
    )
    if own is not None:
        settings = dataclasses.replace(settings, num_envs=own.num_envs if num_envs is None else num_envs)
    run = Run(Path(), settings, config, quiet, own, loggers)
    if isinstance(config.feed, Replay):
        if config.feed.storage == "memmap" and not settings.checkpoint_every:
            raise BadInput(
                "feed.storage = 'memmap' keeps its rows with the checkpoints, and checkpoint_every is 0: set it, or use 'memory'"
            )
        check_replay(run.parts.env, config.feed, run._slack, Path(runs) if settings.checkpoint_every else None)
    run.path = folder.create(Path(runs), settings.env, agent, seed, name)
    run._write_config()
    folder.write_json(run.path / "meta.json", folder.meta())
    folder.link_last(Path(runs), run.path)
    return run.start()


def resume(
    path: str | Path, total_steps: int | None = None, quiet: bool = False, env: Any = None, loggers: Sequence = ()
) -> Run:
    """Go on with a run that was killed or stopped, or train a finished one further with more `total_steps`.

    env: only for a run that was trained on an environment object: such an object.
    Raises BadInput for a folder that is not a run, one that another process holds, a finished run without more steps, or fewer steps
    than the run was started for.
    """
    path = folder.open_run(path)
    with folder.lock(path):
        settings, config = read_settings(path)
        result = folder.read_json(path / "eval.json") if (path / "eval.json").exists() else {"steps": 0}
        done, over = result["steps"], result.get("episodes", 0) >= (settings.total_episodes or math.inf)
        total = settings.total_steps if total_steps is None else total_steps
        if total < settings.total_steps:
            raise BadInput(
                f"{path} was started for {settings.total_steps:,} steps and cannot be shortened to {total:,}"
            )
        if over:
            raise BadInput(f"{path} is finished: it was started for {settings.total_episodes:,} episodes")
        if total <= done:
            more = f"whorl resume {path} --total-steps {2 * total}"
            raise BadInput(f"{path} is finished at {done:,} steps; give more: {more}")
        check_annealing(config, total, settings.total_episodes)
        if env is None:
            needs_no_object(path, settings)
        own = None if env is None else as_env(env, settings.num_envs, settings.seed)
        run = Run(path, dataclasses.replace(settings, total_steps=total), config, quiet, own, loggers)
    return run.start(resume=True)


def _loop_of(agent: Any, collector: Any) -> Callable:
    """What runs the loop: the ordinary one, worker processes, or one compiled loop. They have the same arguments."""
    if hasattr(agent.config, "workers"):
        hogwild.check(agent, collector)
        return hogwild.train
    if isinstance(agent.config.feed, Stream) and agent.compiled:
        from whorl.training import compiled_td

        compiled_td.check(agent, collector)
        return compiled_td.train
    return loop.train


def check_annealing(config: Any, total: int, episodes: int | None = None) -> None:
    """Raises BadInput when the learning rate would reach 0 before the run ends."""
    over = getattr(config, "anneal_episodes", 0)
    if over and not (episodes and episodes <= over):
        raise BadInput(
            f"anneal_episodes = {over:,} needs total_episodes of at most that (it is {episodes}): the rest would be learned at rate 0"
        )
    anneal = getattr(config, "anneal_steps", 0)
    if 0 < anneal < total:
        raise BadInput(
            f"anneal_steps = {anneal:,} ends before total_steps = {total:,}: the rest would be learned at rate 0. "
            "Make anneal_steps as long as the run, or 0 for a constant rate"
        )
