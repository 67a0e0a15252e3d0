"""The slots of a sweep: how many of its runs go on at a time, and the cores and the GPU that each has for itself."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from whorl.errors import BadInput

QUOTA = Path("/sys/fs/cgroup/cpu.max")
FORM = re.compile(r"(?:([1-9]\d{0,3})|gpu:(\d{1,4}(?:,\d{1,4})*))(?:\s*x\s*([1-9]\d{0,3}))?", re.ASCII)


@dataclass(frozen=True, eq=False)
class Slot:
    """One run at a time. cores: none = wherever the system puts it. gpu: as CUDA names it; "" = all that this process sees."""

    cores: tuple[int, ...] = ()
    gpu: str = ""

    @contextmanager
    def entered(self) -> Iterator[dict[str, str]]:
        """Processes that are started in the block have the slot's cores from their first instruction on; it gets the variables of their
        environment."""
        own = os.sched_getaffinity(0) if self.cores else set[int]()  # of this thread, the one that starts them
        try:
            if self.cores:
                os.sched_setaffinity(0, self.cores)
            yield {"CUDA_VISIBLE_DEVICES": self.gpu} if self.gpu else {}
        finally:
            if self.cores:
                os.sched_setaffinity(0, own)

    def __str__(self) -> str:
        cores = f"core{'s' * (len(self.cores) > 1)} {','.join(map(str, self.cores))}" if self.cores else ""
        return ", ".join(filter(None, [f"gpu {self.gpu}" if self.gpu else "", cores]))


def read_slots(given: object = None) -> list[Slot]:
    """2 or "2" -> two slots whose runs share the cores; "2x1" -> two of one core each; "gpu:0,1 x2" -> one on each of these GPUs, with two
    cores each ("gpu:0,0" -> two on one GPU). None -> as many as there are cores, which they share.

    Cores are those that this process may use, the first slot has the first of them; GPUs are counted among those that it sees.
    Raises BadInput for another form, for more cores than there are, and for a GPU that is not seen.
    """
    cores = allowed_cores()
    if given is None:
        return [Slot() for _ in cores]
    found = FORM.fullmatch(str(given).strip())
    if not found or isinstance(given, bool):
        raise BadInput(
            "slots are a number of runs at a time (2), also with the cores of each (2x1), or GPUs for one each, with or without cores "
            f"(gpu:0,1 x2); got {given!r}"
        )
    gpus = [_gpu(int(number), given) for number in found[2].split(",")] if found[2] else [""] * int(found[1])
    each = int(found[3] or 0)
    if each and not hasattr(os, "sched_setaffinity"):
        raise BadInput(f"slots = {given} gives each run cores of its own, which this system cannot: leave out x{each}")
    if len(gpus) * each > len(cores):
        raise BadInput(
            f"slots = {given} needs {len(gpus) * each} cores, but this process may use {len(cores)}: take fewer, or leave out x{each}, "
            "and the runs share them"
        )
    return [Slot(tuple(cores[k * each : (k + 1) * each]), gpu) for k, gpu in enumerate(gpus)]


def allowed_cores() -> list[int]:
    """The cores that this process may use: those of its affinity mask, which its control group's are in, and no more of them than the
    time that the group is given. Those of the machine where the system does not tell."""
    mask = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]
    with suppress(OSError, ValueError):  # no such group, or "max"
        quota, period = map(int, QUOTA.read_text().split())
        return mask[: max(1, quota // period)]
    return mask


def check_device(slots: list[Slot], devices: Iterable[object]) -> None:
    """Raises BadInput for slots of GPUs whose runs compute elsewhere. devices: those that the runs are given."""
    if slots[0].gpu and (other := [device for device in devices if device not in ("cuda", "cuda:0")]):
        raise BadInput(f"a slot of a GPU shows its run that one alone, which is device='cuda' to it; got {other[0]!r}")


def _gpu(number: int, given: object) -> str:
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [*filter(None, seen.split(","))] if seen is not None else [*map(str, range(torch.cuda.device_count()))]
    if number >= len(names):
        raise BadInput(f"slots = {given}: there is no GPU {number}; this process sees {len(names)}, counted from 0")
    return names[number]
