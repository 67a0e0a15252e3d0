"""Prioritized experience replay, proportional (Schaul et al. 2016): rows are drawn in proportion to (priority + eps)**alpha."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from whorl.batch import Arrays, Numbers, State
from whorl.buffers.parts import Draw, Storage
from whorl.buffers.sample_uniform import Uniforms, empty
from whorl.buffers.sum_tree import SumTree, check, kernels, wrong
from whorl.errors import BadInput
from whorl.spaces import restored

EPS = 1e-6  # so that a row of priority 0 can still be drawn


class Priorities:
    """The priorities of whatever lies in a window that moves along `lanes` rings of `ring` places.

    Number k of lane e has the index k * lanes + e and the leaf index % (ring * lanes); it is inside while low[e] <= k < high[e].
    Leaves inside are (priority + eps)**alpha, all others 0. Every priority is raised to alpha here and nowhere else.
    """

    def __init__(self, lanes: int, ring: int, alpha: float, device: torch.device | str, backend: str | None = None):
        self.lanes, self.ring, self.alpha = lanes, ring, alpha
        self.tree = SumTree(lanes * ring, device, backend)
        # float32 priorities are raised in float32: half the time
        self._exponents = {torch.float32: (np.float32(alpha), np.float32(EPS)), torch.float64: (alpha, EPS)}
        self.largest = 1.0  # the largest priority there ever was
        self._window(np.zeros(lanes, np.int64), np.zeros(lanes, np.int64))

    def move(
        self,
        low: np.ndarray,
        high: np.ndarray,
        initial: float | None = None,
        given: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """The window is [low, high) from now on (arrays that nobody writes to any more).

        What left it gets leaf 0, for good. What came in gets given(index) as its first priority if there is `given`, else
        `initial`, else the largest there ever was.
        Raises BadInput if `high` would move back, or for what `given` gives; then nothing has changed.
        """
        low = np.maximum(
            low, self.low
        )  # while another process is writing, a storage withholds rows and gives them back
        if np.array_equal(high, self.high) and np.array_equal(low, self.low):
            return
        if (high < self.high).any():
            raise BadInput(
                f"the sampler knows rows up to {self.high.tolist()} of each lane, the storage holds {high.tolist()}: "
                "load the state of both from one checkpoint"
            )
        tree, priority = self.tree, None
        if given is not None:
            fresh = self._indexes(np.maximum(self.high, low), high)
            priority = given(fresh)
            check("stored priority", priority)
        value = ((self.largest if initial is None else initial) + EPS) ** self.alpha
        if tree.backend == "numba":
            kernels().slide(tree.array, tree.starts, self.low, self.high, low, high, self.ring, value)
        else:
            gone = self._indexes(self.low, np.minimum(self.high, low))
            new = self._indexes(np.maximum(self.high, low), high)
            leaves = torch.zeros(len(gone) + len(new), dtype=torch.float64, device=tree.device)
            leaves[len(gone) :] = value
            tree.set(torch.cat([gone, new]) % tree.size, leaves)
        self._window(low, high)
        if priority is not None:
            self.update(fresh, priority)

    def draw(self, uniform: np.ndarray, beta: float) -> tuple[Tensor, Tensor]:
        """(index int64 [B], weight float32 [B]) for numbers `uniform` [B] in [0, 1), float64.

        Stratified (Schaul et al. 2016, appendix B.2.1): draw i takes the leaf at mass (i + uniform[i]) / B * total.
        weight_i = (N P(i))**-beta / max_j (N P(j))**-beta = (min_j leaf_j / leaf_i)**beta: N and the total cancel.
        """
        tree, size = self.tree, len(uniform)
        if tree.backend == "numba":
            index, weight = torch.empty(size, dtype=torch.int64), torch.empty(size)
            kernels().draw(
                tree.array, tree.starts, uniform, self.low, self._first, self.ring, np.float32(beta), index.numpy(), weight.numpy()
            )  # fmt: skip
            return index, weight
        step = tree.nodes[0] / size
        slots = tree.find(torch.from_numpy(np.arange(size) + uniform).to(tree.device) * step)
        leaf = tree.leaves[slots]
        lane = slots % self.lanes
        low, _, first = self._on_device
        index = (low[lane] + (slots // self.lanes - first[lane]) % self.ring) * self.lanes + lane
        return index, (leaf.min() / leaf).float() ** beta

    def update(self, index: Tensor, priority: Tensor) -> None:
        """leaf[index[i]] = (priority[i] + eps)**alpha, [n] both; what is no longer inside the window is ignored.

        Raises BadInput for a priority that is NaN, negative or infinite; then nothing has changed.
        """
        if priority.requires_grad:
            priority = priority.detach()
        if index.shape != priority.shape or index.ndim != 1:
            raise BadInput(
                f"feedback needs one priority for each index, got {list(priority.shape)} for {list(index.shape)}"
            )
        tree = self.tree
        if tree.backend == "numba":
            if priority.dtype not in self._exponents:
                priority = priority.float()
            alpha, eps = self._exponents[priority.dtype]
            numbers = priority.cpu().contiguous().numpy()
            bad, self.largest = kernels().update(
                tree.array, tree.starts, index.cpu().contiguous().numpy(), numbers, self.low, self.high, self._first, self.ring,
                alpha, eps, self.largest,
            )  # fmt: skip
            if bad >= 0:
                raise wrong("priority", priority, bad)
            return
        check("priority", priority)
        index, priority = index.to(tree.device), priority.to(tree.device)
        row, lane = index // self.lanes, index % self.lanes
        low, high, _ = self._on_device
        inside = (low[lane] <= row) & (row < high[lane])
        index, priority = index[inside], priority[inside]
        if len(index):
            tree.set(index % tree.size, (priority + EPS).pow(self.alpha).double())
            self.largest = max(self.largest, priority.max().item())

    def state(self) -> State:
        arrays = {"leaves": self.tree.leaves, "low": torch.from_numpy(self.low), "high": torch.from_numpy(self.high)}
        return arrays, {"largest": self.largest}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Raises BadInput for the state of another number of leaves or lanes."""
        if arrays["low"].shape != self.low.shape:
            raise BadInput(f"the saved priorities are of {len(arrays['low'])} lanes, the storage has {self.lanes}")
        low, high = (restored(arrays, name, self.low) for name in ("low", "high"))
        leaves = restored(arrays, "leaves", self.tree.leaves)
        if not ((low >= 0) & (low <= high) & (high - low <= self.ring)).all():
            raise BadInput(
                f"the saved priorities are of rows {low.tolist()} to {high.tolist()} of each lane, and a lane holds {self.ring}"
            )
        k = low + np.arange(self.ring)[:, None]
        outside = np.ones((self.ring, self.lanes), bool)
        outside[k % self.ring, np.arange(self.lanes)] = k >= high
        if leaves.cpu().numpy()[outside.ravel()].any():
            raise BadInput("a saved priority is of a row that its lane does not hold")
        check("largest priority", torch.tensor([numbers["largest"]], dtype=torch.float64))
        self.tree.fill(leaves)
        self.largest = numbers["largest"]
        self._window(low, high)
        return True

    def _window(self, low: np.ndarray, high: np.ndarray) -> None:
        self.low, self.high, self._first = low, high, low % self.ring
        if self.tree.backend == "torch":
            self._on_device = [torch.from_numpy(x).to(self.tree.device) for x in (self.low, self.high, self._first)]

    def _indexes(self, start: np.ndarray, stop: np.ndarray) -> Tensor:
        """The indexes of start[e] <= k < stop[e] of all lanes, in the order of time."""
        lengths = stop - start
        k = start + np.arange(max(int(lengths.max()), 0))[:, None]
        index = k * self.lanes + np.arange(self.lanes)
        index = index.ravel() if (lengths == lengths[0]).all() else index[k < stop]
        return torch.from_numpy(index).to(self.tree.device)


