"""Small networks in one flat vector: their outputs and their gradient in numpy and numba, without autograd. float32, CPU.

At 64 units nearly all of an update's time in torch is the calls and not the arithmetic (docs/design/020).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from whorl.errors import Incompatible
from whorl.jit import FAST, jit
from whorl.nets.ensemble import EnsembleLinear

Rows = np.ndarray
CHUNK = 256  # rows that go through a network together: what one layer leaves is still in the cache for the next
ALIGNED = 16  # floats between the starts of two slices, so that each begins on a cache line


class Vector:
    """Parameters as slices of one flat vector: whoever holds a parameter sees the same memory, before and after.

    value, gradient: float32 [size]. `slices[i]` is where parameter i lies; between two slices there may be zeros.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]):
        self.parameters = list(parameters)
        self.slices, size = [], 0
        for p in self.parameters:
            self.slices.append(slice(size, size + p.numel()))
            size += -(-p.numel() // ALIGNED) * ALIGNED
        self.value, self.gradient = aligned(size), aligned(size)
        self._place = {id(p): place for p, place in zip(self.parameters, self.slices, strict=True)}
        self._before = [p.data for p in self.parameters]
        for p in self.parameters:
            view = self.like(p, self.value)
            np.copyto(view, p.detach().numpy())
            p.data = torch.from_numpy(view)
        self._pointers = [p.data_ptr() for p in self.parameters]

    def like(self, parameter: Tensor, flat: Rows) -> Rows:
        """The slice of a flat vector [size] that belongs to a parameter, in its shape. Raises Incompatible for one that is not here."""
        if id(parameter) not in self._place:
            raise Incompatible("its optimizer does not step on every parameter of its loss")
        return flat[self._place[id(parameter)]].reshape(parameter.shape)

    def undo(self) -> None:
        """Let the parameters lie where they lay before, to the bit."""
        for p, data in zip(self.parameters, self._before, strict=True):
            p.data = data

    def holds(self) -> bool:
        """Whether the parameters still lie here, and still learn."""
        return [p.data_ptr() for p in self.parameters if p.requires_grad] == self._pointers


def aligned(size: int) -> Rows:
    """Zeros, float32 [size], on a cache line."""
    raw = np.zeros(size + ALIGNED, np.float32)
    start = -raw.ctypes.data // raw.itemsize % ALIGNED
    return raw[start : start + size]


class Layer(NamedTuple):
    """A linear layer, looked at where it lies, and its gradient (None: it has none)."""

    weight: Rows  # [outputs, inputs]; `flipped`, as torch's batched products have it, [inputs, outputs]
    d_weight: Rows | None
    bias: Rows  # [outputs]
    d_bias: Rows | None
    flipped: bool = False


def linear_layers(modules: Iterable[nn.Module], vector: Vector | None = None) -> list[Layer]:
    """Of the nn.Linear among `modules`."""
    return [
        Layer(*_seen(module.weight, vector), *_seen(module.bias, vector))
        for module in modules
        if isinstance(module, nn.Linear)
    ]


def member_layers(modules: Iterable[nn.Module], member: int, vector: Vector | None = None) -> list[Layer]:
    """Of one member of an ensemble: weights [members, inputs, outputs], biases [members, 1, outputs]."""
    found = [module for module in modules if isinstance(module, EnsembleLinear)]
    pairs = [(_seen(module.weight, vector), _seen(module.bias, vector)) for module in found]
    own = lambda x, at: None if x is None else x[at]  # noqa: E731
    return [
        Layer(w[member], own(dw, member), b[member, 0], own(db, (member, 0)), flipped=True)
        for (w, dw), (b, db) in pairs
    ]


def _seen(parameter: Tensor, vector: Vector | None) -> tuple[Rows, Rows | None]:
    """A parameter as numpy, and its gradient."""
    return parameter.detach().numpy(), None if vector is None else vector.like(parameter, vector.gradient)


class Tower:
    """Linear layers with an activation between them, and after the last one if `open`: x [n, inputs] -> [n, outputs], n <= chunk.

    What `forward` returns lives until its next call; `add_gradient` and `input_gradient` belong to the last `forward`.
    """

    def __init__(self, layers: Sequence[Layer], activation: str, open: bool = False, chunk: int = CHUNK):
        self._layers = list(layers)
        self._across = [w.weight if w.flipped else w.weight.T for w in layers]  # [inputs, outputs]
        self._back_across = [w.weight.T if w.flipped else w.weight for w in layers]
        self._outs = [np.empty((chunk, len(w.bias)), np.float32) for w in layers]
        self._add, self._back = (_add_tanh, _back_tanh) if activation == "tanh" else (_add_relu, _back_relu)
        self._pass = _pass_tanh if activation == "tanh" else _pass_relu
        self._active = len(layers) if open else len(layers) - 1  # layers with an activation
        self._seen: list[Rows] = []  # what each layer was given
        self._products = [np.empty_like(w.weight) for w in layers]
        self._d_inputs = [np.empty((chunk, len(across)), np.float32) for across in self._across]

    def forward(self, x: Rows) -> Rows:
        """x [n, inputs] -> [n, outputs]."""
        n, self._seen = len(x), []
        for i, (layer, across, out) in enumerate(zip(self._layers, self._across, self._outs)):
            self._seen.append(x)
            x = np.matmul(x, across, out=out[:n])
            if i < self._active:
                self._add(x, layer.bias)
            else:
                _add(x, layer.bias)
        self._seen.append(x)
        return x

    def add_gradient(self, d: Rows, inputs: bool = False) -> Rows | None:
        """Add that of the weights, from that of the first n outputs [n, outputs], which is overwritten. inputs: return that of x."""
        n = len(d)
        for i in reversed(range(len(self._layers))):
            layer, x = self._layers[i], self._seen[i][:n]
            if i < self._active:
                self._back(d, self._seen[i + 1][:n], layer.d_bias)
            else:
                _sum(d, layer.d_bias)
            pair = (x.T, d) if layer.flipped else (d.T, x)
            layer.d_weight[...] += np.matmul(*pair, out=self._products[i])  # type: ignore[index]
            if i or inputs:
                d = np.matmul(d, self._back_across[i], out=self._d_inputs[i][:n])
        return d if inputs else None

    def input_gradient(self, d: Rows) -> Rows:
        """That of x [n, inputs], from that of the outputs [n, outputs], which is overwritten; the weights get none."""
        n = len(d)
        for i in reversed(range(len(self._layers))):
            if i < self._active:
                self._pass(d, self._seen[i + 1][:n])
            d = np.matmul(d, self._back_across[i], out=self._d_inputs[i][:n])
        return d


@jit(fastmath=FAST, error_model="numpy")
def tanh(x: Any) -> Any:
    """tanh of a float32 by a rational function (Eigen's coefficients), off by less than 1e-6; a loop over it is vectorised."""
    f, limit, sure = np.float32, np.float32(7.90531110763549805), np.float32(9.02)
    given = x
    x = limit if x > limit else x  # a NaN stays one
    x = -limit if x < -limit else x
    y = x * x
    p = y * f(-2.76076847742355e-16) + f(2.00018790482477e-13)
    p = y * p + f(-8.60467152213735e-11)
    p = y * p + f(5.12229709037114e-08)
    p = y * p + f(1.48572235717979e-05)
    p = y * p + f(6.37261928875436e-04)
    p = y * p + f(4.89352455891786e-03)
    q = y * f(1.19825839466702e-06) + f(1.18534705686654e-04)
    q = y * q + f(2.26843463243900e-03)
    q = y * q + f(4.89352518554385e-03)
    h = x * p / q
    h = f(1) if given > sure else h  # to the bit: what is left of 1 - h^2 would be multiplied with inputs of any size
    return f(-1) if given < -sure else h


@jit(fastmath=FAST, error_model="numpy", _nrt=False)
def affine(x: Rows, theta: Rows, at: int, inputs: int, outputs: int, out: Rows) -> None:
    """out [outputs] <- x @ weight + bias, of one row; theta[at:] holds weight [inputs, outputs], then bias [outputs]."""
    end = at + inputs * outputs
    bias = theta[end : end + outputs]
    for j in range(outputs):
        out[j] = bias[j]
    k = 0
    while k + 4 <= inputs:  # four at a time: `out` is read and written a quarter as often
        w = at + k * outputs  # slices, because an index that might count from the end is not vectorised
        p, q = theta[w : w + outputs], theta[w + outputs : w + 2 * outputs]
        r, s = theta[w + 2 * outputs : w + 3 * outputs], theta[w + 3 * outputs : w + 4 * outputs]
        a, b, c, d = x[k], x[k + 1], x[k + 2], x[k + 3]
        for j in range(outputs):
            out[j] += a * p[j] + b * q[j] + c * r[j] + d * s[j]
        k += 4
    while k < inputs:
        w = at + k * outputs
        p, a = theta[w : w + outputs], x[k]
        for j in range(outputs):
            out[j] += a * p[j]
        k += 1


@jit(fastmath=FAST, error_model="numpy")
def _add_tanh(z: Rows, bias: Rows) -> None:
    """z <- tanh(z + bias)."""
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] = tanh(z[i, j] + bias[j])


