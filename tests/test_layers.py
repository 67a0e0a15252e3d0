"""The rules of the tree, read from the source: who may import whom, what may stand where, how long a file may be.

Every rule is a function of `tree`, a dict {path inside src/whorl: source}, that returns one sentence per breach.
Here they are held against the real tree; test_layers_rules.py tries them on small ones that break them.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "whorl"

# Imports only go down: room -> the rooms it may import. A room may always import itself and FREE, of which only `errors` is below
# all the others.
# "room.module" stands for one module and goes before its room's row.
_BASE = "functional batch spaces feeds envs nets transforms policies agents buffers collectors"
FREE = ("errors", "json_text", "folders", "files", "options", "jit", "dynamo", "counted")
TABLE = {
    "errors": "",
    "json_text": "",
    "folders": "json_text",
    "files": "folders json_text",
    "options": "",
    "jit": "",
    "dynamo": "",
    "counted": "",
    "functional": "",
    "feeds": "",
    "envs": "",
    "batch": "functional",
    "spaces": "functional",
    "nets": "functional batch spaces",
    "transforms": "functional batch spaces",
    # what goes around environments, and `make_env` with it
    "transforms.env": "functional batch spaces envs.env envs.guard",
    "transforms.layers": "functional batch spaces envs.env envs.guard",
    "transforms.chain": "functional batch spaces envs.env",
    "transforms.make": "functional batch spaces envs",
    "transforms.check": "functional batch spaces envs",
    "policies": "nets functional batch spaces",
    "agents": "policies nets functional batch spaces feeds",
    "buffers": "functional batch spaces transforms feeds",
    "collectors": "envs transforms policies functional batch spaces",
    "presets": _BASE,
    "training": _BASE + " presets",
    "apps": "",  # may import everything, and nobody imports it
}

WARN_LINES, MAX_LINES = 300, 500
SHORT_ROOMS = ("agents", "training", "collectors", "policies", "buffers")  # where WARN_LINES is the most
# the loop, the collector, the policy, the loss and the optimizer's step, with their maths; 1,690 since episodes can be lost and policies
# remember and share a torso with their critic
PPO_LINES = 1720
# what a reader of PPO meets, from the loop to the optimizer's step; its maths is added by what it imports from functional
PPO_FILES = (
    "agents/ppo.py",
    "agents/agent.py",
    "agents/parts.py",
    "agents/step.py",
    "agents/optimizers.py",
    "policies/policy.py",
    "policies/stochastic.py",
    "policies/distributions.py",
    "collectors/collector.py",
    "collectors/serial.py",
    "collectors/record.py",
    "collectors/ledger.py",
    "buffers/rollout.py",
    "training/loops/plain.py",
)
HEARTS = {"training/run.py": 200, "agents/agent.py": 100}  # files that everything meets in: most code lines
MATHS = re.compile(r"whorl\.functional\.")
NAMELESS = {"utils", "util", "common", "core", "misc"}
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CARRIES = {
    "envs/child.py": "cloudpickle"
}  # the one exception: classes and functions of the user's, to processes of our own
OWN_STREAMS = {"Generator", "BitGenerator", "SeedSequence", "default_rng", "PCG64", "PCG64DXSM", "Philox", "SFC64"}
TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
TORCH_DRAWS |= {"rand_like", "randn_like", "randint_like"}
INPLACE_DRAWS = {"normal_", "uniform_", "random_", "bernoulli_", "exponential_", "log_normal_", "cauchy_", "geometric_"}

Tree = dict[str, str]


def read(folder: Path) -> Tree:
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*.py"))}
    hidden = {inner for inner in paths if any(part.startswith(".") for part in inner.parts)}  # other environments
    return {inner.as_posix(): path.read_text() for inner, path in paths.items() if inner not in hidden}


@cache
def parse(source: str) -> ast.Module:
    """Once for all rules."""
    return ast.parse(source)


def module_name(path: str) -> str:
    """agents/ppo.py -> agents.ppo, nets/__init__.py -> nets."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def nodes(tree: Tree) -> Iterator[tuple[str, ast.AST]]:
    for path, source in tree.items():
        for node in ast.walk(parse(source)):
            yield path, node


