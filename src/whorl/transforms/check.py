"""`check_transform`: does a transform keep the contract of `Transform`? Says in one sentence what to change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Space

from whorl.batch import Batch
from whorl.envs.check import check_env
from whorl.envs.check_calls import as_numpy, copied, equal
from whorl.envs.check_spaces import random_actions
from whorl.envs.env import Env
from whorl.envs.guard import guarded
from whorl.errors import BadInput, EnvError, TransformFault, WhorlError, in_words
from whorl.spaces import tree_map
from whorl.transforms.env import Transformed
from whorl.transforms.transform import Result, Transform

CLOSE = 2e-6  # numpy and torch, relative and absolute: their tanh, sqrt and sums differ in the last bits
TORCH = "cpu:0"  # a device for the transform that is not "cpu", whose arrays are numpy


def check_transform(transform: Transform, env: Env, steps: int = 60, seed: int = 0) -> None:
    """Put copies of `transform` around `env` (two environments at least), act at random, and raise TransformFault at the first breach.

    Checked: all that `check_env` does of the environment outside, its spaces, restarts and state among that; that the arguments are plain
    values, which make the same transform again; that numpy and torch agree, and `forward` on a batch with what the environment shows; that
    a row depends on no other (running statistics stand, there); that arrays that came in are not written, nor those that were handed out
    before the next step; that what was learned goes through `state_dict` and stands in evaluation. Where a transform plays its own steps,
    or draws, `check_env` is what holds it to the contract.
    """
    if env.num_envs < 2 or env.device != "cpu":
        raise BadInput(f"check_transform wants two environments at least, on the CPU, to tell rows apart; got {env!r}")
    check = _Check(transform, env, steps, seed)
    try:
        check.run()
    except WhorlError:
        raise
    except Exception as error:
        raise check.breach(
            f"it raised {in_words(error)}, or gives what has not the shape that `spaces` says"
        ) from error


class Moment(NamedTuple):
    """One step inside, arrays of its own."""

    action: np.ndarray  # outside
    stood: Any  # observation before it
    result: Result
    fresh: Any  # observation after auto-reset


class Seen(NamedTuple):
    """What came out of one step, arrays of its own."""

    inside: Any  # the action
    result: tuple
    ended: Any  # [N] bool
    shown: Any  # observation after phase 2: it counts where the episode ended


class _Check:
    def __init__(self, transform: Transform, env: Env, steps: int, seed: int) -> None:
        self.transform, self.env, self.steps, self.seed = transform, env, steps, seed
        self.name = type(transform).__name__

    def run(self) -> None:
        self.arguments()
        if type(self.transform).play is Transform.play and not self.transform.draws:
            self.alone()
        self.outside()

    def alone(self) -> None:
        """Its two phases, called by hand."""
        first, moments = self.recorded(self.seed)
        other, others = self.recorded(self.seed + 1)
        for training in (True, False):
            in_numpy, in_torch = (self.tried(first, moments, device, training) for device in ("cpu", TORCH))
            for t, (one, two) in enumerate(zip(in_numpy, in_torch, strict=True)):
                self.demand(
                    close(one, two), f"numpy and torch give other numbers at step {t}: write one formula for both"
                )
        self.rows(first, moments, other, others)
        self.batches(first, moments)

    def arguments(self) -> None:
        again: Transform | None = None
        try:
            arguments = self.transform.arguments()
            again = type(self.transform)(**json.loads(json.dumps(arguments, allow_nan=False)))
        except (TypeError, ValueError, AttributeError) as error:
            raise self.breach(
                f"what its constructor was called with cannot be written down and read again: keep each argument, a plain value, as an "
                f"attribute of the same name ({error})"
            ) from error
        self.demand(
            again.arguments() == arguments, f"made again from {arguments}, it says it was made from {again.arguments()}"
        )

    def outside(self) -> None:
        around = Transformed(self.env, self.copy(True))
        try:
            check_env(around.train(False), self.steps, self.seed)
        except EnvError as error:
            raise self.breach(f"around {self.env!r} it breaks the contract of environments: {error}") from error
        learned = around.learned()
        self.moved(around.train())
        around.load_learned(learned)
        self.demand(equal(around.learned(), learned), "load_learned() of what was learned gave something else")

    def moved(self, env: Transformed) -> None:
        """A few steps of training, so that what is learned is other than at first; then some of evaluation, where it stands."""
        rng = np.random.default_rng(self.seed)
        env.reset(self.seed)
        for training in (True, False):
            env.train(training)
            before = env.learned()
            for _ in range(5):
                env.step(self.acted(env.action_space, env.action_mask, rng))
            self.demand(
                training or equal(env.learned(), before), "what it learned moves in evaluation: ask `self.training`"
            )

    def acted(self, space: Space, mask: Any, rng: np.random.Generator) -> np.ndarray:
        return random_actions(space, self.env.num_envs, None if mask is None else as_numpy(mask), rng)

    def copy(self, training: bool) -> Transform:
        return deepcopy(self.transform).train(training)

    def placed(self, device: str, training: bool) -> Transform:
        """A copy, as it begins around `env`."""
        transform = self.copy(training)
        _, self.action_space = transform.spaces(self.env.observation_space, self.env.action_space)
        transform.begin(self.env.num_envs, device)
        transform.episode_steps(self.env.max_episode_steps)
        transform.seed(self.seed)
        return transform

    def recorded(self, seed: int) -> tuple[Any, list[Moment]]:
        """Random steps of the environment inside."""
        world, transform, rng = guarded(self.env), self.placed("cpu", False), np.random.default_rng(seed)
        first, moments = copied(world.reset(seed)), list[Moment]()
        stood = first
        for _ in range(self.steps):
            action = self.acted(self.action_space, transform.allowed(self.env.action_mask), rng)
            step = world.step(transform.action(action.copy()))
            result = Result(
                copied(step.next_observation),
                *map(copied, (step.reward, step.terminated, step.truncated)),
                *map(copied, step[5:7]),
            )
            moments.append(Moment(action, stood, result, copied(step.observation)))
            stood = moments[-1].fresh
        return first, moments

    def tried(self, first: Any, moments: list[Moment], device: str, training: bool) -> list[Seen]:
        """`replayed`. Raises TransformFault for whatever it raises, which may be of numpy or torch alone."""
        try:
            return self.replayed(first, moments, device, training)
        except TransformFault:
            raise
        except Exception as error:
            raise self.breach(
                f"it fails with arrays of {'numpy' if device == 'cpu' else 'torch'}: {in_words(error)}. One formula goes with both: "
                "`zeros` in `begin(n, device)`, and `with_entry`, `merged`, `float32` for what has other names (transforms/transform.py)"
            ) from error

    def replayed(self, first: Any, moments: list[Moment], device: str, training: bool) -> list[Seen]:
        """What a copy makes of the recorded steps; it is begun again where either ends an episode."""
        transform, kind = self.placed(device, training), copied if device == "cpu" else torch_copy
        rows = kind(np.ones(self.env.num_envs, bool))
        shown = copied(transform.reset(kind(first), rows))
        seen = [Seen(None, (), rows, shown)]
        for moment in moments:
            given = kind(tuple(moment.result[:6]))
            came = copied(given)
            inside = transform.action(kind(moment.action))
            result = transform.step(Result(*given))
            kept = copied(result[:6])
            ended = given[2] | given[3] | result.terminated | result.truncated
            shown = transform.reset(kind(moment.fresh), ended)
            self.demand(equal(copied(given), came), "it writes into arrays that it was given: copy them first")
            self.demand(
                equal(copied(result[:6]), kept),
                "its `reset` writes into what its `step` handed out: the true successors lie there until the next step",
            )
            seen.append(Seen(copied(inside), kept, copied(ended), copied(where(ended, shown))))
        return seen

    def rows(self, first: Any, moments: list[Moment], other: Any, others: list[Moment]) -> None:
        """Row 0 among its own neighbours, and among those of another recording."""
        mine = np.arange(self.env.num_envs) == 0
        mixed = [mix(mine, one, two) for one, two in zip(moments, others, strict=True)]
        for t, (one, two) in enumerate(
            zip(
                self.replayed(first, moments, "cpu", False),
                self.replayed(mix(mine, first, other), mixed, "cpu", False),
                strict=True,
            )
        ):
            self.demand(equal(row(one, 0), row(two, 0)), f"row 0 depends on other rows at step {t}")

    def batches(self, first: Any, moments: list[Moment]) -> None:
        """`forward` of a batch [T, N], where the environment's side changes something, too."""
        cls = type(self.transform)
        if cls.forward is Transform.forward or (cls.step is Transform.step and cls.reset is Transform.reset):
            return
        steps = [moment.result for moment in moments]
        batch = batch_of(
            {
                "observation": stack([moment.stood for moment in moments]),
                "action": stack([moment.action for moment in moments]),
                "next": {
                    "observation": stack([each.observation for each in steps]),
                    **{
                        name: stack([getattr(each, name) for each in steps])
                        for name in ("reward", "terminated", "truncated")
                    },
                },
            },
            len(steps),
            self.env.num_envs,
        )
        try:
            batch = self.placed(TORCH, False)(batch)
        except BadInput as error:
            raise self.breach(f"`forward` refuses a batch: {error}") from error
        seen = self.replayed(first, moments, TORCH, False)
        results = [each.result for each in seen[1:]]
        for name, outside in (
            ("next.observation", stack([each[0] for each in results])),
            ("next.reward", stack([each[1] for each in results])),
        ):
            inside = batch[tuple(name.split("."))]
            inside = inside.to_dict() if isinstance(inside, Batch) else inside
            self.demand(
                close(copied(inside), copied(outside)), f"`forward` gives another {name} than the environment shows"
            )

    def demand(self, holds: Any, message: str) -> None:
        if not holds:
            raise self.breach(message)

    def breach(self, message: str) -> TransformFault:
        return TransformFault(f"{self.name}: {message}")


