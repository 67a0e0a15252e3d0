"""A run folder becomes an entry: the best checkpoint is scored again, under a protocol that is the same for everybody.

The protocol: EPISODES environments, one whole episode each, acting greedily (an agent without a greedy action draws), inside the
environment's own time limit, on the streams of the seed HELD_OUT, with torch on one thread.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from whorl.apps.board import entry
from whorl.apps.board.entry import Entry
from whorl.apps.board.forms import EPISODES, FIELDS, GIFS, HELD_OUT, LINE, OF_ENV
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.env import Env, Observation
from whorl.envs.ids import environment_behind
from whorl.envs.make import EnvKind, naming
from whorl.errors import BadInput, Damaged
from whorl.folders import Folder
from whorl.functional.streams import stream
from whorl.options import CHANGED, to_json
from whorl.policies.policy import Held, Policy
from whorl.training import checkpoint, folder
from whorl.training.evaluate import Evaluation, evaluate
from whorl.training.plot import evaluations
from whorl.training.process import threads_of_torch
from whorl.training.source import harmless
from whorl.training.trained import Settings, Trained, load, read_settings
from whorl.training.video import drawable
from whorl.training.written import read_config, read_meta, read_metrics
from whorl.transforms.chain import chain
from whorl.transforms.env import Transformed

FRAMES, SIDE = 120, 320  # most frames of a GIF, and most pixels of its longer side
POINTS = 1000  # most points of a learning curve
EPISODE_STREAM = stream(HELD_OUT, "evaluation episodes")  # the seed that `evaluate` resets its environments with


def submit(run: str | Path, board: str | Path = "board", author: str = "", note: str = "") -> Entry:
    """Scores the best checkpoint of a run (the last, if it was never evaluated) and adds it to a board, which is made if it is not there.

    The same run gives the same entry, however often it is submitted from the same machine. A run that was stopped counts with the
    steps it took; one that was trained on a gym HTTP server is scored in the environment of that id here. Raises BadInput, before
    anything is written, for a run on an environment object, one without a checkpoint, and an author or note that is not one short line.
    """
    for what, line in (("author", author), ("note", note)):
        if not LINE[0](line):
            raise BadInput(f"{what} should be {LINE[1]}, got {line[:300]!r}")
    trained, which, kind, policy = _best(folder.open_run(run))
    s = trained.settings
    made_at = read_meta(trained.path)
    now = folder.meta()
    score, threshold = examine(trained.policy, kind)
    if not np.isfinite(score.returns).all():
        raise BadInput(
            f"{trained.path} cannot be ranked: its returns are not finite ({score.returns[:3].tolist()}, ...)"
        )
    gifs = pictures(trained.policy, kind, score)
    curve, seconds, steps_per_second = _progress(trained.path)
    claim = {
        "env": kind.id,
        "agent": s.agent,
        "author": author,
        "note": note,
        "created": _utc(made_at.date, trained.path),
        "settings": {
            name: value
            for name, value in to_json(s).items()
            if name not in ("env", "agent", "own_env", "wrappers", "spaces") and (name not in OF_ENV or value)
        },
        "config": read_config(trained.path).config,
        "versions": made_at.versions,
        "commit": made_at.commit,
        "machine": machine(vars(made_at)),
        "command": _command(made_at.command),
        "evaluated": {"versions": now["versions"], "machine": machine(now)},
        "steps": min(_steps(checkpoint.find(trained.path / "checkpoints", "last")), s.total_steps),
        "seconds": seconds,
        "steps_per_second": steps_per_second,
        "returns": score.returns.tolist(),
        "lengths": score.lengths.tolist(),
        "reward_threshold": threshold,
        "which": which,
    }
    return entry.write(board, claim, curve, policy, gifs)


def _best(path: Path) -> tuple[Trained, str, EnvKind, bytes]:
    """The policy, which checkpoint it is, the environment to score it in (of a remote one, that of its kind here), and the policy's file.

    The checkpoint is looked up once: `best` moves while a run trains.
    """
    settings: Settings = read_settings(path)[0]
    if settings.own_env:
        raise BadInput(
            f"{path} was trained on an environment object ({settings.env}), with which nobody else can play it again: "
            "train on an environment's id, such as those of `whorl list envs`"
        )
    if settings.wrappers:
        raise BadInput(
            f"{path} was trained in {settings.env} with wrappers ({', '.join(settings.wrappers):.200}), which are code that an entry "
            "cannot hold: train without, or register the wrapped environment under an id of its own"
        )
    for key in naming(settings.env_kwargs):
        raise BadInput(
            f"{path} was trained with {key} = {settings.env_kwargs[key]!r:.80}, which could name a file or a module: nobody would verify "
            "it, register the environment with it under an id of its own"
        )
    checkpoints = path / "checkpoints"
    which = next((name for name in ("best", "last") if name in checkpoint.marked(checkpoints)), "")
    if not which:
        raise BadInput(f"{path} has no checkpoint to score: let it train with checkpoint_every above 0, then submit it")
    around = chain(harmless(settings.transforms, str(path / "config.json")))
    bare = EnvKind(environment_behind(settings.env), settings.env_kwargs)
    kind, env = replace(bare, transforms=around), bare.make()
    try:
        found = checkpoint.find(checkpoints, which)
        with Folder.inside(found) as folder:
            policy = folder.read("policy.safetensors")
        trained = load(path, _steps(found), env)
        if learned := trained.env.learned():
            raise BadInput(
                f"{path} was trained through transforms that learn ({', '.join(learned):.200}), and an entry holds the policy alone: let "
                "the policy normalize what it sees, feed.normalize_observation"
            )
        return trained, which, kind, policy
    except (BadInput, Damaged, RuntimeError) as error:
        if kind.id == settings.env:
            raise
        raise BadInput(
            f"{path} was trained on {settings.env}, whose spaces are not those of {kind.id} here: {error}"
        ) from None
    finally:
        env.close()


def _utc(date: str, run: Path) -> str:
    try:
        return f"{datetime.fromisoformat(date).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError):
        raise Damaged(f"{run / 'meta.json'}: date should be a time in ISO 8601, got {date[:60]!r}: {CHANGED}") from None


def _steps(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def machine(meta: dict[str, Any]) -> dict[str, Any]:
    """What `folder.meta` says of the machine, without its name."""
    return {name: meta[name] for name in ("cpu", "cpu_count", "system")}


def _command(command: str) -> str | None:
    """The command without the folder that whorl is installed in; None if it has line breaks, which would run when it is pasted."""
    program, space, rest = command.partition(" ")
    command = f"whorl{space}{rest}" if Path(program).name == "whorl" else command
    fits = FIELDS["command"][0]
    return command if fits(command) else None


def _progress(run: Path) -> tuple[dict[str, list | None], float | None, float | None]:
    """The learning curve, seconds of training, and environment steps per second; None where the run did not write them down."""
    found = evaluations(run)
    keep = np.unique(np.linspace(0, len(found.step) - 1, min(POINTS, len(found.step))).round().astype(int))
    seconds = None if found.seconds is None else found.seconds[keep].tolist()
    curve: dict[str, list | None] = {"step": found.step[keep].tolist(), "seconds": seconds}
    curve |= {"mean": found.mean[keep].tolist(), "std": found.std[keep].tolist()}
    timed: dict[str, Any] | None = None
    fps: float | None = None
    for row in read_metrics(run, "time/"):
        timed = row if row.get("time/seconds") else timed
        fps = row.get("time/fps", fps)
    return (curve, timed["time/seconds"], timed["step"] / timed["time/seconds"]) if timed else (curve, None, fps)


# ---------------------------------------------------------------------------------------------------- the protocol


def examine(policy: Policy, kind: EnvKind) -> tuple[Evaluation, float | None]:
    """The score of a policy under the protocol, and the environment's reward threshold. Raises BadInput for an unknown environment."""
    env = kind.make(EPISODES, HELD_OUT)
    try:
        with threads_of_torch(1):
            return evaluate(policy, env, EPISODES, HELD_OUT), env.reward_threshold
    finally:
        env.close()


