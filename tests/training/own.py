"""V-MPO, the agent from outside: the file that docs/add/algorithm.md shows, as a user would have it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "add" / "algorithm.md"


@pytest.fixture(scope="module")  # the name that it registers goes with it
def vmpo(tmp_path_factory):
    """The module, in a folder of its own that is on the path."""
    from whorl.training.catalog import AGENTS

    folder = tmp_path_factory.mktemp("outside")
    found = re.search(r"```python vmpo\.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    (folder / "vmpo.py").write_text(found[1])
    sys.path.append(str(folder))
    import vmpo  # type: ignore[import-not-found]

    yield vmpo
    sys.path.remove(str(folder))
    del sys.modules["vmpo"], AGENTS["vmpo"]
