"""Gymnasium environments, single or vector, as an `Env`. Auto-reset is translated here and nowhere else.

The action mask is the observation entry "action_mask" (taken out; one remaining entry stands alone, without its Dict),
else `info["action_mask"]`. Both are read only where actions have discrete parts. A row that gave no mask at the reset allows all, and
gives none later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space, iterate

from whorl.envs import ids, native
from whorl.envs.adapters import install, library
from whorl.envs.adapters.episodes import SEEN, Episodes
from whorl.envs.adapters.goals import goal_of
from whorl.envs.adapters.infos import Infos
from whorl.envs.adapters.mujoco_warnings import say_once
from whorl.envs.adapters.spaces import action_form, actions, discrete_sizes, observations
from whorl.envs.adapters.together import MISFITS, Indexed, Together, copied, of_row, said, stacked
from whorl.envs.env import Env, Observation, Step, check_has_spaces, of_several
from whorl.errors import BadInput, EnvError, NotReplayed, WhorlError, in_words


class Gymnasium(Env):
    """N Gymnasium environments stepped together.

    env: an id of Gymnasium's registry (`options` go to `gymnasium.make`), a `gymnasium.Env` (then N = 1), a callable
    that makes one (called N times), or a `gymnasium.vector.VectorEnv` (its own N, in any of the three autoreset modes).

    Seeds: environment i starts from `SeedSequence((seed, i)).generate_state(1)`, so streams differ between environments
    and are the same for any N. A VectorEnv that is neither Sync nor Async has one stream for all and gets the seed
    itself. The first `reset()` without a seed uses the constructor's.

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
        self._made_here = made_here
        self._past: Episodes | None = None  # what was done so far, where somebody will ask for it
        self._standing: Observation = None  # type: ignore[assignment]  # until the first reset
        asked = {"render_mode": render_mode, "max_episode_steps": max_episode_steps}
        options |= {name: value for name, value in asked.items() if value is not None}
        self._engine: Any = _engine(env, num_envs, options, wrappers)
        self._name = self.id or str(self._engine if isinstance(env, VectorEnv) else self._engine.envs[0].env)
        self._mode = _autoreset_mode(self._engine)
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
        self._sizes = discrete_sizes(self.action_space)
        entries: Any = self._engine.single_observation_space
        self._mask_entry = (
            self._sizes is not None and isinstance(entries, spaces.Dict) and "action_mask" in entries.spaces
        )
        if self._mask_entry:
            entries = spaces.Dict([(key, space) for key, space in entries.spaces.items() if key != "action_mask"])
        if self._mask_entry and len(entries) == 1:
            ((key, entry),) = entries.spaces.items()
            self.observation_space, convert = observations(entry, f"the observation entry {key!r}")
            self._convert = lambda raw: convert(raw[key])
        else:
            self.observation_space, self._convert = observations(entries)

        envs = getattr(self._engine, "envs", None)
        self.goal = goal_of(envs[0], self._engine.single_observation_space) if envs else None
        self._seed: int | None = _checked(seed)  # of the first reset
        self._resetting = np.zeros(self.num_envs, bool)  # NEXT_STEP: rows whose next step is the reset
        self._some_resetting = False
        self._gives: np.ndarray | None = None  # [N] rows whose info holds a mask; None: not asked yet

    def reset(self, seed: int | None = None) -> Observation:
        seed, self._seed = self._seed if seed is None else _checked(seed), None
        seeds: Any = seed
        if self._made_here and self.replay_steps:
            for row in self._engine.envs if seed is not None else ():
                row.seed, row.episode = seed, -1
            seeds, self._past = None, self._new_past()
        elif seed is not None and isinstance(self._engine.unwrapped, SyncVectorEnv | AsyncVectorEnv):
            seeds = [int(np.random.SeedSequence((seed, i)).generate_state(1)[0]) for i in range(self.num_envs)]
        raw, info = self._ask("reset", seed=seeds)
        self._resetting[:], self._some_resetting, self._gives = False, False, None
        observation, self.action_mask = self._read(raw, info)
        self._standing = observation
        return observation

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
        self._gives = None
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
        raw, reward, terminated, truncated, info = self._ask("step", self._engine_action(action))
        observation, mask = self._read(raw, info)
        with np.errstate(over="ignore"):  # infinity, which is found
            reward = np.asarray(reward, np.float32)
        if self._past is not None:
            self._past.add(action, reward)
        terminated, truncated = np.asarray(terminated, bool), np.asarray(truncated, bool)
        successor, valid = observation, None
        if self._some_resetting:  # NEXT_STEP only: in these rows the engine did not step, it reset
            valid = ~self._resetting
            reward = np.where(valid, reward, np.float32(0))
            terminated, truncated = terminated & valid, truncated & valid
        ended = terminated | truncated
        if ended.any() or valid is not None:
            if self._mode is AutoresetMode.NEXT_STEP:
                self._resetting, self._some_resetting = ended, bool(ended.any())
                if mask is not None:
                    mask[ended] = True  # the coming action is ignored; an all-False row would leave nothing to sample
            elif self._mode is AutoresetMode.SAME_STEP:
                successor = self._final(observation, info, ended)
                if self._past is not None:
                    self._past.began[ended] = self._past.steps
            else:
                successor = copied(observation)  # the engine may write the reset into the same array
                observation, mask = self._restart(successor, mask, ended)
        self.action_mask, self._standing = mask, observation
        return Step(observation, reward, terminated, truncated, successor, valid, info=info)

    @property
    def own_observation_space(self) -> gymnasium.Space:
        return self._engine.single_observation_space

    @property
    def own_action_space(self) -> gymnasium.Space:
        return self._engine.single_action_space

    def encode(self, observation: Any) -> tuple[Observation, np.ndarray | None]:
        return self._convert(observation), self._mask(observation["action_mask"]) if self._mask_entry else None

    def decode(self, action: Any) -> Any:
        action = np.asarray(action)
        return self._decode(action.reshape(len(action), -1))

    def render(self) -> np.ndarray | None:
        if self._engine.render_mode != "rgb_array":
            return None
        envs = getattr(self._engine, "envs", None)  # rendering all N for one picture would be waste
        picture = envs[0].render() if envs else self._engine.render()[0]
        return None if picture is None else np.asarray(picture, np.uint8)

    def close(self) -> None:
        self._engine.close()

    def _engine_action(self, action: Any) -> Any:
        action = np.asarray(action)
        if action.shape != self._action_shape:
            raise BadInput(f"{self._name}: an action must have shape {self._action_shape}, got {action.shape}")
        if self._action_dtype.kind != "f" and action.dtype.kind not in "iub":
            raise BadInput(f"{self._name}: an action of {self.action_space} must be integers, got {action.dtype}")
        return self._decode(action.reshape(self.num_envs, -1))

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self._engine, method)(*args, **kwargs)
        except (WhorlError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit too: an environment does not end a run
            raise EnvError(f"{self._name}: {method} raised {in_words(error)}") from error

    def _read(self, raw: Any, info: Any, rows: Any = slice(None)) -> tuple[Observation, np.ndarray | None]:
        """What the engine gave, as (observation, action mask). rows: those that it was asked for."""
        observation = self._converted(raw)
        if self._sizes is None:
            return observation, None
        if self._mask_entry:
            return observation, self._mask(raw["action_mask"])
        there = "action_mask" in info
        if self._gives is None or there or self._gives.any():
            self._check_gives(info.get("_action_mask", np.full(self.num_envs, there)), rows)
        return observation, self._mask(info["action_mask"], info.get("_action_mask")) if there else None

    def _check_gives(self, gives: np.ndarray, rows: Any) -> None:
        """An environment whose info holds an action mask has one there after each reset and step, and another never."""
        if self._gives is None:
            self._gives = np.array(gives, bool)
        changed = np.flatnonzero((self._gives != gives)[rows])
        if len(changed):
            row = int(np.arange(self.num_envs)[rows][changed[0]])
            change = "has gone from info" if self._gives[row] else "has come into info, where reset gave none"
            what = f"the action mask {change}: give one after every reset and every step, or never"
            raise of_row(row, f"{self._name}: environment {row}: {what}")

    def _converted(self, raw: Any) -> Observation:
        try:
            return self._convert(raw)
        except MISFITS as error:
            raise EnvError(
                f"{self._name}: an observation does not fit {self._engine.single_observation_space}: {said(error)}"
            ) from error

    def _mask(self, given: Any, present: Any = None) -> np.ndarray:
        """[N, A] bool from one array, a tuple of arrays (one per component) or an object array of either."""
        size, n = sum(self._sizes or ()), len(given[0] if isinstance(given, tuple) else given)
        rows = np.arange(n) if present is None else np.flatnonzero(present)
        if isinstance(given, tuple):
            given = np.concatenate([np.reshape(part, (n, -1)) for part in given], -1)
        given = np.asarray(given)[rows]
        if given.dtype != object and given.size == len(rows) * size and ((given == 0) | (given == 1)).all():
            mask = np.ones((n, size), bool)
            mask[rows] = given.reshape(-1, size)
            return mask
        return self._mask_by_rows(given, rows, n, size)

    def _mask_by_rows(self, given: np.ndarray, rows: np.ndarray, n: int, size: int) -> np.ndarray:
        """The same, one row after another: of what does not lie in one array, or is wrong."""
        mask = np.ones((n, size), bool)
        for row, own in zip(rows.tolist(), given, strict=True):
            parts = own if isinstance(own, tuple | list) else [own]
            flat = np.concatenate([np.ravel(part) for part in parts])
            what = f"{self._name}: environment {row}: an action mask for {self.action_space}"
            if flat.size != size:
                raise of_row(row, f"{what} has {size} entries, got {flat.size}")
            wrong = [entry for entry in flat.tolist() if entry not in (0, 1)]
            if wrong:
                raise of_row(row, f"{what} is made of 0 and 1, got {wrong[0]!r}")
            mask[row] = flat.astype(bool)
        return mask

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
            last = _rows(self._converted(final), rows)
        return _replace(observation, rows, last)

    def _restart(self, successor: Observation, mask: Any, ended: np.ndarray) -> tuple[Observation, Any]:
        """DISABLED: reset the ended rows; where every row stands then, and its mask."""
        rows = np.flatnonzero(ended)
        raw, info = self._ask("reset", options={"reset_mask": ended.copy()})
        fresh, fresh_mask = self._read(raw, info, ended)
        if mask is not None and fresh_mask is not None:
            fresh_mask[~ended] = mask[~ended]
        return _replace(successor, rows, _rows(fresh, rows)), fresh_mask


def make(
    id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any]
) -> Env:
    """For `make_env`: `Gymnasium`, after a look at what was asked."""
    if prefer not in ("native", Gymnasium.origin):
        raise BadInput(f"prefer must be 'native', 'gymnasium' or 'torch', got {prefer!r}")
    if id not in gymnasium.registry:
        library(id).register()
        ids.register_installed()
    if id not in gymnasium.registry:
        raise _unknown(id)
    if device != "cpu":
        raise BadInput(
            f"{id} is stepped by gymnasium on the CPU, got device={device!r}; {', '.join(native.WORLDS)} can live on a device"
        )
    try:
        return Gymnasium(id, num_envs, seed, wrappers=wrappers, **options)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        if type(error) is ImportError and ids.newest(id) != id:
            raise BadInput(f"{id} is retired ({error}); use {ids.newest(id)}") from error
        extra = library(id).extra
        hint = install(extra) if extra else "install it"
        raise BadInput(f"{id} needs a package that is missing ({error}): {hint}") from error
    except gymnasium.error.Error as error:
        raise BadInput(f"{id} cannot be made: {error}") from error
    except TypeError as error:
        if not options:
            raise
        raise BadInput(f"{id} does not take these options: {', '.join(options)} ({error})") from error


