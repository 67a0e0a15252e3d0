"""Every snippet of README and docs does what it says: python and shell blocks are run, set-up lines are checked.

The blocks of one document run in order, in one process and one temporary folder; its python blocks share their names.
A python block that names a file (```python vmpo.py) is written into it, for the blocks below to import.
A block is left out only below a comment `<!-- not run: why -->`. Output and other text is tagged text or console.
Files in examples/ are run too.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.py")])
NEEDS = {"atari.md": "ale_py"}  # modules without which a page is skipped
RUN, SHOWN = {"python": "python", "bash": "bash", "sh": "bash"}, {"text", "console"}
SECONDS_PER_BLOCK = 600  # against hanging

# Runs in the child. Lines are padded so that a traceback names the line of the document.
DRIVER = """
import json, subprocess, sys
if __name__ == "__main__":
    document, names = sys.argv[1], {"__name__": "__main__"}
    sys.path.append(".")
    for language, line, source in json.load(open(sys.argv[2])):
        print(f"== {document}:{line} ({language})", flush=True)
        if language == "python":
            exec(compile("\\n" * line + source, document, "exec"), names)
        elif language.endswith(".py"):
            open(language, "w").write(source)
        elif code := subprocess.run(["bash", "-euo", "pipefail", "-c", source]).returncode:
            sys.exit(f"{document}:{line}: exit code {code}")
"""


class Block(NamedTuple):
    language: str  # or the file that it is
    line: int  # of the opening fence
    source: str


def blocks(text: str) -> tuple[list[Block], list[str]]:
    """The blocks to run, and one sentence for each that is not tagged, not closed or left out without a reason."""
    found, complaints = [], []
    lines = text.splitlines()
    above, i = "", 0
    while i < len(lines):
        fence = re.match(r"( *)(`{3,}|~{3,})\s*(\S*) *(\S*)", lines[i])
        if not fence:
            above = lines[i].strip() or above
            i += 1
            continue
        indent, mark, language, file = fence.groups()
        end = next((j for j in range(i + 1, len(lines)) if lines[j].strip() == mark), None)
        if end is None:
            return found, [*complaints, f"line {i + 1}: the block is never closed"]
        left_out = re.match(r"<!--\s*not run:(.*)-->$", above)
        if left_out and not left_out[1].strip():
            complaints.append(f"line {i + 1}: 'not run' needs a reason")
        elif language in RUN and not left_out:
            source = "\n".join(line.removeprefix(indent) for line in lines[i + 1 : end]) + "\n"
            found.append(Block(file or RUN[language], i + 1, source))
        elif language not in SHOWN and not left_out:
            complaints.append(f"line {i + 1}: tag '{language}' is none of {', '.join([*RUN, *sorted(SHOWN)])}")
        above, i = "", end + 1
    return found, complaints


def plain(command: list[str]) -> list[str]:
    """`.venv/bin/python -m pip install x` and its like as `pip install x`."""
    words = [Path(command[0]).name, *command[1:]] if command else []
    return words[2:] if words[1:2] == ["-m"] else words


def split_setup(source: str) -> tuple[str, list[list[str]]]:
    """A shell block without its set-up lines (clone, install, make), and the commands of those lines as words."""
    kept, setup, clone = [], [], ""
    for line in source.replace("\\\n", " ").splitlines():
        try:
            commands = [plain(shlex.split(part, comments=True)) for part in line.split("&&")]
        except ValueError:  # a quote that goes on in the next line
            commands = [[]]
        for command in commands:
            if command[:2] == ["git", "clone"]:
                clone = command[-1].rsplit("/", 1)[-1].removesuffix(".git")
        known = [["cd", clone], ["source", ".venv/bin/activate"], [".", ".venv/bin/activate"]]
        starts = (["make"], ["venv"], ["git", "clone"], ["pip", "install"])
        if all(c in known or c[:1] in starts or c[:2] in starts for c in commands):
            setup += commands
        else:
            kept.append(line)
    return "\n".join(kept) + "\n", setup


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))


def wrong_setup(command: list[str]) -> list[str]:
    """What a `make` or `pip install` line asks for that Makefile or pyproject.toml does not offer."""
    wanted = [word for word in command[1:] if not word.startswith("-") and "=" not in word and "://" not in word]
    if command[0] == "make":
        return [f"Makefile has no target '{t}'" for t in wanted if t not in make_targets()]
    if command[:2] != ["pip", "install"]:
        return []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = []
    for word in wanted[1:]:
        name, extras = re.fullmatch(r"([^\[\]]+)(?:\[(.*)\])?", word).groups()  # type: ignore[union-attr]
        if name not in (".", "whorl"):
            found.append(f"'{name}' is not this project")
        unknown = set((extras or "").replace(" ", "").split(",")) - {"", *project["optional-dependencies"]}
        found += [f"pyproject.toml has no extra '{extra}'" for extra in sorted(unknown)]
    return found


def run_blocks(document: str, todo: list[Block], folder: Path, guard: float = SECONDS_PER_BLOCK) -> tuple[int, str]:
    """(exit code, output) of the blocks, run in `folder` by a process of their own; killed if they seem to hang."""
    (folder / "driver.py").write_text(DRIVER)
    (folder / "blocks.json").write_text(json.dumps(todo))
    work = folder / "work"
    work.mkdir()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    log = folder / "output.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(folder / "driver.py"), document, str(folder / "blocks.json")],
            cwd=work,
            env=os.environ | {"PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=guard * len(todo))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    return code, log.read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
@pytest.mark.timeout(0)  # run_blocks has its own guard, by the number of blocks
def test_document(path: Path, tmp_path: Path) -> None:
    if module := NEEDS.get(path.name):
        pytest.importorskip(module, reason=f"{path.name} needs the module {module}")
    if path.suffix == ".py":
        found, complaints = [Block("bash", 0, f"python {shlex.quote(str(path))}")], []
    else:
        found, complaints = blocks(path.read_text())
    todo = []
    for block in found:
        source, setup = split_setup(block.source) if block.language == "bash" else (block.source, [])
        complaints += [f"line {block.line}: {c}" for command in setup for c in wrong_setup(command)]
        todo += [block._replace(source=source)] if source.strip() else []
    assert complaints == []
    if todo:
        code, output = run_blocks(str(path), todo, tmp_path)
        assert code == 0, output


def test_readme_and_ci_agree() -> None:
    """The README gives the two commands that do everything; CI runs them, word for word."""
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    commands = [shlex.join(c) for b in blocks(readme)[0] if b.language == "bash" for c in split_setup(b.source)[1]]
    for command in ("make demo", "make test"):
        assert command in commands
        assert re.search(rf"^phase {command}$", ci, re.MULTILINE)


# ---------------------------------------------------------------------------------------------- the checks themselves

TEXT = """\
```python
x = 1
```
<!-- not run: needs a display -->
```bash
whorl play runs/last
```
- in a list:

  ```sh
  echo "hello" > said
  ```

