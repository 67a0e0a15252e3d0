"""The libraries whose environments whorl can step: one row of the table, and one file if none here can step them.

A file's `make(id, num_envs, seed, device, prefer, wrappers, options)` makes N of them; it is imported when the first is made.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from whorl.envs.adapters.offscreen import draw_offscreen
from whorl.envs.env import Env
from whorl.envs.ids import entry_point, is_url, namespace
from whorl.errors import BadInput


class Library(NamedTuple):
    """Where environments come from."""

    has: Callable[[str], bool]  # whether an id is one of its
    adapter: str  # the file, in this folder
    extra: str = ""  # of whorl that installs it
    module: str = ""  # by which it is found
    registers: bool = False  # importing the module brings its ids into Gymnasium's registry
    package: str = ""  # that installs it, where no extra does: it does not go with what others need
    prepare: Callable[[], None] = lambda: None  # before the module is imported
    learning: tuple[str, ...] = ()  # transforms between its environments and a learner, where no preset says which

    def make(
        self, id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any]
    ) -> Env:  # fmt: skip
        if command := self.missing():
            raise BadInput(f"{id} needs {'an extra' if self.extra else 'a package'} that is not installed: {command}")
        self.prepare()
        adapter = importlib.import_module(f"{__name__}.{self.adapter}")
        return adapter.make(id, num_envs, seed, device, prefer, wrappers, options)

    def missing(self) -> str:
        """The command that installs it, where it is not; "" where it is."""
        if not self.module or importlib.util.find_spec(self.module) is not None:
            return ""
        return install(self.extra) if self.extra else f'pip install "{self.package}", in an environment of its own'

    def register(self) -> None:
        """Bring its ids into Gymnasium's registry, where it is installed."""
        if self.registers and not self.missing():
            self.prepare()
            importlib.import_module(self.module)


def _of(module: str, names: str) -> Callable[[str], bool]:
    """Ids that Gymnasium's registry has from this module; before it is imported, those that look like its names."""

    def has(id: str) -> bool:
        where = entry_point(id)
        return where.partition(".")[0] == module if where else re.fullmatch(names, id) is not None

    return has


def _in(name: str) -> Callable[[str], bool]:
    """Ids "name/..."."""
    return lambda id: namespace(id) == name


GOALS = "breakable-bottles|deep-sea-treasure|fishwood|four-room|fruit-tree|minecart|resource-gathering|water-reservoir"
ROADS = "exit|highway|intersection|lane-keeping|merge|parking|racetrack|roundabout|two-way|u-turn"
ROBOTS = "AdroitHand|AntMaze|Fetch|FrankaKitchen|HandManipulate|HandReach|PointMaze"
LIBRARIES = (  # the first that has an id steps it
    Library(is_url, "http"),
    Library(_in("ALE"), "atari", "atari", "ale_py", registers=True, learning=("end_of_life", "clip_reward")),
    Library(
        lambda id: namespace(id) == "dm_control" and "-v" in id,
        "registered",
        "dmc",
        "shimmy",
        True,
        prepare=draw_offscreen,
    ),
    Library(_in("dm_control"), "dm_control", "dmc", "dm_control", prepare=draw_offscreen),
    Library(_in("envpool"), "envpool", "envpool", "envpool"),
    Library(_of("minigrid", r"(MiniGrid|BabyAI)-.*"), "minigrid", "minigrid", "minigrid", registers=True),
    Library(_of("highway_env", rf"({ROADS})(-.*)?-v\d+"), "registered", "highway", "highway_env", registers=True),
    Library(
        _of("gymnasium_robotics", rf"({ROBOTS}).*"), "registered", "robotics", "gymnasium_robotics", registers=True
    ),
    Library(
        _of("mo_gymnasium", rf"mo-.*|({GOALS})-.*v\d+"),
        "mo_gymnasium",
        module="mo_gymnasium",
        package="mo-gymnasium",
        registers=True,
    ),
    Library(_of("metaworld", "Meta-World/.*"), "registered", module="metaworld", package="metaworld", registers=True),
    Library(_in("safety_gymnasium"), "safety_gymnasium", module="safety_gymnasium", package="safety-gymnasium"),
    Library(_in("robohive"), "robohive", module="robohive", package="robohive"),
    Library(_in("isaaclab"), "isaaclab", module="isaaclab", package="isaaclab[isaacsim]"),
    Library(_in("gym"), "gym_old", module="gym", package="gym==0.26.2"),
    Library(lambda id: "box2d" in entry_point(id), "registered", "box2d", "Box2D"),
    Library(lambda id: "mujoco" in entry_point(id), "registered", "mujoco", "mujoco"),
    Library(_in("brax"), "brax", "jax", "brax"),
    Library(_in("jumanji"), "jumanji", "jax", "jumanji"),
    Library(lambda id: True, "registered"),
)


def library(id: str) -> Library:
    """The library that an environment's id belongs to."""
    return next(each for each in LIBRARIES if each.has(id))


def install(extra: str) -> str:
    """The command that installs an extra of whorl."""
    return f'pip install "whorl[{extra}]"'


def check_cpu(id: str, origin: str, device: str, prefer: str) -> None:
    """Raises BadInput where another stepper or another device was asked for than a library's that steps on the CPU."""
    if prefer not in ("native", origin):
        raise BadInput(f"prefer must be 'native' or {origin!r}, got {prefer!r}")
    if device != "cpu":
        raise BadInput(f"{id} is stepped by {origin} on the CPU, got device={device!r}")
