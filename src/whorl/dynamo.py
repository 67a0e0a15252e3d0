"""torch's compiler, `torch._dynamo`, comes where something is compiled: it takes as long to import as torch (docs/design/021-start.md).

Where this file knows no way around it, as in another torch or tensordict, it comes early: a slower start, and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from inspect import unwrap
from types import MethodType, ModuleType
from typing import Any, TypeVar

import torch

COMPILER = "torch._dynamo"
MARKS = (
    "allow_in_graph",
    "assume_constant_result",
)  # of `torch.compiler`: decorators that say something to the compiler

O = TypeVar("O", bound=torch.optim.Optimizer)


@contextmanager
def marks_later() -> Iterator[None]:
    """Inside the block, functions that are marked for the compiler are remembered; they get their marks when it is imported.

    Whoever imports it, and before it compiles anything. Nothing is left changed after the block.
    """
    if COMPILER in sys.modules:
        yield
        return
    real = {name: getattr(torch.compiler, name) for name in MARKS}
    due = _Due(real)
    sys.meta_path.insert(0, due)
    for name in MARKS:
        setattr(torch.compiler, name, due.mark(name))
    try:
        yield
    finally:
        for name in MARKS:
            setattr(torch.compiler, name, real[name])


class _Due:
    """Marks that are due when the compiler is imported: a finder of that one module."""

    def __init__(self, real: dict[str, Callable]):
        self.real = real
        self.functions: list[tuple[str, Callable]] = []

    def mark(self, name: str) -> Callable[[Any], Any]:
        def noted(function: Any) -> Any:
            if COMPILER in sys.modules or not callable(function):
                return self.real[name](function)
            self.functions.append((name, function))
            return function

        return noted

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The compiler as the other finders find it, whose marks are put on as soon as it is loaded."""
        if name != COMPILER:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, others), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_mark(module: ModuleType) -> None:
            load(module)
            sys.meta_path.remove(self)
            for mark, function in self.functions:
                self.real[mark](function)

        spec.loader.exec_module = load_and_mark  # type: ignore[method-assign]
        return spec


def make(kind: type[O], *arguments: Any, **settings: Any) -> O:
    """An optimizer of torch's: `kind(*arguments, **settings)`.

    torch wraps `add_param_group`, which the constructor calls, so that the compiler passes it over, and imports the compiler for that.
    """
    optimizer = kind.__new__(kind)
    own = vars(optimizer)
    own["add_param_group"] = MethodType(unwrap(kind.add_param_group), optimizer)
    kind.__init__(optimizer, *arguments, **settings)
    del own["add_param_group"]
    return optimizer