def dotted(node: ast.AST) -> str:
    """`torch.random.seed` for the expression of that name; an unnameable head becomes ''."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(tree: Tree) -> Iterator[tuple[str, ast.Call, str, list[str]]]:
    """(path, call, dotted name, names of its keywords) of every call."""
    for path, node in nodes(tree):
        if isinstance(node, ast.Call):
            yield path, node, dotted(node.func), [k.arg or "**" for k in node.keywords]


def imported(path: str, node: ast.AST) -> list[str]:
    """The full dotted names that an import statement, or `import_module("...")`, brings in."""
    package = ["whorl", *Path(path).parent.parts]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else []
        return [".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names]
    if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in ("import_module", "__import__"):
        names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if names and names[0].startswith("."):
            level = len(names[0]) - len(names[0].lstrip("."))
            return [".".join([*package[: len(package) - level + 1], names[0].lstrip(".")])]
        return names[:1]
    return []


def imports(tree: Tree) -> Iterator[tuple[str, str]]:
    for path, node in nodes(tree):
        for name in imported(path, node):
            yield path, name


# ---------------------------------------------------------------------------------------------- the rules


def layers(tree: Tree) -> list[str]:
    found = []
    for path in tree:
        room = module_name(path).split(".")[0]
        if room not in TABLE and path not in ("__init__.py", "__main__.py"):
            found.append(f"{path}: the table has no room '{room}': put the file into a room, or design a new one first")
    for path, name in imports({p: s for p, s in tree.items() if not p.startswith("apps/")}):
        here, target = module_name(path), name.removeprefix("whorl.").split(".")
        room = here.split(".")[0]
        if (
            name.split(".")[0] != "whorl"
            or room not in TABLE
            or target[0] in (room, "__version__", *(FREE[:1] if room in FREE else FREE))
        ):
            continue
        allowed = TABLE.get(".".join(here.split(".")[:2]), TABLE[room]).split()
        if target[0] not in TABLE:  # `import whorl`, or a name of its table
            found.append(f"{path} imports {name}: import the module where the name is defined")
        elif target[0] not in allowed and ".".join(target[:2]) not in allowed:
            found.append(f"{path} imports {target[0]}: move the shared part down")
    return found


def tensordict_at_one_door(tree: Tree) -> list[str]:
    return [
        f"{path} imports {name}: only batch.py may, take what you need from there"
        for path, name in imports(tree)
        if name.split(".")[0] == "tensordict" and path != "batch.py"
    ]


def compiled_at_one_door(tree: Tree) -> list[str]:
    """Only there it is known what to do where numba has no place for its cache."""
    return [
        f"{path}:{getattr(node, 'lineno', 0)} names numba's {found}: only jit.py may, decorate with `whorl.jit.jit`"
        for path, node in nodes(tree)
        for found in ([a.name for a in node.names] if isinstance(node, ast.ImportFrom) else [dotted(node)])
        if found.removeprefix("numba.") in ("njit", "vectorize") and path != "jit.py"
    ]


def optimize_in_one_place(tree: Tree) -> list[str]:
    found = []
    for path, call, name, _ in calls(tree):
        last = name.split(".")[-1]
        receiver = ast.unparse(call.func.value).lower() if isinstance(call.func, ast.Attribute) else ""
        step = last == "step" and receiver and (path.startswith("agents/") or "optim" in receiver)
        backward = last == "backward" and (receiver or "autograd" in name)
        if path != "agents/step.py" and (step or backward or last.startswith("clip_grad")):
            found.append(f"{path}:{call.lineno} calls {ast.unparse(call.func)}: only agents/step.py does that")
    return found


def one_level_of_agents(tree: Tree) -> list[str]:
    """No agent inherits from another agent, and an agent has no base beside Agent."""
    bases: dict[str, tuple[str, list[str]]] = {}
    for path in (p for p in tree if p.startswith("agents/")):
        module = parse(tree[path])
        alias = {
            a.asname: a.name for n in ast.walk(module) if isinstance(n, ast.ImportFrom) for a in n.names if a.asname
        }
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef):
                heads = [b.value if isinstance(b, ast.Subscript) else b for b in node.bases]
                names = [dotted(b).split(".")[-1] for b in heads]
                bases[node.name] = path, [alias.get(n, n) for n in names]
    agents = {"Agent"}
    while grown := {name for name, (_, b) in bases.items() if agents & set(b)} - agents:
        agents |= grown
    return [
        f"{path}: {name}({', '.join(b)}) is an agent, so its only base is Agent: share functions and parts instead"
        for name, (path, b) in bases.items()
        if name in agents - {"Agent"} and b != ["Agent"]
    ]


def named_rooms(tree: Tree) -> list[str]:
    return [
        f"{path}: '{part}' says nothing: name the file after the one idea in it"
        for path in tree
        for part in map(str.lower, Path(path).with_suffix("").parts)
        if part.strip("_") in NAMELESS
    ]


def no_pickle(tree: Tree) -> list[str]:
    advice = "files and messages are data: safetensors and JSON"
    brought = [(path, name) for path, name in imports(tree) if name.split(".")[0] in PICKLES]
    found = [f"{path} imports {name}: {advice}" for path, name in brought if CARRIES.get(path) != name]
    for path, call, name, keywords in calls(tree):
        values = {k.arg: ast.unparse(k.value) for k in call.keywords}
        unsafe = name == "torch.load" and values.get("weights_only") != "True"
        unsafe |= name in ("eval", "exec", "builtins.eval", "builtins.exec")
        unsafe |= "allow_pickle" in keywords and values["allow_pickle"] != "False"
        if unsafe:
            found.append(f"{path}:{call.lineno} calls {name}: {advice}")
    return found


def no_global_streams(tree: Tree) -> list[str]:
    """Construction may draw from torch's global stream inside `with fork_rng()`, which gives it back as it was."""
    return [
        f"{path}:{line} uses {use}: draw from a generator of your own (np.random.Generator, torch.Generator)"
        for path, source in tree.items()
        for line, use in sorted(_global_draws(path, parse(source)))
    ]


