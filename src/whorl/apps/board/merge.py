"""Boards into one: a board is a folder of entries, so joining boards is copying folders that are intact."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from whorl.apps.board import entry
from whorl.apps.board.forms import printable
from whorl.errors import Damaged


@dataclass
class Merged:
    """Ids, and one sentence for each entry that was not copied."""

    added: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)  # were there already
    problems: list[str] = field(default_factory=list)


def merge(sources: Iterable[str | Path], into: str | Path) -> Merged:
    """Copies the entries of boards into the board `into`, which is made if it is not there.

    Each is checked before it is copied, and appears all at once. An entry's id is a hash of what it says, so two of one id are one.
    What is damaged, in a source or under the same id in `into`, is left as it is and reported. Raises BadInput, before anything is
    written, when a source is no board; OSError when writing fails: what was copied until then stays.
    """
    found = [path for source in sources for path in entry.folders(source)]
    done = Merged()
    for path in found:
        target = Path(into) / "entries" / path.name
        there = target.exists()
        try:
            files = entry.contents(path)
            entry.parse(files, path)
            entry.publish(into, files)
        except Damaged as error:
            done.problems.append(printable(str(error)))
        else:
            (done.present if there else done.added).append(path.name)
    return done