@jit(fastmath=FAST, error_model="numpy")
def _add_relu(z: Rows, bias: Rows) -> None:
    """z <- max(z + bias, 0)."""
    zero = np.float32(0)
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            x = z[i, j] + bias[j]
            z[i, j] = zero if x < zero else x


@jit(fastmath=FAST, error_model="numpy")
def _add(z: Rows, bias: Rows) -> None:
    """z <- z + bias."""
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] += bias[j]


@jit(fastmath=FAST, error_model="numpy")
def _back_tanh(d: Rows, h: Rows, total: Rows) -> None:
    """d <- d (1 - h^2), where h = tanh(z); total += the sum of its rows."""
    one = np.float32(1)
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            x = d[i, j] * (one - h[i, j] * h[i, j])
            d[i, j] = x
            total[j] += x


@jit(fastmath=FAST, error_model="numpy")
def _back_relu(d: Rows, h: Rows, total: Rows) -> None:
    """d <- d where h = max(z, 0) is above 0, else 0; total += the sum of its rows."""
    zero = np.float32(0)
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            x = zero if h[i, j] <= zero else d[i, j]
            d[i, j] = x
            total[j] += x


@jit(fastmath=FAST, error_model="numpy")
def _pass_tanh(d: Rows, h: Rows) -> None:
    """d <- d (1 - h^2), where h = tanh(z)."""
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            d[i, j] *= np.float32(1) - h[i, j] * h[i, j]