class Prioritized:
    """A sampler that draws rows with P(i) = leaf_i / sum leaf, leaf = (priority + eps)**alpha, and weights (N P(i))**-beta / their largest.

    New rows get the value of their key "priority" if the storage keeps one, else `initial`, else the largest priority
    there has been (1 at the start). beta rises linearly from `beta` to 1 while the first `beta_steps` rows are added
    (0: it stays). Raises BadInput for alpha or beta outside [0, 1].
    """

    def __init__(
        self,
        seed: int,
        alpha: float = 0.6,
        beta: float = 0.4,
        beta_steps: int = 0,
        initial: float | None = None,
        backend: str | None = None,
    ):
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value <= 1:
                raise BadInput(f"{name} of prioritized replay must lie in [0, 1], got {value}")
        if beta_steps < 0:
            raise BadInput(f"beta_steps must be 0 (beta stays) or a number of rows, got {beta_steps}")
        if initial is not None and not 0 <= initial < float("inf"):
            raise BadInput(f"the initial priority must be a finite number of at least 0, got {initial}")
        self.alpha, self.beta, self.beta_steps, self.initial = alpha, beta, beta_steps, initial
        self.backend = backend
        self.uniforms = Uniforms(seed)
        self.priorities: Priorities | None = None
        self._seen: tuple[int, int] | None = None  # the storage's window when it was last followed
        self._loaded: State | None = None

    def written(self, storage: Storage, index: Tensor | None = None) -> None:
        """Rows were written: they get their first priority, and those that left the live window get none.

        Which ones is read from the storage's window, so rows that another process wrote are found as well.
        """
        self._follow(storage)

    def draw(self, storage: Storage, size: int) -> Draw:
        """(index int64 [size], weight float32 [size], {}). Raises BadInput if there is nothing to draw from."""
        index, weight = self._draw(storage, size)
        return index, weight, {}

    def feedback(self, storage: Storage, index: Tensor, priority: Tensor) -> None:
        """New priorities, e.g. |TD error|, [B]. Rows that were overwritten or left the live window since are ignored.

        Raises BadInput for a priority that is NaN, negative or infinite; then nothing has changed.
        """
        self._follow(storage).update(index, priority)

    def beta_now(self, storage: Storage) -> float:
        """beta + (1 - beta) * min(1, rows added / beta_steps)."""
        if not self.beta_steps:
            return self.beta
        return self.beta + (1 - self.beta) * min(1.0, int(storage.count.sum()) / self.beta_steps)

    def state(self) -> State:
        """(arrays, numbers) for `load_state`. The arrays are the sampler's own, not copies."""
        if self._loaded is not None:
            arrays, numbers = self._loaded
        else:
            arrays, numbers = self.priorities.state() if self.priorities is not None else ({}, {})
        return arrays, {**numbers, **self.uniforms.state()[1]}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """What `state` gave; the tree is built anew, with equal bits, when the storage is next seen."""
        self.uniforms.load_state({}, numbers)
        self.priorities, self._loaded = None, (arrays, numbers) if arrays else None
        return True

    def _follow(self, storage: Storage) -> Priorities:
        """The priorities, for the rows that are live now."""
        if self.priorities is None:
            priorities = self._new(storage)
            if self._loaded is not None:
                priorities.load_state(*self._loaded)
            self.priorities, self._seen, self._loaded = priorities, None, None
        window = storage.window()
        if window is None or window != self._seen:  # most calls find nothing new, and see it in a microsecond
            self.priorities.move(*self._window(storage), self.initial, self._given(storage))
            self._seen = window
        return self.priorities

    def _draw(self, storage: Storage, size: int) -> tuple[Tensor, Tensor]:
        priorities = self._follow(storage)
        if not (priorities.high > priorities.low).any():
            raise self._nothing(storage)
        return priorities.draw(self.uniforms.take(size), self.beta_now(storage))

    def _new(self, storage: Storage) -> Priorities:
        return Priorities(storage.lanes, storage.ring, self.alpha, storage.device, self.backend)

    def _window(self, storage: Storage) -> tuple[np.ndarray, np.ndarray]:
        return storage.live()

    def _given(self, storage: Storage) -> Callable[[Tensor], Tensor] | None:
        """Priorities that came with the rows."""
        if "priority" not in storage.names():
            return None
        return lambda index: storage.column("priority")[storage.slot(index)]

    def _nothing(self, storage: Storage) -> BadInput:
        return empty()
