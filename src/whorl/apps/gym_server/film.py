"""One video of the monitor: frames in while the episode goes on, the file and its description at its end."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from whorl.errors import EnvError
from whorl.folders import Folder

GIF_FRAMES, MP4_FRAMES = 250, 10_000  # of one video: a GIF leaves frames out, an mp4 stops


class Film:
    """One video: an mp4 where the extra "video" is installed, a GIF of at most GIF_FRAMES frames otherwise."""

    def __init__(self, folder: Folder, name: str, episode: int, fps: float) -> None:
        self._kind = "mp4" if importlib.util.find_spec("imageio_ffmpeg") else "gif"
        self._folder, self._file, self._meta = folder, f"{name}.{self._kind}", f"{name}.meta.json"
        self._place: tempfile.TemporaryDirectory | None = None  # of the encoder, which wants a file, while it runs
        self._episode, self._fps = episode, fps
        self._frames: list[np.ndarray] = []  # of a GIF, every `_stride`-th
        self._stride, self._count = 1, 0
        self._stream: Any = None  # of an mp4

    def add(self, frame: np.ndarray) -> None:
        """frame: [height, width, 3] uint8."""
        if frame.ndim != 3 or frame.shape[2] != 3:
            raise EnvError(f"a picture must be [height, width, 3], the environment drew {frame.shape}")
        if self._kind == "mp4" and self._count < MP4_FRAMES:
            import imageio.v2 as imageio

            if self._stream is None:  # macro_block_size: the codec needs even sides
                self._place = tempfile.TemporaryDirectory(prefix="whorl-")
                draft = Path(self._place.name) / self._file
                self._stream = imageio.get_writer(draft, "FFMPEG", fps=self._fps, macro_block_size=2)
            self._stream.append_data(frame)
        elif self._kind == "gif" and self._count % self._stride == 0:
            shrink = 1 + frame.shape[0] // 400
            self._frames.append(frame[::shrink, ::shrink].copy())
            if len(self._frames) > GIF_FRAMES:
                self._frames, self._stride = self._frames[::2], self._stride * 2
        self._count += 1

    def close(self) -> list[str]:
        """Puts the video and its description in place; returns their names."""
        if self._place is not None:
            self._stream.close()
            data = (Path(self._place.name) / self._file).read_bytes()
        else:
            import imageio.v3 as imageio

            duration = 1000 * self._stride / self._fps  # of a frame, in ms
            data = imageio.imwrite("<bytes>", np.stack(self._frames), extension=".gif", duration=duration, loop=0)
        self._folder.write(self._file, data)
        content = {"mp4": "video/mp4", "gif": "image/gif"}[self._kind]
        meta = {"episode_id": self._episode, "content_type": content, "frames_drawn": self._count}
        self._folder.write_json(self._meta, meta)
        return [self._file, self._meta]

    def discard(self) -> None:
        """Stops the encoder, if one runs, and removes what it wrote."""
        with contextlib.suppress(Exception):  # whatever the encoder says of an episode that nobody wants
            if self._stream is not None:
                self._stream.close()
        if self._place is not None:
            self._place.cleanup()
