"""The only door through which a name imports code: what a user typed, on the command line or in a call. Nothing that stands in a run
folder, a board entry or a request comes here, and nothing remembers what was imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from operator import attrgetter
from pathlib import Path

from whorl.errors import BadInput


def bring(modules: Iterable[str]) -> None:
    """Import modules, also of the working directory: the agents and the Gymnasium ids that they register can then be named.

    Raises BadInput for a module that there is not; what goes wrong inside one is its own error.
    """
    here = str(Path.cwd())
    for module in modules:
        if here not in sys.path and "" not in sys.path:
            sys.path.append(here)  # last: nothing here hides what is installed
        try:
            import_module(module)
        except (ModuleNotFoundError, TypeError, ValueError) as error:
            if isinstance(error, ModuleNotFoundError) and error.name != module.split(".")[0] and error.name != module:
                raise
            raise BadInput(f"there is no module {module!r} to import, neither installed nor in {here}") from None


def part(named: str) -> Callable[..., object]:
    """What a user typed as `module:Name`, imported: a class or function. Raises BadInput for what is none, and for a name that there is
    not."""
    module, _, name = named.partition(":")
    if not module or not name:
        raise BadInput(f"expected module:Name, such as nets:Torso for the class Torso of nets.py, got {named!r}")
    bring([module])
    try:
        found = attrgetter(name)(sys.modules[module])
    except AttributeError:
        raise BadInput(f"the module {module} has no {name!r}") from None
    if not callable(found):
        raise BadInput(f"{named} is no class or function but {type(found).__name__}")
    return found


def typed(env: str) -> tuple[str, list[str]]:
    """The id of an environment that a user typed, and the modules to import for it: those of Gymnasium's form `module:Env-v0`."""
    from whorl.envs.ids import is_url

    if ":" not in env or is_url(env):
        return env, []
    module, _, id = env.partition(":")
    return id, [module]
