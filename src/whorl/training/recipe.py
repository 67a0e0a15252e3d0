"""A recipe: the `config.json` of any run, or a part of one, to train by again."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import NamedTuple, cast

from whorl import files, options
from whorl.envs.make import EnvLike, check_harmless, makes, name_of
from whorl.errors import BadInput, Damaged
from whorl.feeds import Fed
from whorl.options import did_you_mean
from whorl.training import folder
from whorl.training.brought import functions_again
from whorl.training.catalog import AgentLike, config_from_json, find
from whorl.training.own_hooks import scheduled_fields
from whorl.training.settings import NAMED, Settings, one_word
from whorl.training.source import harmless
from whorl.transforms.chain import Spec

OF_THE_RUN = ("progress", "earlier", "sha256", "spaces")  # what config.json says of its run, and no other run takes


AGAIN = {  # how
    "own_env": "env=...",
    "wrappers": "wrappers=[...]",
    "encoder": "encoder=...",
    "scheduled": "the function in the place of its field",
}


class Recipe(NamedTuple):
    """`fields`: of Settings. `config`: the agent's."""

    agent: AgentLike
    env: str
    fields: Mapping[str, object]
    config: Fed
    env_kwargs: Mapping[str, object]
    transforms: tuple[Spec, ...] | None  # None: nothing is said


def read_recipe(
    path: str | PathLike[str],
    agent: AgentLike | None = None,
    env: EnvLike | None = None,
    brought: Mapping[str, object] = {},
) -> Recipe:
    """A recipe from a file, or from the folder of a run.

    agent, env: instead of what it says. brought: whatever else stands beside it and goes before what it says: `config`, `env_kwargs`,
    `wrappers`, `encoder`, and fields; None is nothing.
    Raises BadInput for a key that is not known, for what only its user can bring and did not, and for an environment with a colon, on a
    server or in a module: that has to be typed.
    """
    path = folder.place(path, "a recipe")
    path = folder.open_run(path) / "config.json" if path.is_dir() else path
    data = files.read_json(path)
    if not isinstance(data, dict):
        raise Damaged(f"{path} should hold a table, such as the config.json of a run")
    data = one_word({name: value for name, value in data.items() if name not in OF_THE_RUN})
    known = [field.name for field in options.fields(Settings)] + ["config"]
    if unknown := [name for name in data if name not in known]:
        raise BadInput(f"{path} has an unknown key {unknown[0][:60]!r}{did_you_mean(unknown[0][:60], known)}")
    written, place, config = data.pop("agent", None), data.pop("env", ""), data.pop("config", {})
    if not (written or agent) or not isinstance(written, str | None) or not isinstance(place, str):
        raise BadInput(f"{path} should name an agent and an environment, by their keys 'agent' and 'env'")
    if not isinstance(config, dict):
        raise BadInput(f"{path}: config should be a table, got {str(config)[:60]!r}")
    if env is None and ":" in place:
        raise BadInput(
            f"{path} names the environment {place[:100]}, and a file connects to nothing and imports nothing: pass it"
        )
    kwargs = data.pop("env_kwargs", {})
    if not isinstance(kwargs, dict):
        raise BadInput(f"{path}: env_kwargs should be a table, got {str(kwargs)[:60]!r}")
    again = {name for name, value in brought.items() if value is not None} | ({"own_env"} if env is not None else set())
    if env is not None and not makes(env):
        kwargs = {}
    transforms = data.pop("transforms", None)
    if not isinstance(transforms, list | None):
        raise BadInput(f"{path}: transforms should be a list, got {str(transforms)[:60]!r}")
    transforms = None if transforms is None else harmless(transforms, str(path))
    given = cast(Mapping[str, object], brought.get("env_kwargs") or {})
    check_harmless({key: value for key, value in kwargs.items() if key not in given}, str(path))
    if again.issuperset(scheduled_fields(str(data.get("scheduled", "")))):
        again |= {"scheduled"}
    if own := [name for name in NAMED if data.pop(name, None) and name not in again]:
        raise BadInput(
            f"{path} is of a run with something that no file holds ({own[0]}): pass it again, {AGAIN[own[0]]}, or take that key out"
        )
    kind, place = agent or str(written), place if env is None else name_of(env)
    if brought.get("config") is not None:
        return Recipe(kind, place, data, cast(Fed, brought["config"]), {**kwargs, **given}, transforms)
    if not config:
        return Recipe(kind, place, data, find(kind, place).config, {**kwargs, **given}, transforms)
    config = {name: value for name, value in config.items() if name == "feed" or name not in again}
    of_agent = config_from_json(kind, functions_again(path, kind, config, {}))
    return Recipe(kind, place, data, of_agent, {**kwargs, **given}, transforms)