def pictures(policy: Policy, kind: EnvKind, score: Evaluation) -> dict[str, bytes]:
    """GIFs of the best episode of a score and of a typical one (of median return); none without a picture.

    Both are played again. There are none either if one comes out otherwise than in the score, because the environment keeps randomness
    that neither its state nor its seed brings back.
    """
    try:
        drawable(kind, 0).close()
    except BadInput:  # it could be made a moment ago, so what it lacks is the picture
        return {}
    order = np.argsort(score.returns, kind="stable")
    chosen = dict(zip(GIFS, (order[-1], order[(EPISODES - 1) // 2]), strict=True))
    with threads_of_torch(1):
        films = {name: _film(policy, kind, int(index), int(score.lengths[index])) for name, index in chosen.items()}
    exact = {name: total for name, (_, total) in films.items()} == entry.replays(score.returns.tolist())
    return {name: gif for name, (gif, _) in films.items()} if exact else {}


def _film(policy: Policy, kind: EnvKind, index: int, length: int) -> tuple[bytes, float]:
    """One episode of the protocol, that of environment `index`, as a GIF with its return.

    The policy acts for EPISODES equal rows, as it did in the score, because another number of rows can give other bits.
    """
    import imageio.v3 as imageio

    env, observation = _alone(kind, index)
    actor, is_first = policy.actor(EPISODES), np.ones(EPISODES, bool)
    carry: Held = policy.initial(EPISODES)
    generator = torch.Generator().manual_seed(stream(HELD_OUT, "evaluation"))
    frames, total, taken = [], 0.0, 0
    try:
        while taken < length:
            if taken % -(-length // FRAMES) == 0:
                picture = env.render()
                every = -(-max(picture.shape[:2]) // SIDE)
                frames.append(picture[::every, ::every].copy())
            noise = None if policy.greedy else policy.noise((1, EPISODES), generator)[0]
            mask = None if env.action_mask is None else _rows(env.action_mask)
            if noise is not None:
                noise = noise[index : index + 1].expand_as(noise)
            decided, carry = actor(_rows(observation), carry, is_first, noise, mask)
            step = env.step(np.asarray(decided["action"])[index : index + 1])
            reward = step.reward if env.raw_reward is None else env.raw_reward
            valid = step.valid is None or bool(step.valid[0])
            observation, total, taken = step.observation, total + float(reward[0]) * valid, taken + valid
            is_first = _rows((step.terminated | step.truncated) | (not valid))
            if is_first[0] and valid:
                break
    finally:
        env.close()
    return imageio.imwrite("<bytes>", np.stack(frames), extension=".gif", duration=40, loop=0), total


def _alone(kind: EnvKind, index: int) -> tuple[Env, Observation]:
    """One environment with pictures, at the beginning of the episode that environment `index` of the protocol plays."""
    env = drawable(kind, 0)
    if (env.env if isinstance(env, Transformed) else env).origin == "native":
        many = kind.make(EPISODES)
        many.reset(EPISODE_STREAM)
        state: Any = many.state()
        return env, env.load_state(
            {name: part[index : index + 1] if part.ndim else part for name, part in state.items()}
        )
    env.close()
    seed = int(
        np.random.SeedSequence((EPISODE_STREAM, index)).generate_state(1)[0]
    )  # as envs/adapters/gymnasium.py says
    options: dict[str, Any] = {**kind.kwargs, "disable_env_checker": True, "render_mode": "rgb_array"}
    made = gymnasium.make(gymnasium.registry[kind.id], **options)
    env = Gymnasium(_Seeded(made, seed))
    env = env if kind.transforms is None else kind.transforms.around(env, training=False)
    return env, env.reset(EPISODE_STREAM)


class _Seeded(gymnasium.Wrapper):
    """Resets with a seed of its own."""

    def __init__(self, env: gymnasium.Env, seed: int):
        super().__init__(env)
        self._own = seed

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        return self.env.reset(seed=self._own, options=options)


def _rows(tree: Any) -> Any:
    """[1, ...] -> [EPISODES, ...]."""
    if isinstance(tree, dict):
        return {key: _rows(part) for key, part in tree.items()}
    return np.repeat(np.asarray(tree), EPISODES, 0)
