"""`make_env`: an id becomes N environments: native where there is a native world, else by the adapter of its library. `EnvKind`: what
more of the same are made from, an id, a class or a function, with its options and wrappers."""

from __future__ import annotations

import inspect
import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral
from typing import Any, TypeAlias

import gymnasium

from whorl.envs import native
from whorl.envs.adapters import library
from whorl.envs.env import Around, Env, Processes, of_several
from whorl.envs.ids import is_url
from whorl.errors import BadInput

logger = logging.getLogger("whorl")

Wrapper: TypeAlias = "Callable[[gymnasium.Env], gymnasium.Env]"  # a class of gymnasium's, or a function
# what `whorl.train` takes
EnvLike: TypeAlias = (
    "str | EnvKind | Env | gymnasium.Env | gymnasium.vector.VectorEnv | Callable[..., gymnasium.Env] | type[Env]"
)


def make_env(
    id: str,
    num_envs: int = 1,
    seed: int = 0,
    device: str = "cpu",
    prefer: str = "native",
    wrappers: Sequence[Wrapper] = (),
    workers: int = 0,
    **options: Any,
) -> Env:
    """N environments of the kind `id`, stepped together; `env.origin` says who steps them, and so does one INFO line of
    the logger "whorl".

    id: a name from `known_envs()`, or the URL of an environment on a gym HTTP server (see `Http`). Your own environment
        object needs no id: `Gymnasium(env)`.
    seed: of the first episodes; `env.reset(seed)` starts the streams anew.
    device: where a native world lives; other environments live on the CPU.
    prefer: "native" takes the native world where there is one that can do what is asked; "gymnasium" never does; "torch" takes the
        one in torch operations, which gives tensors on the CPU, too (classic control only).
    wrappers: put around each of the N environments, the innermost first; gymnasium steps them, then.
    workers: processes that step them, `Workers` of envs/workers.py; 0: this one does.
    options: go to `gymnasium.make`, such as `render_mode="rgb_array"` or `max_episode_steps`. A native world knows
        these two only, and draws without the first: with others, gymnasium steps the environment. A URL knows those of `Http`.

    Raises BadInput, with near matches for an unknown id and the command to install a missing extra.
    """
    if not isinstance(id, str):
        raise BadInput(
            f"make_env takes an id, got {type(id).__name__}: wrap your own environment with "
            "whorl.envs.adapters.gymnasium.Gymnasium"
        )
    if ":" in id and not is_url(id):
        raise BadInput(
            f"{id!r}: an id cannot import a module. Import it yourself, make the environment and wrap it: "
            "whorl.envs.adapters.gymnasium.Gymnasium(env)"
        )
    if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
        raise BadInput(f"num_envs must be an integer of at least 1, got {num_envs!r}")
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise BadInput(f"seed must be an integer, 0 or more, got {seed!r:.60}")
    wrappers = checked_wrappers(wrappers)
    if workers:
        if device != "cpu":
            raise BadInput(f"worker processes step environments on the CPU, got device={device!r}")
        own = {key: value for key, value in options.items() if key not in HERE}
        pictures = options.get("render_mode") == "rgb_array"
        limit = options.get("max_episode_steps")
        return EnvKind(id, own, wrappers, prefer).make(
            num_envs, seed, max_episode_steps=limit, pictures=pictures, processes=Processes(workers)
        )
    unknown = sorted(options.keys() - {"max_episode_steps", "render_mode"})
    torch = prefer == "torch"
    other = id in gymnasium.registry and (unknown or wrappers)  # which a native world cannot take
    if torch or (prefer == "native" and id in native.WORLDS and not other):
        if unknown or wrappers:
            kind = "in torch is" if torch else "exists only as"
            raise BadInput(
                f"{id} {kind} a native world, which takes no wrappers and has no option but max_episode_steps; "
                f"got {', '.join([*unknown, *map(name_of, wrappers)])}"
            )
        options.pop("render_mode", None)  # a native world draws whenever it is asked
        env = native.make(id, num_envs, seed, device, torch=torch, **options)
    else:
        env = library(id).make(id, num_envs, seed, device, prefer, wrappers, options)
    env.made_from = EnvKind(id, {key: value for key, value in options.items() if key not in HERE}, wrappers, prefer)
    logger.info("environment: %r", env)
    return env


HERE = ("max_episode_steps", "render_mode")  # options that belong to some of a kind, not to all
RESERVED = ("max_episode_steps", "num_envs", "seed", "id", "device", "prefer", "wrappers", "workers")


