"""MuJoCo's warnings, said once each. By itself it writes each one to stderr and a log file, for every environment that is made."""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
import warnings

_said: set[str] = set()  # without their numbers: times and indexes differ


def say_once(make_sure: bool) -> None:
    """From now on MuJoCo's warnings are Python's, one of each text, unless somebody has taken them already. make_sure: MuJoCo is
    imported for it, where it is installed; else this is for a MuJoCo that is here."""
    if "mujoco" not in sys.modules and not (make_sure and importlib.util.find_spec("mujoco")):
        return
    import mujoco

    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_say)


def _say(text: str) -> None:
    kind = re.sub(r"[\d.]+", "", text)
    if kind not in _said:
        _said.add(kind)
        try:
            warnings.warn(f"MuJoCo: {text}", RuntimeWarning, stacklevel=1)
        except RuntimeWarning:  # where warnings are errors: through C none may pass, it would end the process
            logging.getLogger("whorl").warning("MuJoCo: %s", text)
