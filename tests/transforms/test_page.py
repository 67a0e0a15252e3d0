"""docs/transforms.md holds one row for each transform, made from its docstring: `python tests/transforms/test_page.py` writes them."""

import inspect
import re
from pathlib import Path

from whorl.transforms.chain import TRANSFORMS, known_transforms, transform_class

PAGE = Path(__file__).parents[2] / "docs" / "transforms.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of the table -->\n"
HEAD = "| name | class | what it does | TorchRL | Gymnasium |\n|---|---|---|---|---|\n"


def row(name: str) -> str:
    cls, (arguments, about) = transform_class(name), known_transforms()[name]
    about = about.replace("|", "\\|")
    names = f"{peer(cls, 'TorchRL')} | {peer(cls, 'Gymnasium')}"
    return f"| `{name}` | `{cls.__name__}({arguments})` | {about} | {names} |\n"


def peer(cls: type, library: str) -> str:
    """Its name for it: what stands behind "TorchRL: " in the docstring, up to a semicolon or the end of the sentence."""
    text = " ".join(inspect.getdoc(cls).split())
    found = re.search(rf"{library}: (.+?)(?:;|\.(?: |$))", text)
    return f"`{found[1]}`" if found else "-"


def table() -> str:
    """A part for each file, in the order of the table in the code."""
    files: dict[str, list[str]] = {}
    for name, where in TRANSFORMS.items():
        if isinstance(where, str):  # not one that another test has registered
            files.setdefault(where.partition(":")[0], []).append(name)
    return "\n".join(f"### {file.capitalize()}\n\n{HEAD}{''.join(map(row, names))}" for file, names in files.items())


def parts(page: str) -> tuple[str, str, str]:
    before, _, rest = page.partition(BEGIN)
    old, _, after = rest.partition(END)
    return before + BEGIN, old, END + after


def test_the_page_has_every_transform():
    assert parts(PAGE.read_text())[1] == table()


if __name__ == "__main__":
    before, _, after = parts(PAGE.read_text())
    PAGE.write_text(before + table() + after)
