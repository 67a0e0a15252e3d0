"""Start a run, or go on with one: what was asked is checked before anything is written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whorl.envs.adapters.gym_client import check_no_token
from whorl.envs.make import as_env
from whorl.errors import BadInput
from whorl.feeds import Replay
from whorl.training import folder
from whorl.training.build import check_replay
from whorl.training.catalog import find
from whorl.training.config import override
from whorl.training.run import Run
from whorl.training.trained import Settings, needs_no_object, read_settings
from whorl.training.video import drawable


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

    env: an id, the URL of an environment on a gym HTTP server, or an object of yours: `Env`, `gymnasium.Env`, `VectorEnv`, or a
    callable that makes a `gymnasium.Env`. With an object there is no evaluation, and it is yours to close.
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
    if own is None:
        check_no_token(env)
    preset = find(agent, env if own is None else own.id)
    total = preset.total_steps if total_steps is None else total_steps
    config = override(_anneal_over(total, preset, preset.config if config is None else config), agent_fields)
    if own is not None:
        _check_object(agent, config, bool(video_every or max_episode_steps), bool(eval_every))
    often = max(1, total // 20)
    settings = Settings(
        agent=agent,
        env=env if own is None else own.id or type(env).__name__,
        own_env=own is not None,
        seed=seed,
        num_envs=num_envs if num_envs is not None else preset.num_envs if own is None else own.num_envs,
        total_steps=total,
        device=device,
        compile=compile,
        threads=threads,
        eval_every=often if eval_every is None else eval_every,
        eval_episodes=eval_episodes,
        checkpoint_every=min(often, _interval(config)) if checkpoint_every is None else checkpoint_every,
        log_every=log_every,
        total_episodes=total_episodes,
        max_episode_steps=max_episode_steps,
        window=window,
        video_every=video_every,
    )
    _check_numbers(settings)
    check_annealing(config, total, total_episodes)
    if video_every:
        drawable(env, seed).close()  # has it a picture?
    run = Run(Path(), settings, config, quiet, own, loggers)
    if isinstance(config.feed, Replay):
        if config.feed.storage == "memmap" and not settings.checkpoint_every:
            raise BadInput(
                "feed.storage = 'memmap' keeps its rows with the checkpoints, and checkpoint_every is 0: set it, or use 'memory'"
            )
        check_replay(run.parts.env, config.feed, run.slack, Path(runs) if settings.checkpoint_every else None)
    run.path = folder.create(Path(runs), settings.env, agent, seed, name)
    run.write_config()
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


def _anneal_over(total: int, preset: Any, config: Any) -> Any:
    """A preset that anneals over its own run anneals over this one."""
    whole = preset.total_steps
    if getattr(preset.config, "anneal_steps", 0) == whole == getattr(config, "anneal_steps", 0):
        return override(config, {"anneal_steps": total})
    return config


def _interval(config: Any) -> int:
    """Most steps between checkpoints: replay keeps the rows of an interval twice beside those that can be drawn, a few percent."""
    if not isinstance(config.feed, Replay):
        return 2**62
    return max(1, config.feed.capacity // (100 if config.feed.storage == "frames" else 20))


def _check_object(agent: str, config: Any, changed: bool, evaluated: bool) -> None:
    """Raises BadInput for what cannot be done with an environment that is an object."""
    if changed:
        raise BadInput(
            "an environment object cannot be copied or changed: pass an id for video_every and max_episode_steps"
        )
    if config.feed.own_envs:
        raise BadInput(
            f"the workers of {agent} make environments of their own, so an environment object will not do: pass an id"
        )
    if evaluated:
        raise BadInput("an environment object cannot be copied for evaluation: pass an id, or leave eval_every out")


def _check_numbers(settings: Settings) -> None:
    """Raises BadInput for counts below what makes sense."""
    least = {"seed": 0, "eval_every": 0, "checkpoint_every": 0, "video_every": 0}
    least |= dict.fromkeys(("total_steps", "eval_episodes", "log_every", "threads", "window"), 1)
    least |= dict.fromkeys(("total_episodes", "max_episode_steps"), 1)
    for option, lowest in least.items():
        value = getattr(settings, option)
        if value is not None and value < lowest:
            raise BadInput(f"{option} must be at least {lowest}, got {value}")


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