@dataclass(frozen=True)
class EnvKind:
    """A kind of environment, of which any number can be made: for training, for evaluation, for a film, in another process.

    env: an id or URL; a class or function that makes one `gymnasium.Env` in each call; or a class of batched environments, a subclass of
        `Env` whose constructor takes `num_envs` and `seed`.
    kwargs: go to `gymnasium.make`, or to the class or function.
    wrappers: put around each single environment, the innermost first.
    prefer: as for `make_env`.
    transforms: put around all of them together (`whorl.transforms.chain.chain` makes it); None: nothing.
    """

    env: str | Callable[..., Any]
    kwargs: Mapping[str, object] = field(default_factory=dict)
    wrappers: tuple[Wrapper, ...] = ()
    prefer: str = "native"
    transforms: Around | None = None

    @property
    def id(self) -> str:
        """What `make_env` takes; "" for a class or function."""
        return self.env if isinstance(self.env, str) else ""

    @property
    def name(self) -> str:
        """The id, or the name of the class or function."""
        return name_of(self.env)

    def make(
        self,
        num_envs: int = 1,
        seed: int = 0,
        device: str = "cpu",
        max_episode_steps: int | None = None,
        pictures: bool = False,
        training: bool = False,
        processes: Processes | None = None,
    ) -> Env:
        """So many environments of this kind, whose episodes have at most `max_episode_steps`: a longer limit is replaced, a shorter one
        stays. pictures: `render` gives them, where the environment can draw. training: with the transforms that are for training only,
        and running statistics that move. processes: that step them; None: this one does. Transforms stay here.

        Raises BadInput for an option that the environment does not take, Incompatible for transforms that do not go around it.
        """
        pictures |= self.transforms is not None and self.transforms.draws
        if processes is not None:
            from whorl.envs.workers import Workers

            env: Env = Workers(replace(self, transforms=None), num_envs, processes, seed, max_episode_steps, pictures)
        else:
            env = self._bare(num_envs, seed, device, max_episode_steps, pictures)
        if self.transforms is not None:
            try:
                env = self.transforms.around(env, training)
            except BaseException:
                env.close()
                raise
            env.made_from = self
        return env

    def _bare(self, num_envs: int, seed: int, device: str, max_episode_steps: int | None, pictures: bool) -> Env:
        """Without transforms."""
        drawn = {"render_mode": "rgb_array"} if pictures else {}
        if not isinstance(self.env, str):
            return self._called(num_envs, seed, max_episode_steps, drawn)
        options: dict[str, Any] = {"prefer": self.prefer, "wrappers": self.wrappers, **self.kwargs, **drawn}
        env = make_env(self.env, num_envs, seed, device, **options)
        if max_episode_steps is None or (env.max_episode_steps or math.inf) <= max_episode_steps:
            return env
        env.close()
        return make_env(self.env, num_envs, seed, device, **options, max_episode_steps=max_episode_steps)

    def _called(self, num_envs: int, seed: int, limit: int | None, drawn: dict[str, str]) -> Env:
        assert callable(self.env)
        options = {**self.kwargs, **{key: value for key, value in drawn.items() if _takes(self.env, key)}}
        batched = isinstance(self.env, type) and issubclass(self.env, Env)
        if batched and self.wrappers:
            raise BadInput(f"{self.name} steps its environments together, and wrappers go around single ones")
        if batched and limit is not None:
            if not _takes(self.env, "max_episode_steps"):
                raise BadInput(f"{self.name} takes no max_episode_steps: give its constructor such an argument")
            options["max_episode_steps"] = limit
        if wrong := [key for key in options if not _takes(self.env, key)]:
            raise BadInput(f"{self.name} does not take these options: {', '.join(wrong)}")
        env: Env
        if batched:
            env = self.env(num_envs=num_envs, seed=seed, **options)
        else:
            from whorl.envs.adapters.gymnasium import Gymnasium

            single = partial(self.env, **options) if options else self.env
            env = Gymnasium(single, num_envs, seed, wrappers=self.wrappers, max_episode_steps=limit)
        env.made_from = self
        logger.info("environment: %r", env)
        return env