def _global_draws(path: str, module: ast.Module) -> Iterator[tuple[int, str]]:
    forks = [n for n in ast.walk(module) if isinstance(n, ast.With) and "fork_rng(" in ast.unparse(n.items[0])]
    forked = {id(inner) for fork in forks for inner in ast.walk(fork)}
    for node in (n for n in ast.walk(module) if id(n) not in forked):
        line = getattr(node, "lineno", 0)
        for name in [dotted(node)] if isinstance(node, ast.Attribute) else imported(path, node):
            numpy_draw = re.match(r"(?:np|numpy)\.random\.(\w+)", name)
            stdlib = name.split(".")[0] == "random" and not isinstance(node, ast.Attribute)
            seeds = re.fullmatch(r"torch\.(\w+\.)?(manual_seed(_all)?|seed|set_rng_state(_all)?)", name)
            if stdlib or seeds or (numpy_draw and numpy_draw[1] not in OWN_STREAMS):
                yield line, name
        if isinstance(node, ast.Call) and "generator" not in [k.arg for k in node.keywords]:
            head, _, last = (name := dotted(node.func)).rpartition(".")
            in_place = (
                "." in name and last in INPLACE_DRAWS and not head.endswith("init")
            )  # nn.init runs at construction
            if in_place or (head == "torch" and last in TORCH_DRAWS):
                yield line, f"{name} without generator="


def no_circles(tree: Tree) -> list[str]:
    """No module imports, at its top or inside a function, one that imports it, over however many others."""
    modules = {f"whorl.{module_name(path)}" for path in tree}
    below: dict[str, set[str]] = {module: set() for module in modules}
    for path, name in imports(tree):
        target = name if name in modules else name.rpartition(".")[0]
        if target in modules and target != f"whorl.{module_name(path)}":
            below[f"whorl.{module_name(path)}"].add(target)
    found: set[frozenset[str]] = set()
    for module in sorted(modules):
        way: dict[str, str] = {}  # module -> the one that imports it, on a shortest way from `module`
        edge = [module]
        while edge and module not in way:
            way |= (new := {t: m for m in edge for t in sorted(below[m]) if t not in way})
            edge = list(new)
        if module in way:
            circle = [module, way[module]]
            while circle[-1] != module:
                circle.append(way[circle[-1]])
            found.add(frozenset(circle))
    return [
        f"{' and '.join(sorted(circle))} import each other in a circle: move the shared part down" for circle in found
    ]