```text
anything
```
"""


def test_blocks_are_found() -> None:
    assert blocks(TEXT) == ([Block("python", 1, "x = 1\n"), Block("bash", 10, 'echo "hello" > said\n')], [])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```\nx\n```\n", "line 1: tag ''"),
        ("```json\n{}\n```\n", "line 1: tag 'json'"),
        ("<!-- not run: -->\n```python\nx\n```\n", "needs a reason"),
        ("```python\nx\n", "never closed"),
    ],
)
def test_a_bad_block_is_named(text: str, complaint: str) -> None:
    assert complaint in blocks(text)[1][0]


def test_a_reason_counts_only_directly_above() -> None:
    assert blocks("<!-- not run: slow -->\nWords.\n```python\nx\n```\n")[0] == [Block("python", 3, "x\n")]


def test_setup_is_told_from_work() -> None:
    source = (
        "git clone https://host/whorl.git && cd whorl  # get it\nmake demo\nwhorl list agents && cd runs\ncd other\n"
    )
    kept, setup = split_setup(source)
    assert kept == "whorl list agents && cd runs\ncd other\n"
    assert setup == [["git", "clone", "https://host/whorl.git"], ["cd", "whorl"], ["make", "demo"]]
    assert split_setup("python -c 'x = 1\nmake(x)'\n") == ("python -c 'x = 1\nmake(x)'\n", [])
    assert split_setup("python3 -m venv .venv && .venv/bin/pip install \\\n  -e '.[dev]'\n") == (
        "\n",
        [["venv", ".venv"], ["pip", "install", "-e", ".[dev]"]],
    )


@pytest.mark.parametrize(
    ("command", "complaints"),
    [
        ("make test JOBS=4", []),
        ("make tests", ["Makefile has no target 'tests'"]),
        ("pip install -e .[dev,box2d]", []),
        ("pip install whorl[nothing]", ["pyproject.toml has no extra 'nothing'"]),
        ("pip install whirl", ["'whirl' is not this project"]),
    ],
)
def test_setup_is_checked(command: str, complaints: list[str]) -> None:
    assert wrong_setup(command.split()) == complaints


def test_blocks_share_names_and_folder(tmp_path: Path) -> None:
    todo = [
        Block("python", 1, "x = 2"),
        Block("bash", 5, "echo 3 > said; which python"),
        Block("python", 9, "print(x + int(open('said').read()))"),
    ]
    code, output = run_blocks("doc.md", todo, tmp_path)
    assert code == 0
    assert output.splitlines()[-1] == "5"
    assert str(Path(sys.executable).parent) in output


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (Block("python", 7, "x = 1\nassert x == 2\n"), 'File "doc.md", line 9'),
        (Block("bash", 7, "false | cat\n"), "doc.md:7: exit code 1"),
    ],
)
def test_a_failing_block_fails(block: Block, said: str, tmp_path: Path) -> None:
    code, output = run_blocks("doc.md", [block], tmp_path)
    assert code == 1
    assert said in output


def test_a_hanging_block_is_killed(tmp_path: Path) -> None:
    assert run_blocks("doc.md", [Block("bash", 1, "sleep 1000")], tmp_path, guard=0.1)[0] == -signal.SIGKILL