def torch_copy(tree: Any) -> Any:
    if isinstance(tree, tuple):
        return tuple(map(torch_copy, tree))
    return None if tree is None else tree_map(lambda x: torch.as_tensor(x.copy(), device=TORCH), tree)


def where(rows: Any, tree: Any) -> Any:
    """The tree with zeros in the other rows, whose values do not count."""
    return tree_map(lambda x: x * rows.reshape(-1, *[1] * (x.ndim - 1)), tree)


def mix(mine: np.ndarray, one: Any, other: Any) -> Any:
    """The rows `mine` of one tree, the others of the other."""
    if isinstance(one, dict):
        return {key: mix(mine, one[key], other[key]) for key in one}
    if isinstance(one, tuple):
        parts = [mix(mine, a, b) for a, b in zip(one, other, strict=True)]
        return type(one)(*parts) if hasattr(one, "_fields") else tuple(parts)
    if one is None:
        return one
    return np.where(mine.reshape(-1, *[1] * (one.ndim - 1)), one, other)


def row(tree: Any, i: int) -> Any:
    if isinstance(tree, dict):
        return {key: row(value, i) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(row(part, i) for part in tree)
    return None if tree is None else copied(tree)[i]


def stack(trees: list[Any]) -> Any:
    """Trees of arrays [N, ...] as one of tensors [T, N, ...]."""
    if isinstance(trees[0], dict):
        return {key: stack([tree[key] for tree in trees]) for key in trees[0]}
    return torch.as_tensor(np.stack(trees))


def batch_of(tree: dict[str, Any], *shape: int) -> Batch:
    return Batch(
        {key: batch_of(value, *shape) if isinstance(value, dict) else value for key, value in tree.items()}, shape
    )


def close(one: Any, other: Any) -> bool:
    """Equal within CLOSE where the numbers are floats, to the bit elsewhere; nested in dicts and tuples."""
    return all(_close(a, b) for a, b in zip(_flat(one), _flat(other), strict=True))


def _flat(tree: Any) -> Iterator[Any]:
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, tuple) else None
    if parts is None:
        yield copied(tree)
    else:
        for part in parts:
            yield from _flat(part)


def _close(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(np.allclose(one, other, CLOSE, CLOSE)) if one.dtype.kind == "f" else bool((one == other).all())
