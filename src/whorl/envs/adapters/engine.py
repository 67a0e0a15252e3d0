"""What steps N Gymnasium environments: an engine in Gymnasium's vector form, made of an id, a class, an object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode, VectorEnv

from whorl.envs.adapters import library
from whorl.envs.adapters.mujoco_warnings import say_once
from whorl.envs.adapters.together import Indexed, Together
from whorl.envs.env import check_has_spaces, of_several
from whorl.errors import BadInput, EnvError, WhorlError, in_words


def make_engine(env: Any, num_envs: int, options: dict[str, Any], wrappers: Sequence[Callable]) -> Any:
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


def autoreset_mode(engine: VectorEnv) -> AutoresetMode:
    given = engine.metadata.get("autoreset_mode")
    for mode in AutoresetMode:
        if given in (mode, mode.value, mode.name):
            return mode
    raise EnvError(
        f"{engine}: metadata['autoreset_mode'] is {given!r}, so it is unknown when the environment resets: set it to "
        "gymnasium.vector.AutoresetMode.NEXT_STEP (in the step after the end), SAME_STEP (in the step that ends, with "
        "info['final_obs']) or DISABLED (by reset(options={'reset_mask': ...}))"
    )
