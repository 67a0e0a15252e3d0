"""How MuJoCo draws where there is no display."""

from __future__ import annotations

import ctypes.util
import os
import sys


def draw_offscreen() -> None:
    """From now on what draws with MuJoCo uses EGL, where there is no display, EGL is installed and nobody has said otherwise.

    Before dm_control is imported: it chooses then, and takes a window's library first, which fails at the first picture.
    """
    chosen = "MUJOCO_GL" in os.environ or os.environ.get("DISPLAY") or sys.platform != "linux"
    if not chosen and ctypes.util.find_library("EGL"):
        os.environ["MUJOCO_GL"] = "egl"
