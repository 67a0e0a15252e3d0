"""Scalars for TensorBoard."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from whorl import options
from whorl.batch import Arrays, Numbers, State
from whorl.errors import Damaged
from whorl.files import Lines
from whorl.folders import Folder, make
from whorl.training.loggers import Logger


class TensorBoard(Logger):
    """Writes an event file into `folder`, one record per call, no thread: what was logged is in the file, an error is
    raised where it happens, and no record is there in part. `purge_step`: TensorBoard forgets what older files say about
    this step and later ones.

    tensorboard's own record writer, because torch's SummaryWriter takes longer to import and writes from a thread.
    """

    def __init__(self, folder: str | Path, purge_step: int | None = None):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._session, self._summary = Event, SessionLog, Summary
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        make(Path(folder).absolute().parent)
        with Folder.inside(folder, make=True) as inside:
            self._writer = RecordWriter(Lines(inside.path / name, inside))
        self._last = 0
        self._write(file_version="brain.Event:2")
        if purge_step is not None:
            self._purge(purge_step)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        values = [self._summary.Value(tag=name, simple_value=float(value)) for name, value in metrics.items()]
        self._write(step=int(step), summary=self._summary(value=values))
        self._last = int(step)

    def state(self) -> State:
        """The last step logged."""
        return {}, {"step": self._last}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Makes TensorBoard forget all later steps, in older files too."""
        if not 0 <= numbers["step"] < options.MOST - 1:
            raise Damaged(f"{numbers['step']} is no step that was logged: {options.CHANGED}")
        self._last = numbers["step"]
        self._purge(self._last + 1)
        return True

    def close(self) -> None:
        self._writer.close()

    def _purge(self, step: int) -> None:
        self._write(step=step, session_log=self._session(status=self._session.START))

    def _write(self, **fields: object) -> None:
        self._writer.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._writer.flush()
