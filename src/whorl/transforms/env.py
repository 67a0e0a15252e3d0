"""An environment with transforms around it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np

from whorl.envs.env import Array, Env, Observation, Step
from whorl.errors import BadInput
from whorl.functional.streams import stream
from whorl.transforms.layers import around
from whorl.transforms.transform import Transform


class Transformed(Env):
    """`env` as an agent sees it through `transforms`, the innermost first. It is a list of them, too: `append`, `insert`, `pop`, `[i]`,
    `len`, iteration; after a change it begins anew with `reset`.

    Raises BadInput for what is no environment of whorl's, what is no transform, or stands in the chain already, Incompatible, naming the
    transform and its place, for one that does not fit what lies within.
    """

    origin = "transformed"

    def __init__(self, env: Env, *transforms: Transform) -> None:
        if not isinstance(env, Env):
            raise BadInput(
                f"transforms go around an environment of whorl's, whorl.make_env(...) or your own whorl.Env, got {env!r:.80}"
            )
        self.env = env
        self._begin(list(transforms))

    # -- a list of transforms ---------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._transforms)

    def __bool__(self) -> bool:
        """An environment without transforms is one, too."""
        return True

    def __iter__(self) -> Iterator[Transform]:
        return iter(self._transforms)

    def __getitem__(self, index: int) -> Transform:
        return self._transforms[index]

    def append(self, transform: Transform) -> None:
        """Put it around all others."""
        self.insert(len(self), transform)

    def insert(self, index: int, transform: Transform) -> None:
        """Put it where `[index]` is then. Where that raises, the chain is as it was."""
        changed = self._transforms.copy()
        changed.insert(index, transform)
        self._change(changed)

    def pop(self, index: int = -1) -> Transform:
        """Take one out, and return it. Where that raises, the chain is as it was."""
        left = self._transforms.copy()
        transform = left.pop(index)
        self._change(left)
        return transform

    def _change(self, transforms: list[Transform]) -> None:
        around(self.env, deepcopy(transforms))  # raises, if at all, before any of them is touched
        self._begin(transforms)

    def _begin(self, transforms: list[Transform]) -> None:
        self._layer = layer = around(self.env, transforms)
        self._transforms = transforms
        self.id, self.num_envs, self.device = layer.id, layer.num_envs, layer.device
        self.observation_space, self.action_space = layer.observation_space, layer.action_space
        self.max_episode_steps, self.reward_threshold, self.goal = (
            layer.max_episode_steps,
            layer.reward_threshold,
            layer.goal,
        )
        self.partial, self.discounts = layer.partial, layer.discounts
        self.made_from = None  # more of what lies within would be without these transforms
        self.scalar_reward = layer.scalar_reward
        self._say()

    def _say(self) -> None:
        """What lies beside observations and steps."""
        layer = self._layer
        self.raw_reward, self.action_mask = layer.raw_reward, layer.action_mask
        self.cost, self.reward_vector, self.trajectory = layer.cost, layer.reward_vector, layer.trajectory

    def train(self, mode: bool = True) -> Transformed:
        """In train mode, as at first, running statistics move; else they stand."""
        for transform in self:
            transform.train(mode)
        return self

    # -- an environment -----------------------------------------------------------------------------------------------------

    @property
    def replay_steps(self) -> int:
        return self.env.replay_steps

    @replay_steps.setter
    def replay_steps(self, steps: int) -> None:
        self.env.replay_steps = steps

    @property
    def restarts(self) -> int:  # type: ignore[override]  # nobody sets it
        return self.env.restarts

    @property
    def first(self) -> int:
        return self.env.first

    @first.setter
    def first(self, row: int) -> None:
        self.env.first = row

    def reset(self, seed: int | None = None) -> Observation:
        if seed is not None:
            for place, transform in enumerate(self):
                transform.rows_before = self.first
                transform.seed(stream(seed % 2**64, "transform", place))
        return self._standing(self._layer.reset(seed))

    def step(self, action: Array, rows: np.ndarray | None = None) -> Step:
        step = self._layer.step(action, rows)
        self._say()
        return step

    def send(self, action: Array) -> None:
        self._layer.send(action)

    def receive(self) -> Step:
        step = self._layer.receive()
        self._say()
        return step

    def restart(self, rows: np.ndarray) -> Observation:
        return self._standing(self._layer.restart(rows))

    def state(self) -> dict[str, np.ndarray] | None:
        return self._layer.state()

    def load_state(self, state: dict[str, np.ndarray]) -> Observation:
        return self._standing(self._layer.load_state(state))

    def learned(self) -> dict[str, np.ndarray]:
        found = {f"env.{name}": array for name, array in self.env.learned().items()}
        for owner, transform in self._named():
            found |= {f"{owner}.{name}": x.cpu().numpy().copy() for name, x in transform.state_dict().items()}
        return found

    def _named(self) -> Iterator[tuple[str, Transform]]:
        """Each by its class and which of that class it is, so that a chain without those of training only has the same names."""
        seen: dict[str, int] = {}
        for transform in self:
            kind = type(transform).__name__
            seen[kind] = seen.get(kind, 0) + 1
            yield f"{kind}{seen[kind]}", transform

    def share(self, other: Env) -> None:
        assert isinstance(other, Transformed)
        self.env.share(other.env)
        for mine, its in zip(self, other, strict=True):
            mine.share(its)

    def load_learned(self, learned: dict[str, np.ndarray]) -> None:
        wanted = self.learned()
        if learned.keys() != wanted.keys():
            raise BadInput(
                f"{self!r} has learned {', '.join(wanted) or 'nothing'}, and was to load {', '.join(learned) or 'nothing'}"
            )
        self.env.load_learned({name[4:]: array for name, array in learned.items() if name.startswith("env.")})
        for owner, transform in self._named():
            transform.load_learned(
                {name.partition(".")[2]: x for name, x in learned.items() if name.startswith(f"{owner}.")}
            )

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    @property
    def own_observation_space(self) -> Any:
        return self.env.own_observation_space

    @property
    def own_action_space(self) -> Any:
        return self.env.own_action_space

    def encode(self, observation: Any) -> tuple[Observation, Array | None]:
        return self.env.encode(observation)

    def decode(self, action: Any) -> Any:
        return self.env.decode(action)

    def __repr__(self) -> str:
        return f"{self.env!r} through {', '.join(map(str, self)) or 'no transform'}"

    def _standing(self, observation: Observation) -> Observation:
        self._say()
        return observation
