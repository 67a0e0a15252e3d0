"""Advice in the form of who reads it: whorl's messages name arguments of Python, which are typed otherwise in a shell."""

from __future__ import annotations

import re
from collections.abc import Collection

from whorl import options

# an argument with its value, `squash=False`
_ARGUMENT = re.compile(r"(?<![\w.?&/-])(?<!--grid )([a-z][a-z_.]*)=(True|False|'[^']*'|\"[^\"]*\"|-?\d[\w.]*)")
_RULES = (  # before that: what has a form of its own, or none
    (r"whorl\.load\(path, env=URL\) or whorl\.resume\(path, env=URL\), --env URL on the command line", "--env URL"),
    (r"whorl\.load\(path, encoder=(\w+)\) or whorl\.resume\(path, encoder=\1\)", r"--encoder MODULE:\1"),
    (r"(whorl\.(?:load|resume)\(path, )", r"from Python, \1"),
    (r" or from Python, ", " or "),
    (r", (wrappers|hooks)=\[\.\.\.\]", r" from Python, \1=[...]"),
    (r"pass the class, agent=\w+", "bring it by a name, --import a module that calls whorl.register_agent"),
    (r"env_kwargs=\{'(\w+)': \.\.\.\}", r"--env.\1 VALUE"),
    (r"\{'([\w.]+)': \[(.*?)\]\}", r"--grid \1=\2"),
)


def in_shell(text: str, sweep: bool = False) -> str:
    """A message with its advice as it is typed. sweep: fields of an agent stand in the grid there."""
    for pattern, form in _RULES:
        text = re.sub(pattern, form, text)
    return _ARGUMENT.sub(lambda found: _typed(found[0], found[1], found[2].strip("'\""), sweep), text)


def _typed(whole: str, name: str, value: str, sweep: bool) -> str:
    """One argument as an option; as it is where there is none of that name."""
    from whorl.training import grid
    from whorl.training.catalog import AGENTS, default_config

    if name in grid.RUN_SETTINGS or name in ("seed", "seeds", "slots", "retries", "trials", "quiet", "name", "runs"):
        return _option("", name, value)
    of_agents = dict.fromkeys(field for agent in AGENTS for field in grid.fields(default_config(agent)))
    field = next((each for each in of_agents if each == name or each.endswith(f".{name}")), None)
    if field is None:
        return whole
    return f"--grid {field}={value}" if sweep else _option("agent.", field, value)


def _option(group: str, name: str, value: str) -> str:
    head, dot, last = f"{group}{name}".replace("_", "-").rpartition(".")
    if value in ("True", "False"):
        return f"--{head}{dot}{'' if value == 'True' else 'no-'}{last}"
    return f"--{head}{dot}{last} {value}"


def elsewhere(name: str, known: Collection[str]) -> str:
    """What another library's name is called here, as it is typed. known: the options of the command."""
    text, done = options.ELSEWHERE[name], set[str]()
    if text == "env":
        return "ENV, the word after AGENT"

    def typed(found: re.Match[str]) -> str:
        word = found[0]
        option = next((each for each in (word, f"agent.{word}") if each in known and word not in done), None)
        done.add(word)  # what follows is about it
        return f"--{option.replace('_', '-')}" if option else word

    return re.sub(r"[a-z_]+(\.[a-z_]+)*", typed, text)