OPEN = {"_replace", "_asdict", "_fields", "_make"}  # of every NamedTuple, and documented
OPEN |= {
    "_modules",
    "_parameters",
    "_buffers",
    "_inheriting",
    "_cache",
}  # of torch's modules, multiprocessing's processes and numba's functions, which have no public name for it
FOREIGN = ("torch", "os", "sys")  # other people's libraries: their private parts are no file of this tree


def no_private_reads(tree: Tree) -> list[str]:
    """`x._name` only where the same file gives something that name, so that a file's private parts may change with it alone."""
    found = []
    for path, source in tree.items():
        module = list(ast.walk(parse(source)))
        defined = {n.name for n in module if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
        defined |= {n.id for n in module if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        defined |= {
            n.attr
            for n in module
            if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store) and dotted(n.value) in ("self", "cls")
        }
        for node in module:
            reads = [("", 0)]
            if isinstance(node, ast.Attribute) and dotted(node.value) not in ("self", "cls"):
                reads = [(node.attr, node.lineno)] if dotted(node).split(".")[0] not in FOREIGN else []
            elif isinstance(node, ast.ImportFrom):
                reads = [(alias.name, node.lineno) for alias in node.names if node.module != "__future__"]
            elif isinstance(node, ast.Call) and dotted(node.func) in ("getattr", "setattr", "hasattr", "delattr"):
                names = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
                reads = [(str(name), node.lineno) for name in names]
            for name, line in reads:
                private = name.startswith("_") and not name.endswith("__")
                if private and name not in OPEN | defined:
                    found.append(
                        f"{path}:{line} reads {name}, a private part of another file: give it a public name there"
                    )
    return found


def no_probing(tree: Tree) -> list[str]:
    """A config or a feed is asked for what every one of its kind has."""
    found = []
    for path, call, name, _ in calls(tree):
        probes = name == "hasattr" or (name == "getattr" and len(call.args) > 2)
        if probes and re.search(r"\b(config|c|feed)$", ast.unparse(call.args[0])):
            found.append(
                f"{path}:{call.lineno} probes {ast.unparse(call)}: let the class answer by a field or a property"
            )
    return found


def feeds_answer(tree: Tree) -> list[str]:
    """Nobody but feeds.py asks which feed it has."""
    feeds = {node.name for node in parse(tree.get("feeds.py", "")).body if isinstance(node, ast.ClassDef)}
    found = []
    for path in (path for path in tree if path != "feeds.py"):
        whole = [name.rpartition(".")[::2] for _, name in imports({path: tree[path]})]
        known = {name for module, name in whole if module == "whorl.feeds"} & feeds | {
            f"feeds.{name}" for name in feeds
        }
        for node in ast.walk(parse(tree[path])):
            asked: list[ast.AST] = []
            if isinstance(node, ast.Call) and dotted(node.func) in ("isinstance", "issubclass"):
                asked = list(ast.walk(node.args[1]))
            elif isinstance(node, ast.MatchClass):
                asked = [node.cls]
            elif isinstance(node, ast.Compare) and "type(" in ast.unparse(node):
                asked = list(ast.walk(node))
            if found_here := sorted(known & {dotted(n) for n in asked}):
                line = getattr(node, "lineno", 0)
                found.append(f"{path}:{line} asks for {', '.join(found_here)}: let the feed answer by a property")
    return found


TYPED = ("agents/", "buffers/", "collectors/", "training/")


def no_any(tree: Tree) -> list[str]:
    """What others call in these rooms says what it takes and gives."""
    found = []
    for path in (path for path in tree if path.startswith(TYPED)):
        bodies = [parse(tree[path]).body]
        while bodies:
            for node in bodies.pop():
                name = getattr(node, "name", "_")
                if name.startswith("_") and not name.endswith("__"):
                    continue
                if isinstance(node, ast.ClassDef):
                    bodies.append(node.body)
                elif isinstance(node, ast.FunctionDef):
                    kinds = [a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg)] + [node.returns]
                    if any(isinstance(n, ast.Name) and n.id == "Any" for k in kinds if k for n in ast.walk(k)):
                        found.append(f"{path}:{node.lineno} {name} has Any in its signature: name the type")
    return found


