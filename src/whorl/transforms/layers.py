"""How a chain of transforms steps an environment: layers, each of which is an environment for the next one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch

from whorl.envs.env import Array, Env, Observation, Step
from whorl.envs.guard import guarded
from whorl.errors import BadInput, Incompatible, in_words
from whorl.spaces import leaves, like, restored, tree_map
from whorl.spaces import zeros as space_zeros
from whorl.transforms.transform import Result, Transform, copied, flags, merged, zeros

CANNOT = {"restart": "begin anew one by one", "rows": "be stepped one by one"}


class Layer(Env):
    """A part of a chain around `world`, the environment with all that lies within."""

    origin = "transformed"

    def __init__(self, world: Env, transforms: Sequence[tuple[str, Transform]]) -> None:
        self.world = world
        self._world: Any = world if isinstance(world, Layer) else guarded(world)
        self.id, self.num_envs, self.device = world.id, world.num_envs, world.device
        self.partial, self.reward_threshold = world.partial, world.reward_threshold
        self.max_episode_steps, self.discounts = world.max_episode_steps, world.discounts
        space = world.observation_space, world.action_space
        for name, transform in transforms:
            if lacking := sorted(transform.needs - world.partial):
                raise Incompatible(
                    f"{name} needs environments that can {CANNOT.get(lacking[0], lacking[0])}, and {world!r} cannot"
                )
            try:
                space = transform.spaces(*space)
                transform.to(self.device).begin(self.num_envs, self.device)
                self.max_episode_steps = transform.episode_steps(self.max_episode_steps)
            except Incompatible as error:
                raise Incompatible(f"{name} does not fit what lies within: {error}") from error
            except Exception as error:
                raise BadInput(f"{name} cannot go around {world!r}: {in_words(error)}") from error
            if isinstance(space[0], gymnasium.spaces.Dict) and not space[0].spaces:
                raise Incompatible(f"{name} leaves no observation: an agent needs at least one entry")
            self.discounts |= transform.discounts
        self.observation_space, self.action_space = space
        self._transforms = [transform for _, transform in transforms]
        self.scalar_reward = world.scalar_reward or any(transform.linearizes for transform in self._transforms)
        self.cost, self.reward_vector = world.cost, world.reward_vector
        judged = _overriding(self._transforms, "play") or any(transform.rewards for transform in self._transforms)
        if self.observation_space == world.observation_space and not judged:
            self.goal = world.goal
        self._rewards = any(transform.rewards for transform in self._transforms) or world.raw_reward is not None
        self._nothing_earned()
        self._shown: Any = None  # where all stand, as it is outside; None: not begun
        self._resetters = _overriding(self._transforms, "reset")
        self._allowers = _overriding(self._transforms, "allowed")
        self._counters = _overriding(self._transforms, "trajectory")
        self._painters = [transform for transform in self._transforms if transform.draws]
        if self._painters:
            self._world.film()

    def __repr__(self) -> str:
        return repr(self.world)

    def reset(self, seed: int | None = None) -> Observation:
        rows = flags(self.num_envs, self.device, True)
        self._nothing_earned()
        return self._show(self._fresh(self._world.reset(seed), rows))

    def _nothing_earned(self) -> None:
        if self._rewards:
            self.raw_reward = zeros((self.num_envs,), np.float32, self.device)

    def restart(self, rows: np.ndarray) -> Observation:
        fresh = self._fresh(self._world.restart(rows), rows)
        return self._show(merged(self._shown, rows, fresh))

    def _fresh(self, observation: Observation, rows: Array) -> Observation:
        """Phase 2."""
        self._draw(ended=False)
        for transform in self._resetters:
            observation = transform.reset(observation, rows)
        return observation

    def _draw(self, ended: bool) -> None:
        for transform in self._painters:
            transform.drawn(self._world.pictures(ended))

    def film(self) -> None:
        raise BadInput("pictures are drawn before other transforms play or restart: put from_render first in the chain")

    def _show(self, observation: Observation) -> Observation:
        self._shown = observation
        self.cost, self.reward_vector = self.world.cost, self.world.reward_vector
        self.trajectory = self.world.trajectory
        for transform in self._counters:
            self.trajectory = transform.trajectory(self.trajectory)
        mask = self.world.action_mask
        for transform in self._allowers:
            mask = transform.allowed(mask)
        self.action_mask = mask
        return observation

    def state(self) -> dict[str, np.ndarray] | None:
        within = self.world.state()
        if within is None:
            return None
        parts: dict[str, Any] = {f"env.{name}": array for name, array in within.items()}
        for place, transform in enumerate(self._transforms):
            parts |= {f"{place}.{name}": array for name, array in transform.state().items()}
        if self._shown is not None:
            parts |= {f"shown.{k}": leaf for k, leaf in enumerate(leaves(self._shown))}
        return {name: np.array(x) if isinstance(x, np.ndarray) else x.cpu().numpy().copy() for name, x in parts.items()}

    def load_state(self, state: dict[str, np.ndarray]) -> Observation:
        observation = self._world.load_state(_of(state, "env."))
        for place, transform in enumerate(self._transforms):
            transform.load_state(_of(state, f"{place}."))
        if saved := {name: torch.as_tensor(array) for name, array in _of(state, "shown.").items()}:
            numbers = iter(range(len(saved)))
            like = tree_map(lambda x: x.to(self.device), space_zeros(self.observation_space, (self.num_envs,)))
            like = tree_map(torch.Tensor.numpy, like) if self.device == "cpu" else like
            observation = tree_map(lambda leaf: restored(saved, str(next(numbers, "?")), leaf), like)
        return self._show(observation)


class Phases(Layer):
    """Transforms that change one step: phase 1 on the successor, phase 2 where episodes begin."""

    def __init__(self, world: Env, transforms: Sequence[tuple[str, Transform]]) -> None:
        super().__init__(world, transforms)
        self._actors = _overriding(reversed(self._transforms), "action")
        self._steppers = _overriding(self._transforms, "step")
        self._ends = any("restart" in transform.needs for transform in self._transforms)

    def step(self, action: Array, rows: np.ndarray | None = None) -> Step:
        action = self._within(action)
        if rows is None:
            return self._outside(self._world.step(action))
        shown = copied(self._shown)  # the world may write there
        return self._outside(self._world.step(action, rows), rows, shown)

    def send(self, action: Array) -> None:
        self._world.send(self._within(action))

    def receive(self) -> Step:
        return self._outside(self._world.receive())

    def _within(self, action: Array) -> Array:
        for transform in self._actors:
            action = transform.action(action)
        return action

    def _outside(self, step: Any, rows: np.ndarray | None = None, shown: Any = None) -> Step:
        """What a step of the world is here; shown: where all stood, if only `rows` stepped."""
        if self._rewards:
            self.raw_reward = step.reward if self.world.raw_reward is None else self.world.raw_reward
        if step.valid is None:
            return self._settled(step, self._phase_1(step))
        still = ~step.valid
        kept = [{name: x[still] for name, x in each.state().items()} for each in self._transforms]
        result = self._phase_1(step)
        for transform, memory in zip(self._transforms, kept, strict=True):  # who stands is not at another place in time
            for name, array in memory.items():
                transform.state()[name][still] = array
        observation = result.observation
        if rows is not None:
            observation = merged(observation, still & ~like(rows, still), shown)
            still = still & like(rows, still)
        # the others of them were reset by the engine, in a step of its own
        observation = merged(observation, still, self._fresh(step.observation, still))
        counts = step.valid
        result = result._replace(
            observation=observation,
            reward=result.reward * counts,
            terminated=result.terminated & counts,
            truncated=result.truncated & counts,
        )
        settled = self._settled(step._replace(truncated=step.truncated & counts), result)
        return settled._replace(truncated=settled.truncated | (step.truncated & ~counts))  # lost

    def _phase_1(self, step: Step) -> Result:
        result = Result(
            step.next_observation, step.reward, step.terminated, step.truncated, step.valid, step.discount, step.info
        )
        self._draw(ended=True)
        for transform in self._steppers:
            result = transform.step(result)
        return result

    def _settled(self, step: Step, result: Result) -> Step:
        """Phase 2 of whatever ended, inside or by a transform of this layer."""
        successor = here = result.observation
        by_world = step.terminated | step.truncated
        ended = by_world | result.terminated | result.truncated
        if self.device != "cpu" or ended.any():  # there, to know would make the host wait
            fresh, asked = step.observation, ended & ~by_world
            if self._ends and (self.device != "cpu" or asked.any()):
                fresh = self._world.restart(asked)
            if fresh is not step.next_observation:  # else the engine resets in its next step
                here = merged(successor, ended, self._fresh(fresh, ended))
        return Step(self._show(here), result.reward, result.terminated, result.truncated, successor, *result[4:])


class Played(Layer):
    """One transform that steps the world itself."""

    def __init__(self, world: Env, transform: tuple[str, Transform]) -> None:
        super().__init__(world, [transform])
        self._transform = transform[1]

    def step(self, action: Array, rows: np.ndarray | None = None) -> Step:
        shown = None if rows is None else copied(self._shown)  # the world may write there
        step: Step = self._transform.play(self._world, action, rows)
        if self._rewards:
            self.raw_reward = self.world.raw_reward
        here, there = step.observation, step.next_observation
        ended = step.terminated | step.truncated
        some = self.device != "cpu" or ended.any()
        if self._resetters and some:
            here = merged(here, ended, self._fresh(here, ended))
        if rows is not None:
            stood = ~like(rows, ended)
            here, there = merged(here, stood, shown), merged(there, stood, shown) if some else there
        step = step._replace(observation=self._show(here), next_observation=there if some else here)
        for name, sum in self._transform.paid.items():
            setattr(self, name, sum)
        return step


EARNED = ("raw_reward", "cost", "reward_vector")  # what an environment has beside its `Step`, where it has it


class Moved(Layer):
    """All that lies within, with its arrays on another device."""

    def __init__(self, world: Env, transform: tuple[str, Transform]) -> None:
        super().__init__(world, [transform])
        self._within, self.device = zeros((0,), np.float32, world.device), str(transform[1].moves_to)
        self._outside = zeros((0,), np.float32, self.device)
        self._earned()

    def reset(self, seed: int | None = None) -> Observation:
        return self._show(self._moved(self._world.reset(seed)))

    def restart(self, rows: Any) -> Observation:
        return self._show(self._moved(self._world.restart(like(rows, self._within))))

    def step(self, action: Any, rows: Any = None) -> Step:
        step = self._world.step(like(action, self._within), None if rows is None else like(rows, self._within))
        here = self._moved(step.observation)
        there = here if step.next_observation is step.observation else self._moved(step.next_observation)
        reward, terminated, truncated = map(self._moved, step[1:4])
        valid, discount = self._moved(step.valid), self._moved(step.discount)
        return Step(self._show(here), reward, terminated, truncated, there, valid, discount, step.info)

    def load_state(self, state: dict[str, np.ndarray]) -> Observation:
        return self._show(self._moved(super().load_state(state)))

    def _show(self, observation: Observation) -> Observation:
        super()._show(observation)
        self.action_mask = self._moved(self.action_mask)
        self._earned()
        return observation

    def _earned(self) -> None:
        for name in EARNED:
            setattr(self, name, self._moved(getattr(self.world, name)))

    def _moved(self, tree: Any) -> Any:
        return None if tree is None else tree_map(lambda x: like(x, self._outside), tree)


def around(env: Env, transforms: Sequence[Transform]) -> Layer:
    """The layers of a chain, the outermost of which steps it: a transform that plays, or moves all to a device, is one of its own, and
    those between two of them are one together.

    Raises BadInput for what is no transform, or stands there twice, Incompatible, naming transform and place, where one does not fit.
    """
    world, together = env, list[tuple[str, Transform]]()
    for place, transform in enumerate(transforms):
        if not isinstance(transform, Transform):
            raise BadInput(f"a chain is made of transforms, got {type(transform).__name__} at place {place}")
        named = f"{type(transform).__name__} (place {place} of the chain)", transform
        if any(transform is other for other in transforms[:place]):
            raise BadInput(f"{named[0]} stands there twice: each place needs an object of its own")
        if type(transform).play is Transform.play and transform.moves_to is None:
            together.append(named)
        else:
            kind = Played if transform.moves_to is None else Moved
            world = kind(Phases(world, together) if together else world, named)
            together = []
    return world if isinstance(world, Layer) and not together else Phases(world, together)


def _overriding(transforms: Iterable[Transform], method: str) -> list[Transform]:
    """Those that change something there: nobody else is asked."""
    return [each for each in transforms if getattr(type(each), method) is not getattr(Transform, method)]


def _of(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}
