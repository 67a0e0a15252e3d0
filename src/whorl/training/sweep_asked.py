"""What is asked of a sweep, looked at before anything else is: one sentence for what it cannot be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from whorl.errors import BadInput
from whorl.training import grid
from whorl.training.catalog import AgentLike, find


def check_call(agent: object, values: Mapping[str, object], **counts: tuple[object, int]) -> None:
    """Raises BadInput for agents that are no text, values that are no list, and a count (`seeds`, ...) that is no whole number from the one
    beside it on."""
    if isinstance(agent, list | tuple):
        names = ",".join(each if isinstance(each, str) else "NAME" for each in agent)
        raise BadInput(
            f"agents that are compared are one text, their names with commas between them: {names!r} (a class has a name once "
            f"whorl.register_agent gave it one); got a {type(agent).__name__}"
        )
    if not isinstance(agent, str | type):
        raise BadInput("the runs of a sweep are processes of their own, which build their agents: pass the class")
    for name, (count, least) in counts.items():
        if isinstance(count, list | tuple | range):
            raise BadInput(
                f"{name} is how many, not which: {name}={len(count)}"
                + (f" trains the seeds 0 to {len(count) - 1} of each setting" if name == "seeds" else "")
            )
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise BadInput(f"{name} must be at least {least}, got {count!r}")
    for name, each in values.items():
        if isinstance(each, str) or not isinstance(each, Sequence):
            raise BadInput(f"the grid has a list of values for each field, one will do: {{{name!r}: [{each!r}]}}")


def check_fields(kinds: Mapping[str, AgentLike], env: str, varied: Iterable[str], fixed: Mapping[str, object]) -> None:
    """Raises BadInput for a field to be varied that some of the agents lack, and for a field of an agent's config among what is fixed.

    kinds: the agents by their names.
    """
    every = {name: grid.fields(find(kind, env).config) for name, kind in kinds.items()}
    for field in varied:
        having = [name for name, fields in every.items() if field in fields]
        lacking = [name for name in every if name not in having]
        if having and lacking:
            raise BadInput(
                f"{' and '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} no field {field!r}, which {' and '.join(having)} "
                f"{'has' if len(having) == 1 else 'have'}: vary what all of them have, or give each agent a sweep of its own"
            )
    for field, value in fixed.items():
        of = [name for name, fields in every.items() if any(f"{each}.".startswith(f"{field}.") for each in fields)]
        if of and field not in grid.RUN_SETTINGS:
            inner = next(iter(value.items()), ("FIELD", "VALUE")) if isinstance(value, Mapping) else None
            name, one = (f"{field}.{inner[0]}", inner[1]) if inner else (field, value)
            raise BadInput(
                f"{field} is of the config of {' and '.join(of)}, and fields of an agent stand in the grid, also those with one value: "
                f"{{{name!r}: [{one!r}]}}"
            )
