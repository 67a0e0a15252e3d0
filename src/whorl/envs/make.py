"""`make_env`: an id becomes N environments: native where there is a native world, a server's for a URL, else Gymnasium's."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import logging
from typing import Any

import gymnasium

from whorl.envs import native
from whorl.envs.adapters.gym_client import is_url
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.adapters.http import Http
from whorl.envs.env import Env
from whorl.errors import BadInput

logger = logging.getLogger("whorl")

EXTRAS = {
    "box2d": "box2d",
    "mujoco": "mujoco",
    "ALE": "atari",
}  # a word of the entry point, or a namespace -> extra of whorl
REGISTER = {"ALE": "ale_py"}  # namespace -> the one module that registers it; an id never names a module


def make_env(
    id: str, num_envs: int = 1, seed: int = 0, device: str = "cpu", prefer: str = "native", **options: Any
) -> Env:
    """N environments of the kind `id`, stepped together; `env.origin` says who steps them, and so does one INFO line of
    the logger "whorl".

    id: a name from `known_envs()`, or the URL of an environment on a gym HTTP server (see `Http`). Your own environment
        object needs no id: `Gymnasium(env)`.
    seed: of the first episodes; `env.reset(seed)` starts the streams anew.
    device: where a native world lives; other environments live on the CPU.
    prefer: "native" takes the native world where there is one; "gymnasium" never does.
    options: go to `gymnasium.make`, such as `render_mode="rgb_array"` or `max_episode_steps`. A native world knows
        these two only, and draws without the first. A URL knows those of `Http`.

    Raises BadInput, with near matches for an unknown id and the command to install a missing extra.
    """
    if not isinstance(id, str):
        raise BadInput(
            f"make_env takes an id, got {type(id).__name__}: wrap your own environment with "
            "whorl.envs.adapters.gymnasium.Gymnasium"
        )
    url = is_url(id)
    if ":" in id and not url:
        raise BadInput(
            f"{id!r}: an id cannot import a module. Import it yourself, make the environment and wrap it: "
            "whorl.envs.adapters.gymnasium.Gymnasium(env)"
        )
    if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
        raise BadInput(f"num_envs must be an integer of at least 1, got {num_envs!r}")
    if prefer not in ("native", "gymnasium") and not url:
        raise BadInput(f"prefer must be 'native' or 'gymnasium', got {prefer!r}")
    if url:
        env = _remote(id, num_envs, seed, device, prefer, options)
    elif prefer == "native" and id in native.WORLDS:
        options.pop("render_mode", None)  # a native world draws whenever it is asked
        unknown = set(options) - {"max_episode_steps"}
        if unknown:
            raise BadInput(
                f"the native {id} has no option {', '.join(sorted(unknown))}, only max_episode_steps; "
                "prefer='gymnasium' passes options on to gymnasium"
            )
        env = native.make(id, num_envs, seed, device, **options)
    else:
        env = _gymnasium(id, num_envs, seed, device, options)
    logger.info("environment: %r", env)
    return env


def as_env(env: Any, num_envs: int | None = None, seed: int = 0) -> Env:
    """An environment object as an `Env`: wrapped by the Gymnasium adapter unless it is one already.

    num_envs counts only for a callable that makes environments (8 of them if it is None). Raises BadInput for anything else.
    """
    if isinstance(env, Env):
        return env
    if isinstance(env, gymnasium.Env | gymnasium.vector.VectorEnv):
        return Gymnasium(env, seed=seed)
    if callable(env):
        return Gymnasium(env, num_envs=8 if num_envs is None else num_envs, seed=seed)
    raise BadInput(
        f"an environment is an id, an Env, a gymnasium.Env or VectorEnv, or a callable that makes one; got {type(env).__name__}"
    )


def known_envs() -> dict[str, str]:
    """Every id that `make_env` takes -> "native" or "gymnasium". Some of Gymnasium's need an extra."""
    return {**dict.fromkeys(gymnasium.registry, "gymnasium"), **dict.fromkeys(native.WORLDS, "native")}


def _remote(url: str, num_envs: int, seed: int, device: str, prefer: str, options: dict[str, Any]) -> Env:
    if device != "cpu" or prefer not in ("native", "http"):  # the default, and what `origin` says
        raise BadInput("an environment on a server is stepped there: leave device and prefer out")
    if unknown := set(options) - {"render_mode", "max_episode_steps", "protocol", "timeout"}:
        raise BadInput(
            f"an environment on a server has no option {', '.join(sorted(unknown))}, only render_mode, max_episode_steps, "
            "protocol and timeout"
        )
    return Http(url, num_envs, seed, **options)


def _gymnasium(id: str, num_envs: int, seed: int, device: str, options: dict[str, Any]) -> Env:
    namespace = id.partition("/")[0]
    if id not in gymnasium.registry and namespace in REGISTER and importlib.util.find_spec(REGISTER[namespace]):
        importlib.import_module(REGISTER[namespace])
    if id not in gymnasium.registry:
        raise _unknown(id)
    if device != "cpu":
        raise BadInput(
            f"{id} is stepped by gymnasium on the CPU, got device={device!r}; {_native_ids()} can live on a device"
        )
    try:
        return Gymnasium(id, num_envs, seed, **options)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        if type(error) is ImportError and _newest(id) != id:
            raise BadInput(f"{id} is retired ({error}); use {_newest(id)}") from error
        extra = next((extra for word, extra in EXTRAS.items() if word in str(gymnasium.registry[id].entry_point)), None)
        hint = f'pip install "whorl[{extra}]"' if extra else "install it"
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
    namespace = id.partition("/")[0]
    if namespace in EXTRAS:
        return BadInput(f'{id} needs an extra that is not installed: pip install "whorl[{EXTRAS[namespace]}]"')
    reason = f"no environment is called {id!r}"
    if "-v" in id:
        try:
            gymnasium.spec(id)
        except (gymnasium.error.DeprecatedEnv, gymnasium.error.VersionNotFound) as error:
            reason = str(error)
        except gymnasium.error.Error:
            pass  # no such name in any version: the near matches say more
    known = {name.lower(): name for name in known_envs()}
    near = [known[name] for name in difflib.get_close_matches(id.lower(), known, n=3)]
    return BadInput(f"{reason}; near matches: {', '.join(near)}" if near else f"{reason}; `known_envs()` lists all")


def _newest(id: str) -> str:
    """The id of the highest version registered under the same name."""
    spec = gymnasium.registry[id]
    same = [
        other for other in gymnasium.registry.values() if (other.namespace, other.name) == (spec.namespace, spec.name)
    ]
    return max(same, key=lambda other: other.version or -1).id


def _native_ids() -> str:
    return ", ".join(native.WORLDS)
