"""The command line. Torch is imported only by the commands that need it, so that `whorl --help` answers at once."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import json
import math
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from whorl import options
from whorl.apps import twrl
from whorl.apps.arguments import COMMANDS, Changed, Repeated, Resume, Sweep, Train
from whorl.apps.shell import elsewhere, in_shell
from whorl.errors import BadInput, WhorlError
from whorl.training import imports
from whorl.training.settings import NAMED, Settings

if TYPE_CHECKING:
    from whorl.training.recipe import Recipe

HIDDEN: dict[type, tuple[str, ...]] = {  # fields that are no options, or another's
    Settings: NAMED,
    Repeated: (*NAMED, "seed"),
    Changed: (*NAMED, "total_steps", "logger"),
}
OF_ENV = ("train", "sweep", "check", "eval", "play", "export", "resume")  # commands with options of the environment
LISTS = (tuple[int, ...], tuple[float, ...])


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit code 2 for bad input, 1 for a run that failed; errors are one line on stderr."""
    own = arguments is None  # the whole process, not only this call
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments[:1] == ["run"]:
            choice = twrl.read(arguments[1:])  # -help ends here, and needs no torch

            from whorl.apps import twrl_run

            return twrl_run.run(choice)
        if arguments[:2] == ["board", "merge"]:
            arguments = ["board-merge", *arguments[2:]]
        if (
            own
        ):  # what is imported stays, and looking through it for garbage, again and again, is a sixth of a short run
            gc.disable()
        command = parse(arguments)
        name = next(name for name, kind in COMMANDS.items() if isinstance(command, kind))
        module = import_module("whorl.apps.lists" if name == "list" else "whorl.apps.commands")
        if own:
            gc.freeze()
            gc.enable()
        getattr(module, name.replace("-", "_"))(command)
    except WhorlError as error:
        print(f"whorl: {in_shell(str(error), arguments[:1] == ['sweep'])}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"whorl: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # who trains has said what was saved
        sys.exit(130)


def parse(arguments: list[str]) -> Any:
    """The command, one of `COMMANDS`, with its options. Exits with code 2, and says why, for what is none."""
    kinds: dict[str, Any] = dict(COMMANDS)
    env_kwargs: dict[str, Any] = {}
    recipe = None
    imports.bring(_values("--import", arguments))
    if arguments[:1] in ([name] for name in OF_ENV):
        env_kwargs, arguments = _of_the_environment(arguments)
    if arguments[:1] in (["train"], ["sweep"], ["check"]):
        kind = kinds[arguments[0]]
        names, rest = _names_first(arguments[1:], kind)
        if len(names) == 2:
            names[1], modules = imports.typed(names[1])
            imports.bring(modules)
            rest += [f"--import={module}" for module in modules]
        recipe = _recipe(_values("--recipe", rest), names) if kind is Train else None
        if recipe:  # whose names import nothing
            names = [str(recipe.agent), recipe.env]
        if len(names) == 2 and kind in (Train, Sweep):  # else tyro says what is missing
            if listed := [value for value in _values("--seeds", rest) if kind is Sweep and "," in value]:
                raise BadInput(
                    f"--seeds is how many, not which: of {listed[0]} say --seeds {listed[0].count(',') + 1}, which begin at 0"
                )
            kinds[arguments[0]] = _of_the_pair(kind, names[0], names[1], recipe)
            _refuse_foreign(rest, kinds[arguments[0]])
        arguments = [arguments[0], *names, *rest]
    was = _of_a_run(arguments[1:]) if arguments[:1] == ["resume"] else None
    if was:
        kinds["resume"], arguments = _resumed(was, arguments)
    with _REGISTRY:
        command: Any = tyro.extras.subcommand_cli_from_dict(
            kinds,
            prog="whorl",
            description="Reinforcement learning in PyTorch: train, resume, evaluate, watch.",
            args=arguments,
        )
    if recipe and command.transforms is None:
        command.transforms = recipe.transforms
    if env_kwargs := {**(recipe.env_kwargs if recipe else {}), **env_kwargs}:
        command.env_kwargs = env_kwargs
    if was:
        changes = options.changes(was[0], command.settings)
        command.changes = {k: v for k, v in changes.items() if k not in HIDDEN[Changed]} | options.changes(
            was[1], command.agent
        )
    return command


def _of_the_environment(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The options --env.KEY VALUE, and the words that are left. A value is read as JSON (5, true, [1, 2]), else it is a text."""
    found: dict[str, Any] = {}
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if not word.startswith("--env."):
            rest.append(word)
            continue
        key, equals, value = word.removeprefix("--env.").partition("=")
        if not equals:
            value = next(waiting, "")
        if not key or not value:
            raise BadInput(f"{word} is an option of the environment and needs a name and a value: --env.KEY VALUE")
        try:
            found[key.replace("-", "_")] = json.loads(value)
        except ValueError:
            found[key.replace("-", "_")] = value
    return found, rest


def _recipe(files: list[str], names: list[str]) -> Recipe | None:
    if not files:
        return None
    from whorl.training.recipe import read_recipe

    agent, env = (*names, None, None)[:2]
    return read_recipe(files[-1], agent, env)


def _of_the_pair(kind: type, agent: str, env: str, recipe: Recipe | None) -> type:
    """`Train` or `Sweep` with the preset of the pair, or a recipe, as defaults; `Train` has the fields of the agent's config, too."""
    from whorl.training.catalog import find

    preset = find(agent.split(",")[0] if kind is Sweep else agent, env)
    settings = (Repeated if kind is Sweep else Settings)(num_envs=preset.num_envs, total_steps=preset.total_steps)
    config = preset.config
    if recipe:
        settings, config = options.override(settings, recipe.fields), recipe.config
        options.check(settings)
    hint: Any = tyro.conf.OmitArgPrefixes
    extended: list[Any] = [("settings", hint[type(settings)], dataclasses.field(default=settings))]
    if kind is Train:
        extended.append(("agent", type(config), dataclasses.field(default=config)))
    made = dataclasses.make_dataclass(kind.__name__, extended, bases=(kind,))
    made.__doc__ = kind.__doc__
    return made


def _of_a_run(words: list[str]) -> tuple[Changed, Any] | None:
    """What the run among the words was started with; None: no word is one. Raises BadInput for a folder that is none."""
    bare = [word for word in words if not word.startswith("-")]
    first = "".join(bare[:1]) if words[:1] == bare[:1] else ""
    run = next((word for word in bare if os.path.lexists(Path(word) / "config.json")), first)
    if not run:
        return None
    from whorl.training.folder import open_run
    from whorl.training.trained import read_settings

    settings, config = read_settings(open_run(run))
    return Changed(**vars(settings)), config


def _resumed(was: tuple[Changed, Any], words: list[str]) -> tuple[type, list[str]]:
    """`Resume` with what the run was started with as defaults, and the words with `agent.` before the fields of its config."""
    settings, config = was
    fields: list[Any] = [
        ("settings", tyro.conf.OmitArgPrefixes[Changed], dataclasses.field(default=settings)),
        ("agent", type(config), dataclasses.field(default=config)),
    ]
    made = dataclasses.make_dataclass("Resume", fields, bases=(Resume,))
    made.__doc__ = Resume.__doc__
    _refuse_foreign(words, made)
    own, inside = _kinds(Resume) | _kinds(settings), _kinds(config)
    for i, word in enumerate(words):
        name = word.removeprefix("--").partition("=")[0].replace("-", "_")
        group, dot, last = name.rpartition(".")
        if (
            word.startswith("--")
            and name not in own
            and {name, f"{group}{dot}{last.removeprefix('no_')}"} & inside.keys()
        ):
            words = [*words[:i], f"--agent.{word.removeprefix('--')}", *words[i + 1 :]]
    return made, words


# ---------------------------------------------------------------------------------------------- the words


def _names_first(words: list[str], kind: type) -> tuple[list[str], list[str]]:
    """(AGENT and ENV, all other words). How many words an option takes is known once the agent is, so every agent that is
    named there is tried."""
    from whorl.training.catalog import AGENTS, default_config, known_agents

    own = {"help": bool, "h": bool} | _kinds(kind)
    named = [word for word in words if word in AGENTS] or [word for word in words if word in known_agents()]
    for agent in dict.fromkeys(named):
        names, rest = _split(words, own | _kinds(default_config(agent), "agent."))
        if names[:1] == [agent]:
            return names, rest
    return _split(words, own)


def _values(option: str, words: list[str]) -> list[str]:
    """What stands for an option, each time it comes."""
    after = [value for word, value in zip(words, words[1:]) if word == option]
    return after + [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]


def _refuse_foreign(words: list[str], kind: type) -> None:
    """Raises BadInput for an option by the name that another library gives it, and for one of an agent where the grid is its place."""
    known = _kinds(kind)
    for word in words:
        option = word.partition("=")[0]
        name = option.lstrip("-").replace("-", "_")
        group, _, last = name.rpartition(".")
        if not word.startswith("--") or name in known:
            continue
        if last in options.ELSEWHERE and group in ("", "agent", "agent.feed"):
            here = elsewhere(last, known)
            if issubclass(kind, Sweep) and here == options.ELSEWHERE[last]:  # no option of the command: a field
                here += "; fields of agents stand in the grid, --grid FIELD=VALUE"
            raise BadInput(f"there is no option {option}; what others call {last} is {here}")
        if issubclass(kind, Sweep) and name.startswith("agent."):
            raise BadInput(f"fields of agents stand in the grid, also those with one value: --grid {name[6:]}=VALUE")


def _kinds(given: Any, prefix: str = "") -> dict[str, Any]:
    """Name of an option -> the type of its value. given: a class of this file's, or a dataclass with values."""
    found: dict[str, Any] = {}
    for field in options.fields(given if isinstance(given, type) else type(given)):
        value = getattr(given, field.name, None)  # a class holds the defaults of its fields
        if dataclasses.is_dataclass(value):
            found |= _kinds(value, prefix if isinstance(value, Settings) else f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = field.kind
    return found


def _split(words: list[str], kinds: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(The first two words that are neither options nor their values, all others)."""
    names: list[str] = []
    rest: list[str] = []
    due = 0.0  # values that the last option still takes
    for word in words:
        if word.startswith("-") and not twrl.is_number(word):
            group, dot, last = word.lstrip("-").replace("-", "_").rpartition(".")
            kind = kinds.get(f"{group}{dot}{last}", kinds.get(f"{group}{dot}{last.removeprefix('no_')}"))
            due = 0 if "=" in word or kind is bool else math.inf if kind in LISTS else 1
        elif due == 0 or (due == math.inf and not twrl.is_number(word)):
            due = 0
            if len(names) < 2:
                names.append(word)
                continue
        else:
            due -= 1
        rest.append(word)
    return names, rest


# ---------------------------------------------------------------------------------------------- settings as options

_REGISTRY = ConstructorRegistry()


@_REGISTRY.primitive_rule
def _whole(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """A whole number may be written 1e5."""
    if info.type is not int:
        return None

    def read(words: list[str]) -> int:
        if (number := options.read_whole(words[0])) is None:
            raise ValueError(f"expected a whole number, such as 100000 or 1e5, got {words[0]!r}")
        return number

    return PrimitiveConstructorSpec(1, "INT", read, lambda value: type(value) is int, lambda value: [str(value)])


@_REGISTRY.struct_rule
def _described(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Comments above the fields are the help, and bounds stand in it."""
    cls = info.type
    if not dataclasses.is_dataclass(cls) or cls.__module__.startswith("tyro."):
        return None
    hints, about = get_type_hints(cls, include_extras=True), _comments(cls)
    values = info.default if isinstance(info.default, cls) else cls  # a class holds the defaults of its fields
    shown = [field for field in options.fields(cls) if field.name not in HIDDEN.get(cls, ())]
    return StructConstructorSpec(
        instantiate=cls,
        fields=tuple(
            StructFieldSpec(
                field.name,
                Annotated[_typed(field, hints), *_words(field)],  # type: ignore[arg-type]
                getattr(values, field.name, tyro.MISSING),
                about.get(field.name),
            )
            for field in shown
        ),
    )


def _typed(field: options.Field, hints: dict[str, Any]) -> Any:
    """The type that is read from words: no function is."""
    return Literal[field.choices] if field.function else hints[field.name]


def _words(field: options.Field) -> list[Any]:
    """What stands for a bounded value: `INT >= 1`, `FLOAT in [0, 1]`, with what else it may be."""
    if field.bounds is None:
        return [None]  # an annotation that says nothing
    low, high, inner = field.bounds.low, field.bounds.high, get_args(field.kind)
    kind = (inner[0] if inner else field.kind).__name__.upper()
    span = f"{kind} >= {low:g}" if high == math.inf else f"{kind} in [{low:g}, {high:g}]"
    words = ["None"] * field.optional + [f"[{span} ...]" if inner else span, *map(str, field.choices)]
    return [tyro.conf.arg(metavar="|".join(words))]


def _comments(cls: type) -> dict[str, str]:
    """The comment above each field."""
    found = {}
    for each in reversed([each for each in cls.__mro__[:-1] if each.__module__ != "types"]):  # those have no source
        above: list[str] = []
        for line in map(str.strip, inspect.getsource(each).splitlines()):
            if line.startswith("#"):
                above.append(line.lstrip("# "))
                continue
            if above and (field := re.match(r"(\w+):", line)):
                found[field[1]] = " ".join(above)
            above = []
    return found
