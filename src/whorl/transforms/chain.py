"""A chain of transforms as data: names and arguments, as a preset, a command line and `config.json` hold them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import TypeAlias

from whorl.envs.env import Env
from whorl.errors import BadInput, WhorlError, in_words
from whorl.json_text import strict
from whorl.options import did_you_mean
from whorl.transforms.arguments import check_arguments
from whorl.transforms.env import Transformed
from whorl.transforms.transform import Transform

Spec: TypeAlias = (
    "str | Mapping[str, object] | Transform"  # "stack_frames", {"name": "stack_frames", "count": 4}, or an object
)

Transforms: TypeAlias = "str | Sequence[Spec]"  # a list, or one as JSON text

TRANSFORMS: dict[str, str | type[Transform]] = {  # name -> "file:class" here, file by file, or the class of a user's
    "normalize": "observation:Normalize",
    "running_normalize": "observation:RunningNormalize",
    "clip_observation": "observation:ClipObservation",
    "cast": "observation:Cast",
    "unary": "observation:Unary",
    "to_device": "observation:ToDevice",
    "stack_frames": "observation:StackFrames",
    "time_max": "observation:TimeMax",
    "next_delta": "observation:NextDelta",
    "flatten_observation": "shape:FlattenObservation",
    "squeeze": "shape:Squeeze",
    "unsqueeze": "shape:Unsqueeze",
    "permute": "shape:Permute",
    "select": "entries:Select",
    "exclude": "entries:Exclude",
    "rename": "entries:Rename",
    "cat_observations": "entries:CatObservations",
    "stack_observations": "entries:StackObservations",
    "expand_as": "entries:ExpandAs",
    "primer": "entries:Primer",
    "previous_action_reward": "entries:PreviousActionReward",
    "from_render": "pixels:FromRender",
    "to_image": "pixels:ToImage",
    "gray": "pixels:Gray",
    "resize": "pixels:Resize",
    "crop": "pixels:Crop",
    "center_crop": "pixels:CenterCrop",
    "random_shift": "pixels:RandomShift",
    "scale_action": "action:ScaleAction",
    "flatten_action": "action:FlattenAction",
    "discretize_action": "action:DiscretizeAction",
    "project_action": "action:ProjectAction",
    "mask_action": "action:MaskAction",
    "sticky_action": "action:StickyAction",
    "repeat": "macro:Repeat",
    "multi_action": "macro:MultiAction",
    "scale_reward": "reward:ScaleReward",
    "clip_reward": "reward:ClipReward",
    "sign_reward": "reward:SignReward",
    "binarize_reward": "reward:BinarizeReward",
    "sum_reward": "reward:SumReward",
    "reward_to_go": "reward:RewardToGo",
    "linearize": "reward:Linearize",
    "normalize_reward": "reward:NormalizeReward",
    "time_limit": "episode:TimeLimit",
    "terminate_when": "episode:TerminateWhen",
    "random_truncation": "episode:RandomTruncation",
    "step_count": "episode:StepCount",
    "trajectory_id": "episode:TrajectoryId",
    "noop_start": "episode:NoopStart",
    "end_of_life": "episode:EndOfLife",
    "finite": "episode:Finite",
}


def register_transform(name: str, cls: type[Transform]) -> None:
    """Give a transform of yours a name, wherever names go.

    Raises BadInput for a name that another one has, and for what is no class of `Transform`.
    """
    if not (isinstance(cls, type) and issubclass(cls, Transform)):
        raise BadInput(f"a transform is a class of whorl.Transform, got {cls!r:.80}")
    known = TRANSFORMS.get(name)
    if known is not None and (isinstance(known, str) or known.__qualname__ != cls.__qualname__):
        raise BadInput(f"there is a transform {name!r} already: register yours under another name")
    TRANSFORMS[name] = cls


def known_transforms() -> dict[str, tuple[str, str]]:
    """Name -> its arguments, and what it does, the first sentence of its docstring; nothing and where it is, if an installed package
    brings it, which is not imported."""
    found = {entry.name: ("", entry.value) for entry in entry_points(group="whorl.transforms")}
    for name in TRANSFORMS:
        cls = transform_class(name)
        text = " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())
        found[name] = (
            ", ".join(inspect.signature(cls).parameters),
            re.split(r"(?<=\.) (?=[A-Z])", text)[0].removesuffix("."),
        )
    return found


def transform_class(name: str) -> type[Transform]:
    """The class of a name. Raises BadInput for an unknown one, with near matches."""
    if name not in TRANSFORMS:
        for entry in entry_points(group="whorl.transforms", name=name):
            try:
                register_transform(name, entry.load())
            except (ImportError, AttributeError) as error:
                raise BadInput(f"the transform {name!r} ({entry.value}) cannot be imported: {error}") from error
    known = TRANSFORMS.get(name)
    if known is None:
        raise BadInput(
            f"unknown transform {name!r:.60}{did_you_mean(name, TRANSFORMS)} (`whorl list transforms` shows all; one of yours has a name "
            "once the module that calls whorl.register_transform is imported, by --import on the command line)"
        )
    if not isinstance(known, str):
        return known
    file, cls = known.split(":")
    found: type[Transform] = getattr(import_module(f"whorl.transforms.{file}"), cls)
    return found


def transform_name(transform: Transform) -> str:
    """The name of its class. Raises BadInput for a class that is not registered."""
    cls = type(transform)
    for name, known in TRANSFORMS.items():
        if known is cls or known == f"{cls.__module__.rpartition('.')[2]}:{cls.__qualname__}":
            return name
    raise BadInput(
        f"{cls.__name__} has no name by which a run could write it down: whorl.register_transform('its_name', {cls.__name__})"
    )


def made(spec: Spec) -> Transform:
    """A new transform from a name, or a name with arguments; a copy of an object. Raises BadInput for what makes none."""
    if isinstance(spec, Transform):
        return deepcopy(spec)
    given = {"name": spec} if isinstance(spec, str) else spec
    if not isinstance(given, Mapping) or not isinstance(name := given.get("name"), str):
        raise BadInput(
            f'a transform is an object, a name, such as "scale_action", or a table with one and its arguments, such as '
            f'{{"name": "stack_frames", "count": 4}} (Gymnasium\'s wrappers stand in `wrappers`); got {given!r:.80}'
        )
    cls = transform_class(name)
    taken = inspect.signature(cls).parameters
    arguments = {key: value for key, value in given.items() if key != "name"}
    for key in arguments:
        if key not in taken:
            raise BadInput(
                f"{name} has no argument {key!r:.60}{did_you_mean(key, taken)}: it takes {', '.join(taken) or 'none'}"
            )
    lacking = [key for key, each in taken.items() if key not in arguments and each.default is each.empty]
    if lacking:
        asked = "".join(f', "{key}": ...' for key in lacking)
        raise BadInput(f'{name} needs {", ".join(lacking)}: {{"name": "{name}"{asked}}}')
    check_arguments(name, cls, arguments)
    try:
        return cls(**arguments)
    except WhorlError:
        raise
    except Exception as error:
        raise BadInput(f"{name} cannot be made with {arguments!r:.200}: {in_words(error)}") from error


@dataclass(frozen=True)
class Chain:
    """Transforms for any number of environments, the innermost first, from what `chain` was given."""

    specs: tuple[Spec, ...]

    def __reduce__(self) -> tuple[type[Chain], tuple[tuple[Spec, ...]]]:
        """As objects, whose classes another process finds also where no name was registered."""
        return Chain, (tuple(map(made, self.specs)),)

    @property
    def draws(self) -> bool:
        """Whether one of them shows pictures of the environments, which are made with some, then."""
        return any(made(spec).draws for spec in self.specs)

    def around(self, env: Env, training: bool) -> Env:
        """`env` through new transforms. Not training: without those of training only, and running statistics stand."""
        transforms = [each for each in map(made, self.specs) if training or not each.training_only]
        return Transformed(env, *transforms).train(training) if transforms else env

    def of_objects(self, env: Env) -> Env:
        """`env` through the very objects that were given, and new ones of the rest."""
        return Transformed(env, *(each if isinstance(each, Transform) else made(each) for each in self.specs))

    def written(self) -> list[object]:
        """As JSON holds it: what `chain` makes the same of. Raises BadInput for a transform without a name."""
        found: list[object] = []
        for spec in self.specs:
            if isinstance(spec, Transform):
                arguments = spec.arguments()
                spec = {"name": transform_name(spec)} | arguments if arguments else transform_name(spec)
            found.append(spec)
        try:
            json.dumps(found, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BadInput(
                f"a transform's arguments are written into the run's folder, so they are plain values: {error}"
            ) from None
        return found


def chain(given: Transforms | None) -> Chain | None:
    """A chain from a list of names, tables and objects, or from such a list as JSON text; None for an empty one.

    Raises BadInput for anything else, and for a transform that cannot be made: each is made once.
    """
    if isinstance(given, str):
        try:
            given = strict(given)
        except (ValueError, RecursionError) as error:
            raise BadInput(
                f"transforms are a list in JSON, such as '[\"scale_action\"]': {error}; got {given!r:.80}"
            ) from None
    if given is None:
        return None
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise BadInput(f"transforms are a list, the innermost first, such as ['scale_action']; got {given!r:.80}")
    for spec in given:
        made(spec)
    return Chain(tuple(given)) if given else None
