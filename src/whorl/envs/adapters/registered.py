"""Environments by an id of Gymnasium's registry, for `make_env`: a look at what was asked, and why it cannot be."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium

from whorl.envs import ids, native
from whorl.envs.adapters import install, library
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.errors import BadInput, WhorlError, in_words


def make(
    id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any],
    kind: type[Gymnasium] = Gymnasium,
) -> Gymnasium:  # fmt: skip
    """For `make_env`: a `kind`, after a look at what was asked."""
    if prefer not in ("native", kind.origin):
        raise BadInput(f"prefer must be 'native', {kind.origin!r} or 'torch', got {prefer!r}")
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
        return kind(id, num_envs, seed, wrappers=wrappers, **options)
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
    except (AssertionError, LookupError, OSError, ValueError) as error:  # of the library, as it makes one
        if isinstance(error, WhorlError):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise BadInput(
            f"{id} cannot be made: its library raises {in_words(error)} in {Path(place.filename).name}, line {place.lineno}; another "
            "version of the library, or of what it needs, may do"
        ) from error


def _unknown(id: str) -> BadInput:
    """Why there is no such id: retired version, missing extra, or a slip of the pen."""
    if id in native.WORLDS:
        return BadInput(f"{id} exists only as a native world: leave prefer='gymnasium' out")
    reason = f"no environment is called {id!r}"
    if "-v" in id:
        try:
            gymnasium.spec(id)
        except (gymnasium.error.DeprecatedEnv, gymnasium.error.VersionNotFound) as error:
            reason = str(error)
        except gymnasium.error.Error:
            pass  # no such name in any version: the near matches say more
    near = ids.near(id)
    return BadInput(f"{reason}; near matches: {', '.join(near)}" if near else f"{reason}; `whorl list envs` shows all")