@jit(fastmath=FAST, error_model="numpy")
def _pass_relu(d: Rows, h: Rows) -> None:
    """d <- d where h = max(z, 0) is above 0, else 0."""
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            d[i, j] = np.float32(0) if h[i, j] <= 0 else d[i, j]


@jit(fastmath=FAST, error_model="numpy")
def _sum(d: Rows, total: Rows) -> None:
    """total += the sum of d's rows."""
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            total[j] += d[i, j]


@jit(fastmath=FAST, error_model="numpy")
def normalize(x: Rows, mean: Rows, scale: Rows, clip: float, out: Rows) -> None:
    """out <- clip((x - mean) * scale, +-clip), as `Normalizer` does it: x, out [n, D], mean, scale [D]."""
    limit = np.float32(clip)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            z = (x[i, j] - mean[j]) * scale[j]
            z = limit if z > limit else z
            out[i, j] = -limit if z < -limit else z


@jit(fastmath=FAST, error_model="numpy")
def norm(x: Rows) -> np.float32:
    """sqrt(sum x^2)."""
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i] * x[i]
    return np.sqrt(total)


@jit(fastmath=FAST, error_model="numpy")
def adam(
    value: Rows, gradient: Rows, mean: Rows, square: Rows, scale: float, bound: float, rate: float, root: float, eps: float, beta1: float,
    beta2: float, decay: float,
) -> None:  # fmt: skip
    """One step of Adam (Kingma and Ba 2015, algorithm 1) on flat vectors, as torch does it.

    g = clip(scale * gradient, +-bound) + decay * value; mean <- lerp(g, mean, beta1); square <- lerp(g^2, square, beta2);
    value -= rate * mean / (sqrt(square) * root + eps), where rate = learning rate / (1 - beta1^t), root = 1 / sqrt(1 - beta2^t).
    """
    f = np.float32
    by, most, far, root_, small, pull = f(scale), f(bound), f(rate), f(root), f(eps), f(decay)
    b1, b2, c1, c2 = f(beta1), f(beta2), f(1 - beta1), f(1 - beta2)
    zero, smallest = f(0), f(1.17549435e-38)  # below, float32 has fewer digits
    for i in range(len(value)):
        g = by * gradient[i]
        g = most if g > most else g
        g = -most if g < -most else g
        g += pull * value[i]
        m = b1 * mean[i] + c1 * g
        s = b2 * square[i] + c2 * g * g
        m = (
            zero if m < smallest and m > -smallest else m
        )  # of a unit that is dead it fades out, and such numbers are slow
        s = zero if s < smallest else s
        mean[i], square[i] = m, s
        value[i] -= far * m / (np.sqrt(s) * root_ + small)