def code_lines(source: str) -> int:
    """Lines that hold code: not blank, not only a comment, not part of a docstring."""
    quiet = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in quiet:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(parse(source)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def too_long(tree: Tree, short: tuple[str, ...] = SHORT_ROOMS) -> list[str]:
    rooms = {path: WARN_LINES if path.split("/")[0] in short else MAX_LINES for path in tree}
    most = {path: HEARTS.get(path, rooms[path]) for path in tree}
    return [
        f"{path} has {n} code lines, {most[path]} are allowed: split it by idea"
        for path, n in ((p, code_lines(s)) for p, s in tree.items())
        if n > most[path]
    ]


def ppo_reading(tree: Tree) -> dict[str, int]:
    """{path: code lines} of what one reads to understand PPO end to end."""
    reads = [
        name.split(".")[2] for _, name in imports({path: tree[path] for path in PPO_FILES[:3]}) if MATHS.match(name)
    ]
    maths = [
        path
        for path, source in tree.items()
        if MATHS.match("whorl." + module_name(path)) and not path.startswith("functional/kernels/")
        if Path(path).stem in reads or any(re.search(rf"^def {name}\(", source, re.MULTILINE) for name in reads)
    ]
    return {path: code_lines(tree[path]) for path in [*PPO_FILES, *maths]}


RULES = [
    layers,
    tensordict_at_one_door,
    compiled_at_one_door,
    optimize_in_one_place,
    one_level_of_agents,
    named_rooms,
    no_pickle,
    no_global_streams,
    too_long,
    no_circles,
    no_private_reads,
    no_probing,
    feeds_answer,
    no_any,
]

# ---------------------------------------------------------------------------------------------- the real tree


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_tree(rule) -> None:
    assert rule(read(SOURCE)) == []


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "examples"])
def test_tree_around_the_package(folder: str) -> None:
    tree = read(ROOT / folder)
    assert too_long(tree, short=()) + named_rooms(tree) == []


def test_long_files_are_mentioned() -> None:
    for path, source in read(SOURCE).items():
        if (n := code_lines(source)) > WARN_LINES:
            warnings.warn(f"{path} has {n} code lines (above {WARN_LINES}): does it still hold one idea?", stacklevel=1)


def test_ppo_reads_in_one_sitting() -> None:
    reading = ppo_reading(read(SOURCE))
    assert any(path.startswith("functional/") for path in reading), "agents/ppo.py shows none of its maths"
    assert sum(reading.values()) < PPO_LINES, reading


def fresh(code: str, *arguments: str) -> list[str]:
    """The lines that `code` prints in a fresh process; its last one is 'done'."""
    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    *lines, last = process.stdout.splitlines()
    assert last == "done", process.stdout
    return lines


IMPORT_EACH = """
import importlib, sys
for name in sys.argv[1:]:
    for known in [m for m in sys.modules if m.split(".")[0] == "whorl"]:
        del sys.modules[known]  # each module must be light, and importable, on its own
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name.split(".")[0] == "whorl":
            raise  # anything else is an extra that is not installed here
    heavy = [m for m in ("torch", "tensordict") if m in sys.modules]
    if heavy:
        print(f"importing {name} brings {' and '.join(heavy)} along")
        break  # they stay, so the next modules cannot be judged
print("done")
"""
LIGHT = ("envs", "errors", "feeds", "json_text", "folders", "files", "options")
DEVICE_WORLDS = ("envs/native/device.py",)  # worlds in torch, for accelerators


def light_modules(tree: Tree) -> list[str]:
    paths = [p for p in tree if module_name(p).split(".")[0] in LIGHT and p not in DEVICE_WORLDS]
    return ["whorl", *("whorl." + module_name(p) for p in paths)]


def test_environments_need_no_torch() -> None:
    modules = light_modules(read(SOURCE))
    assert len(modules) > 5
    assert fresh(IMPORT_EACH, *modules) == []


def test_help_needs_no_torch() -> None:
    lines = fresh(
        "import sys; sys.argv = ['whorl', '--help']\n"
        "from whorl.apps.cli import main\n"
        "try: code = main()\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = [m for m in ('torch', 'tensordict') if m in sys.modules]\n"
        "print(f'exit {code or 0}, imported {heavy}'); print('done')"
    )
    assert lines[-1] == "exit 0, imported []"
    assert any("train" in line for line in lines)


if __name__ == "__main__":  # what is left to do
    for breach in [breach for rule in RULES for breach in rule(read(SOURCE))]:
        print(breach)
