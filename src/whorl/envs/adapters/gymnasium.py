"""Gymnasium environments, single or vector, as an `Env`. Auto-reset is translated here and nowhere else."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space, iterate

from whorl.envs.adapters.engine import autoreset_mode, make_engine
from whorl.envs.adapters.episodes import SEEN, Episodes
from whorl.envs.adapters.goals import goal_of
from whorl.envs.adapters.infos import Infos
from whorl.envs.adapters.masks import Masks, merged
from whorl.envs.adapters.spaces import action_form, actions
from whorl.envs.adapters.together import MISFITS, Indexed, Together, said, stacked, step_rows
from whorl.envs.adapters.trees import copied, replaced, rows_of
from whorl.envs.env import Env, Observation, Step
from whorl.errors import BadInput, EnvError, Incompatible, NotReplayed, WhorlError, in_words

RESTART = frozenset({"restart"})
ROWS = RESTART | {"rows"}


class Gymnasium(Env):
    """N Gymnasium environments stepped together.

    env: an id of Gymnasium's registry (`options` go to `gymnasium.make`), a `gymnasium.Env` (then N = 1), a callable
    that makes one (called N times), or a `gymnasium.vector.VectorEnv` (its own N, in any of the three autoreset modes).

    Seeds: environment i starts from `SeedSequence((seed, i)).generate_state(1)`, so streams differ between environments
    and are the same for any N. A VectorEnv that is neither Sync nor Async has one stream for all and gets the seed
    itself. The first `reset()` without a seed uses the constructor's.

    Single rows restart and step where they were made here. Of a VectorEnv they restart in mode DISABLED only, and step if it is a
    SyncVectorEnv in that mode.

    State: where `replay_steps` is set, as training does, episode k of an environment that was made here starts from
    `SeedSequence((seed, i, k))`. It is saved as its number and its actions, and brought back by playing it again; what it shows then
    is compared.

    `render_mode="rgb_array"` makes `render` give pictures (ids only: an object already has its own). wrappers go around each
    environment that is made here, the innermost first; `max_episode_steps` is a time limit of those, too.

    Raises BadInput for what cannot be made, Incompatible for spaces without an array form, EnvError for a breach of
    Gymnasium's contract and, chained, for any exception from inside the environment.
    """

    origin = "gymnasium"

    def __init__(
        self,
        env: str | gymnasium.Env | VectorEnv | Callable[[], gymnasium.Env],
        num_envs: int = 1,
        seed: int = 0,
        render_mode: str | None = None,
        wrappers: Sequence[Callable[[gymnasium.Env], gymnasium.Env]] = (),
        max_episode_steps: int | None = None,
        **options: Any,
    ) -> None:
        made_here = isinstance(env, str) or (callable(env) and not isinstance(env, gymnasium.Env | VectorEnv))
        only = {} if isinstance(env, str) else {**options, "render_mode": render_mode}
        only |= {} if made_here else {"wrappers": wrappers, "max_episode_steps": max_episode_steps}
        if given := [name for name, value in only.items() if value not in (None, ())]:
            raise BadInput(
                f"{', '.join(given)} can be passed with an id only: give it to the constructor of your own environment"
            )
        self.id = env if isinstance(env, str) else ""
        self._made_here, self._first = made_here, 0
        self._past: Episodes | None = None  # what was done so far, where somebody will ask for it
        self._filmed: list[Indexed] = []  # rows that are drawn
        self._standing: Observation = None  # type: ignore[assignment]  # until the first reset
        asked = {"render_mode": render_mode, "max_episode_steps": max_episode_steps}
        options |= {name: value for name, value in asked.items() if value is not None}
        self._engine: Any = make_engine(env, num_envs, options, wrappers)
        self._name = self.id or str(self._engine if isinstance(env, VectorEnv) else self._engine.envs[0].env)
        self._mode = autoreset_mode(self._engine)
        if self._mode is AutoresetMode.DISABLED or isinstance(self._engine, Together):
            self.partial = ROWS if isinstance(self._engine, SyncVectorEnv) else RESTART
        self.num_envs = self._engine.num_envs
        spec = self._engine.spec or getattr(next(iter(getattr(self._engine.unwrapped, "envs", ())), None), "spec", None)
        if spec is not None:
            limit = spec.kwargs.get("max_episode_steps") or spec.max_episode_steps
            self.max_episode_steps = limit if limit != -1 else None  # -1: Gymnasium's word for none
            self.reward_threshold = spec.reward_threshold
        if max_episode_steps is not None and not self.id:
            self.max_episode_steps = min(self.max_episode_steps or max_episode_steps, max_episode_steps)

        self.action_space, self._decode = actions(self._engine.single_action_space)
        shape, self._action_dtype = action_form(self.action_space)
        self._action_shape = (self.num_envs, *shape)
        self._masks = Masks(self._name, self.num_envs, self.action_space, self._engine.single_observation_space)
        self.observation_space, self._convert = self._masks.observations()

        envs = getattr(self._engine, "envs", None)
        self.goal = goal_of(envs[0], self._engine.single_observation_space) if envs else None
        self._seed: int | None = _checked(seed)  # of the first reset
        self._resetting = np.zeros(self.num_envs, bool)  # NEXT_STEP: rows whose next step is the reset
        self._some_resetting = False

    @property
    def first(self) -> int:  # which messages name
        return self._first

    @first.setter
    def first(self, row: int) -> None:
        self._first = row
        for each in self._engine.envs if self._made_here else ():
            each.first = row

    @property
    def episode(self) -> np.ndarray | None:
        if not self._made_here or not self.replay_steps:
            return None
        return np.array([row.episode for row in self._engine.envs], np.int64)

    @episode.setter
    def episode(self, numbers: np.ndarray | None) -> None:
        assert numbers is not None
        for row, number in zip(self._engine.envs, numbers.tolist(), strict=True):
            row.episode = number

    def reset(self, seed: int | None = None) -> Observation:
        seed, self._seed = self._seed if seed is None else _checked(seed), None
        seeds: Any = None if seed is None else self.part_seed(seed)
        if self._made_here and self.replay_steps:
            for row in self._engine.envs if seed is not None else ():
                row.seed, row.episode = seed, -1
            seeds, self._past = None, self._new_past()
        elif seed is not None and isinstance(self._engine.unwrapped, SyncVectorEnv | AsyncVectorEnv):
            seeds = [
                int(np.random.SeedSequence((seed, self.first + i)).generate_state(1)[0]) for i in range(self.num_envs)
            ]
        raw, info = self._ask("reset", self._engine.reset, seed=seeds)
        self._resetting[:], self._some_resetting = False, False
        self._masks.begin()
        self._standing, self.action_mask = self._read(raw, info)
        return self._standing

    def restart(self, rows: np.ndarray) -> Observation:
        """As `Env.restart`. Raises Incompatible where "restart" is not in `partial`."""
        self._check_partial("restart")
        if rows.any():
            self._standing, self.action_mask = self._renewed(self._standing, self.action_mask, rows)
        return self._standing

    def _check_partial(self, what: str) -> None:
        if what not in self.partial:
            kind, done = ("a SyncVectorEnv", "stepped") if what == "rows" else ("one", "restarted")
            raise Incompatible(
                f"{self._name}: single environments of this VectorEnv cannot be {done}: give {kind} in mode AutoresetMode.DISABLED, or "
                "what makes one environment"
            )
        if self._standing is None:
            raise BadInput(f"{self._name}: call reset() once before single environments restart or step")

    def _new_past(self) -> Episodes:
        return Episodes(self.num_envs, self.action_space, self.replay_steps)

    def state(self) -> dict[str, np.ndarray] | None:
        """{seed [], episode [N], length [N], actions [sum of lengths, ...], seen [N, bytes]}; None: `replay_steps` is not set, or there is
        no making it again."""
        if not self._made_here or not self.replay_steps:
            return None
        past = self._past or self._new_past()
        seen = np.zeros((self.num_envs, SEEN), np.uint8)
        if self._standing is not None:
            seen = past.seen(self._standing, self.action_mask)  # type: ignore[arg-type]  # numpy, here
        rows = self._engine.envs
        seed, episode = np.uint64(rows[0].seed or 0).astype(np.int64), np.array([row.episode for row in rows], np.int64)
        return past.state() | {"seed": np.array(seed), "episode": episode, "seen": seen}

    def load_state(self, state: dict[str, np.ndarray]) -> Observation:
        """Play the saved episodes again. Raises NotReplayed where that does not lead to where they stood, or would take more than
        `replay_steps`; then `reset` begins fresh ones."""
        past = self._new_past()
        seed, episode, actions = past.read(state, self._name)
        if (longest := int(state["length"].max())) > self.replay_steps:
            raise NotReplayed(
                f"an episode of {self._name} was {longest:,} steps long, and no more than replay_steps = {self.replay_steps:,} are played "
                "again"
            )
        observations, infos, rewards = {}, Infos(self.num_envs), list[list[float]]()
        for i, row in enumerate(self._engine.envs):
            row.seed, row.episode = seed, int(episode[i]) - 1
            observations[i], info, given = self._played(row, actions[i])
            rewards.append(given)
            infos.add(i, info)
        self._masks.begin()
        standing, mask = self._read(stacked(self._name, self._engine.single_observation_space, observations), infos)
        past.begin(rewards, actions)
        if wrong := np.flatnonzero((past.seen(standing, mask) != state["seen"]).any(-1)).tolist():
            raise NotReplayed(self._other(wrong[0]))
        self._past, self._seed, self._standing, self.action_mask = past, None, standing, mask
        return standing

    def _played(self, row: Any, actions: np.ndarray) -> tuple[Any, dict, list[float]]:
        """One environment's episode: where it stands, its info, and the rewards on the way."""
        space, rewards = self._engine.single_action_space, list[float]()
        try:
            observation, info = row.reset()
            for action in iterate(batch_space(space, len(actions)), self.decode(actions)) if len(actions) else ():
                observation, reward, terminated, truncated, info = row.step(action)
                rewards.append(float(reward))
                if terminated or truncated:
                    raise NotReplayed(self._other(self._engine.envs.index(row)))
        except EnvError as error:
            raise NotReplayed(f"{self._other(self._engine.envs.index(row))} ({error})") from error
        return observation, info, rewards

    def _other(self, row: int) -> str:
        return (
            f"{self._name} is not decided by its seed and actions: environment {row}, played again, showed something else (it draws "
            "numbers from elsewhere, or keeps something from one episode to the next)"
        )

    def step(self, action: Any, rows: np.ndarray | None = None) -> Step:
        """As `Env.step`. Raises Incompatible for rows where "rows" is not in `partial`."""
        given = self._engine_action(action)
        for row in self._filmed:
            row.last = None
        if rows is not None:
            return self._step_rows(action, given, rows)
        raw, reward, terminated, truncated, info = self._ask("step", self._engine.step, given)
        observation, mask = self._read(raw, info)
        reward = self._noted(action, reward)
        terminated, truncated = np.asarray(terminated, bool), np.asarray(truncated, bool)
        if self._mode is AutoresetMode.DISABLED:  # a reset of some rows may be written into the same arrays
            observation, reward, terminated, truncated = map(copied, (observation, reward, terminated, truncated))
        successor, valid = observation, None
        if self._some_resetting:  # NEXT_STEP only: in these rows the engine did not step, it reset
            valid = ~self._resetting
            reward = np.where(valid, reward, np.float32(0))
            terminated, truncated = terminated & valid, truncated & valid
        ended = terminated | truncated
        if ended.any() or valid is not None:
            if self._mode is not AutoresetMode.SAME_STEP:
                info = _with_final(info)
            if self._mode is AutoresetMode.NEXT_STEP:
                self._resetting, self._some_resetting = ended, bool(ended.any())
                if mask is not None:
                    mask[ended] = True  # the coming action is ignored; an all-False row would leave nothing to sample
            elif self._mode is AutoresetMode.SAME_STEP:
                successor = self._final(observation, info, ended)
                if self._past is not None:
                    self._past.began[ended] = self._past.steps
            else:
                observation, mask = self._renewed(observation, mask, ended)
        self.action_mask, self._standing = mask, observation
        return Step(observation, reward, terminated, truncated, successor, valid, info=info)

    def _step_rows(self, action: Any, given: Any, rows: np.ndarray) -> Step:
        """`step` of these rows, each environment by itself."""
        self._check_partial("rows")
        observation, mask, n = self._standing, self.action_mask, self.num_envs
        if not rows.any():
            return Step(observation, np.zeros(n, np.float32), np.zeros(n, bool), np.zeros(n, bool), observation, rows)
        result = self._ask("step", step_rows, self._name, self._engine, given, rows)
        raw, reward, terminated, truncated, info = result
        there, fresh_mask = self._read(raw, info, rows)
        successor = observation = replaced(observation, rows, rows_of(there, rows))
        mask = merged(mask, fresh_mask, rows)
        reward = self._noted(action, reward, rows)
        ended = terminated | truncated
        if ended.any():
            observation, mask = self._renewed(successor, mask, ended)
        self.action_mask, self._standing = mask, observation
        return Step(observation, reward, terminated, truncated, successor, rows.copy(), info=_with_final(info))

    def _noted(self, action: Any, reward: Any, rows: np.ndarray | None = None) -> np.ndarray:
        """The engine's rewards [N] as float32; they and the actions are noted for who plays them again."""
        with np.errstate(over="ignore"):  # infinity, which is found
            reward = np.asarray(reward, np.float32)
        if self._past is not None:
            self._past.add(np.asarray(action), reward, rows)
        return reward

    def _renewed(self, standing: Observation, mask: Any, rows: np.ndarray) -> tuple[Observation, Any]:
        """Reset these rows, one at least; where every row stands then, in memory of its own, and its mask."""
        raw, info = self._ask("reset", self._engine.reset, options={"reset_mask": np.array(rows)})
        fresh, fresh_mask = self._read(raw, info, rows)
        if self._past is not None:
            self._past.began[rows] = self._past.steps
        return replaced(standing, rows, rows_of(fresh, rows)), merged(mask, fresh_mask, rows)

    def own_attribute(self, name: str) -> Any:
        """An attribute of the first environment, below its wrappers."""
        return getattr(self._engine.envs[0].unwrapped, name)

    @property
    def own_observation_space(self) -> gymnasium.Space:
        return self._engine.single_observation_space

    @property
    def own_action_space(self) -> gymnasium.Space:
        return self._engine.single_action_space

    def encode(self, observation: Any) -> tuple[Observation, np.ndarray | None]:
        return self._convert(observation), self._masks.observed(observation)

    def decode(self, action: Any) -> Any:
        action = np.asarray(action)
        return self._decode(action.reshape(len(action), -1))

    def render(self) -> np.ndarray | None:
        if self._engine.render_mode != "rgb_array":
            return None
        envs = getattr(self._engine, "envs", None)  # rendering all N for one picture would be waste
        picture = envs[0].render() if envs else self._engine.render()[0]
        return None if picture is None else np.asarray(picture, np.uint8)

    def film(self) -> None:
        self._filmed = [row for row in getattr(self._engine, "envs", ()) if isinstance(row, Indexed)]
        if self._engine.render_mode != "rgb_array" or not self._filmed:
            raise BadInput(
                f"{self._name} has no pictures of all its environments: they are made one by one with render_mode='rgb_array'"
            )
        for row in self._filmed:
            row.films = True

    def pictures(self, ended: bool = False) -> np.ndarray:
        return np.stack([row.last if ended and row.last is not None else row.picture() for row in self._filmed])

    def close(self) -> None:
        self._engine.close()

    def _engine_action(self, action: Any) -> Any:
        action = np.asarray(action)
        if action.shape != self._action_shape:
            raise BadInput(f"{self._name}: an action must have shape {self._action_shape}, got {action.shape}")
        if self._action_dtype.kind != "f" and action.dtype.kind not in "iub":
            raise BadInput(f"{self._name}: an action of {self.action_space} must be integers, got {action.dtype}")
        return self._decode(action.reshape(self.num_envs, -1))

    def _ask(self, method: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (WhorlError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit too: an environment does not end a run
            raise EnvError(f"{self._name}: {method} raised {in_words(error)}") from error

    def _read(self, raw: Any, info: Any, rows: Any = slice(None)) -> tuple[Observation, np.ndarray | None]:
        """What the engine gave, as (observation, action mask). rows: those that it was asked for."""
        return self._converted(raw), self._masks.read(raw, info, rows)

    def _converted(self, raw: Any) -> Observation:
        try:
            return self._convert(raw)
        except MISFITS as error:
            raise EnvError(
                f"{self._name}: an observation does not fit {self._engine.single_observation_space}: {said(error)}"
            ) from error

    def _final(self, observation: Observation, info: dict, ended: np.ndarray) -> Observation:
        """SAME_STEP: `observation` with the ended rows taken from `info["final_obs"]`."""
        rows, final, there = np.flatnonzero(ended), info.get("final_obs"), info.get("_final_obs", ended)
        if final is None or not there[rows].all():
            raise EnvError(
                f"{self._name}: resets in the same step but gives no info['final_obs'] for environments "
                f"{rows.tolist()} that ended: put the last observation of the episode there"
            )
        space = self._engine.single_observation_space
        if _per_row(final):
            last = self._converted(stacked(self._name, space, {int(row): final[row] for row in rows}))
        else:
            last = rows_of(self._converted(final), rows)
        return replaced(observation, rows, last)


def _checked(seed: int) -> int:
    if seed < 0:
        raise BadInput(f"seed must be 0 or more, got {seed}")
    return seed


def _with_final(info: Any) -> Mapping[str, Any]:
    """The infos of a step in which an episode ended, which are its last, with Gymnasium's word for that."""
    return info if "final_info" in info else ChainMap({"final_info": info}, info)


def _per_row(final: Any) -> bool:
    """final_obs comes as one observation per row (Gymnasium's own) or as one batched observation (some engines)."""
    return isinstance(final, list) or (isinstance(final, np.ndarray) and final.dtype == object)
