"""A recipe: the `config.json` of any run, or a part of one, to train by again."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from whorl import files, options
from whorl.envs.make import check_harmless
from whorl.errors import BadInput, Damaged
from whorl.feeds import Fed
from whorl.options import did_you_mean
from whorl.training import folder
from whorl.training.catalog import AgentLike, config_from_json, find
from whorl.training.settings import NAMED, Settings

OF_THE_RUN = ("progress", "earlier", "sha256", "spaces")  # what config.json says of its run, and no other run takes


class Recipe(NamedTuple):
    """`fields`: of Settings. `config`: the agent's."""

    agent: AgentLike
    env: str
    fields: Mapping[str, object]
    config: Fed
    env_kwargs: Mapping[str, object]


def read_recipe(path: str | PathLike[str], agent: AgentLike | None = None, env: str | None = None) -> Recipe:
    """A recipe from a file, or from the folder of a run; agent, env: instead of what it says.

    Raises BadInput for a key that is not known, an agent that only its user can bring, and an environment with a colon, on a server or in
    a module: that has to be typed.
    """
    path = Path(path)
    path = folder.open_run(path) / "config.json" if path.is_dir() else path
    data = files.read_json(path)
    if not isinstance(data, dict):
        raise Damaged(f"{path} should hold a table, such as the config.json of a run")
    data = {name: value for name, value in data.items() if name not in OF_THE_RUN}
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
    check_harmless(kwargs, str(path))
    if own := [name for name in NAMED if data.pop(name, None)]:
        raise BadInput(
            f"{path} is of a run with something that no file holds ({own[0]}): take that key out and pass it again"
        )
    kind, env = agent or str(written), place if env is None else env
    of_agent = config_from_json(kind, config) if config else find(kind, env).config
    return Recipe(kind, env, data, of_agent, kwargs)