def kind_or_env(
    env: EnvLike, kwargs: Mapping[str, object] | None = None, wrappers: Sequence[Wrapper] | None = None
) -> EnvKind | Env:
    """What was given as an environment: of what more can be made, its kind; an object, which is one of its own, as an `Env`.

    Raises BadInput for anything else, for kwargs that cannot be written down, and for kwargs or wrappers of an object.
    """
    if not isinstance(kwargs, Mapping | None):
        raise BadInput(f"env_kwargs is a dict, the environment's options by their names; got {type(kwargs).__name__}")
    kwargs, wrappers = dict(kwargs or {}), checked_wrappers(wrappers or ())
    if isinstance(env, EnvKind):
        return env
    if makes(env):
        assert isinstance(env, str) or callable(env)
        if isinstance(env, str) and is_url(env) and (kwargs or wrappers):
            raise BadInput(
                f"{env} was made by its server: env_kwargs and wrappers are for environments that are made here"
            )
        check_kwargs(kwargs)
        return EnvKind(env, kwargs, wrappers)
    if kwargs or wrappers:
        raise BadInput(
            f"env_kwargs and wrappers are for environments that are made here, and this is an object, {type(env).__name__}: "
            "give it the options and wrappers yourself, or pass its class"
        )
    return as_env(env)


def makes(env: EnvLike | None) -> bool:
    """Whether environments are made of it: an id, a class or a function."""
    objects = Env | gymnasium.Env | gymnasium.vector.VectorEnv
    return isinstance(env, str) or (callable(env) and not isinstance(env, objects))


def check_kwargs(kwargs: Mapping[str, object]) -> None:
    """Raises BadInput for options of an environment that cannot be written into `config.json`, or are options of the run."""
    for key, value in kwargs.items():
        if key in RESERVED:
            raise BadInput(
                f"{key} is no option of an environment but of those who make them: it does not go into env_kwargs"
            )
        try:
            same = not isinstance(value, tuple) and json.loads(json.dumps(value, allow_nan=False)) == value
        except (TypeError, ValueError, RecursionError):
            same = False
        if not isinstance(key, str) or not same:
            raise BadInput(
                f"env_kwargs are written into the run's folder, so they are numbers, strings, True, False, None, lists and dicts of them; "
                f"{key} is {' '.join(repr(value).split()):.80} ({type(value).__name__}): write it so (an array: array.tolist()), or pass a "
                "function that makes the environment with it"
            )


def check_harmless(kwargs: Mapping[str, object], where: str) -> None:
    """Raises BadInput for options, from a folder that may be a stranger's, with a text that could name a file, a module or an address:
    whoever made the environment could be made to open it."""
    for key in naming(kwargs):
        raise BadInput(
            f"{where} says {key} = {kwargs[key]!r:.80} for its environment, which could name a file or a module: if you trust it, pass it "
            f"yourself, env_kwargs={{{key!r}: ...}}"
        )


def naming(kwargs: Mapping[str, object]) -> list[str]:
    """The options with a text that could name a file, a module or an address."""
    return [key for key, value in kwargs.items() if any(not re.fullmatch(r"[\w +-]*", text) for text in _texts(value))]


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in _texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return [value] if isinstance(value, str) else []


def checked_wrappers(wrappers: Sequence[Wrapper]) -> tuple[Wrapper, ...]:
    """Raises BadInput for what cannot be put around an environment."""
    if callable(wrappers) or not isinstance(wrappers, Sequence) or not all(map(callable, wrappers)):
        raise BadInput(
            f"wrappers is a list of gymnasium wrappers or functions, each taking an environment and giving one; got {wrappers!r:.80}"
        )
    return tuple(wrappers)


def name_of(env: EnvLike | Wrapper) -> str:
    """An id as it is, a class or function by its name, an object by that of its class (an `Env` by its id, if it has one)."""
    if isinstance(env, str):
        return env
    if isinstance(env, EnvKind):
        return env.name
    if isinstance(env, Env):
        return env.id or type(env).__name__
    if isinstance(env, partial):
        return name_of(env.func)
    return str(getattr(env, "__name__", type(env).__name__))


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Whether it has a parameter of this name."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return False
    any_name = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    named = name in parameters and parameters[name].kind is not inspect.Parameter.POSITIONAL_ONLY
    return named or any_name


def as_env(env: EnvLike, num_envs: int = 1, seed: int = 0) -> Env:
    """What was given as an environment, as an `Env`: an object as it is, wrapped by the Gymnasium adapter unless it is one already; of
    a kind, `num_envs` are made. Raises BadInput for anything else."""
    if isinstance(env, Env):
        return env
    if isinstance(env, gymnasium.Env | gymnasium.vector.VectorEnv):
        from whorl.envs.adapters.gymnasium import Gymnasium

        return Gymnasium(env, seed=seed)
    if isinstance(env, str) or callable(env):
        return EnvKind(env).make(num_envs, seed)
    if isinstance(env, EnvKind):
        return env.make(num_envs, seed)
    raise BadInput(
        f"an environment is an id, an Env, a gymnasium.Env or VectorEnv, or a class or function that makes one; got {type(env).__name__}"
        f"{of_several(env)}"
    )