def _unknown(id: str) -> BadInput:
    """Why there is no such id: retired version, missing extra, or a slip of the pen."""
    if id in native.WORLDS:
        return BadInput(f"{id} exists only as a native world: leave prefer='gymnasium' out")
    if extra := library(id).extra:
        return BadInput(f"{id} needs an extra that is not installed: {install(extra)}")
    reason = f"no environment is called {id!r}"
    if "-v" in id:
        try:
            gymnasium.spec(id)
        except (gymnasium.error.DeprecatedEnv, gymnasium.error.VersionNotFound) as error:
            reason = str(error)
        except gymnasium.error.Error:
            pass  # no such name in any version: the near matches say more
    near = ids.near(id)
    return BadInput(f"{reason}; near matches: {', '.join(near)}" if near else f"{reason}; `known_envs()` lists all")


def _engine(env: Any, num_envs: int, options: dict[str, Any], wrappers: Sequence[Callable]) -> Any:
    if num_envs < 1:
        raise BadInput(f"num_envs must be at least 1, got {num_envs}")
    say_once(isinstance(env, str) and library(env).extra == "mujoco")
    if isinstance(env, VectorEnv):
        if num_envs not in (1, env.num_envs):
            raise BadInput(f"num_envs={num_envs}, but the VectorEnv given holds {env.num_envs}: leave num_envs out")
        return env
    if isinstance(env, gymnasium.Env):
        if num_envs != 1:
            raise BadInput(
                f"num_envs={num_envs}, but one environment object is one environment: give a callable that makes it"
            )
        envs = [env]
    elif isinstance(env, str):
        # the spec instead of the id: no module import through "module:id", no warning about newer versions
        spec = gymnasium.registry.get(env)
        if spec is None:
            raise BadInput(f"{env!r} is not in gymnasium's registry")
        envs = [gymnasium.make(spec, **{"disable_env_checker": True, **options}) for _ in range(num_envs)]
    elif callable(env):
        envs = [_called(env) for _ in range(num_envs)]
        if len({id(each) for each in envs}) < num_envs:
            raise BadInput("the callable gave the same environment object twice: make a new one in each call")
        if limit := options.get("max_episode_steps"):
            envs = [gymnasium.wrappers.TimeLimit(each, limit) for each in envs]
    else:
        raise BadInput(
            f"expected an id, a gymnasium.Env, a VectorEnv or a callable that makes an Env, got {type(env).__name__}"
        )
    name = env if isinstance(env, str) else str(envs[0])
    for wrapper in wrappers:
        envs = [_wrapped(each, wrapper) for each in envs]
    for each in envs:
        check_has_spaces(each, name)

    made = [partial(Indexed, each, name, index) for index, each in enumerate(envs)]
    try:
        # copy=False: arrays that live until the next step are all that `Env` promises
        together = Together(made, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
    except RuntimeError as error:
        raise EnvError(f"{name}: the environments made do not have the same spaces: {error}") from error
    except ValueError as error:
        raise EnvError(f"{name}: its spaces cannot be used: {in_words(error)}") from error
    together.name = name
    return together


def _called(make: Callable[[], gymnasium.Env]) -> gymnasium.Env:
    """One environment of a class or function of the user's."""
    try:
        env = make()
    except WhorlError:
        raise
    except Exception as error:
        raise BadInput(f"the environment cannot be made: {in_words(error)}") from error
    if not isinstance(env, gymnasium.Env):
        raise BadInput(f"the callable must make a gymnasium.Env, it made {type(env).__name__}{of_several(env)}")
    return env


def _wrapped(env: gymnasium.Env, wrapper: Callable[[gymnasium.Env], gymnasium.Env]) -> gymnasium.Env:
    try:
        wrapped = wrapper(env)
    except WhorlError:
        raise
    except Exception as error:
        raise BadInput(f"{wrapper!r} does not go around {env}: {in_words(error)}") from error
    if not isinstance(wrapped, gymnasium.Env):
        raise BadInput(f"a wrapper takes a gymnasium.Env and gives one; {wrapper!r} gave {type(wrapped).__name__}")
    return wrapped


def _checked(seed: int) -> int:
    if seed < 0:
        raise BadInput(f"seed must be 0 or more, got {seed}")
    return seed


def _autoreset_mode(engine: VectorEnv) -> AutoresetMode:
    given = engine.metadata.get("autoreset_mode")
    for mode in AutoresetMode:
        if given in (mode, mode.value, mode.name):
            return mode
    raise EnvError(
        f"{engine}: metadata['autoreset_mode'] is {given!r}, so it is unknown when the environment resets: set it to "
        "gymnasium.vector.AutoresetMode.NEXT_STEP (in the step after the end), SAME_STEP (in the step that ends, with "
        "info['final_obs']) or DISABLED (by reset(options={'reset_mask': ...}))"
    )


def _per_row(final: Any) -> bool:
    """final_obs comes as one observation per row (Gymnasium's own) or as one batched observation (some engines)."""
    return isinstance(final, list) or (isinstance(final, np.ndarray) and final.dtype == object)


def _rows(tree: Any, rows: np.ndarray) -> Any:
    return {key: _rows(value, rows) for key, value in tree.items()} if isinstance(tree, dict) else tree[rows]


def _replace(tree: Any, rows: np.ndarray, source: Any) -> Any:
    """A copy of `tree` whose `rows` are those of `source`."""
    if isinstance(tree, dict):
        return {key: _replace(value, rows, source[key]) for key, value in tree.items()}
    copy = tree.copy()
    copy[rows] = source
    return copy
