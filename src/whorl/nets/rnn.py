"""Memory: an encoder with a recurrent cell behind it, one step at a time or over a whole sequence with episodes that begin inside.

A network that holds one (in the place of its encoder) is asked with the memory's features where others are asked with observations:
`remember` gives them while acting, `Memory.unroll` and `Memory.foresee` along sequences. Networks without one see observations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from whorl.batch import Tree
from whorl.errors import BadInput
from whorl.spaces import tree_map

Cell = Literal["gru", "lstm"]
Choice = Literal["none", "gru", "lstm"]  # of a config
STATE = "recurrent_state"  # of a carry, and of a batch: what was remembered before each row


class Memory(nn.Module):
    """x_t = encoder(observation_t); s_t = cell(x_t, 0 where an episode begins at t, else s_{t-1}); features are h_t.

    The weights are those of `torch.nn.GRU` or `torch.nn.LSTM`, orthogonal, biases 0. The state is ONE flat tensor [N, size]: h, or h and
    c side by side. gate_bias: of a GRU's update gate; above 0 it keeps its state longer at first (Gers et al. 2000 for the LSTM's forget
    gate; here as z = sigmoid(... + gate_bias)).
    Sources: Hochreiter and Schmidhuber 1997; Cho et al. 2014.
    """

    def __init__(self, encoder: nn.Module, cell: Cell = "gru", width: int = 128, gate_bias: float = 0.0):
        super().__init__()
        if cell not in ("gru", "lstm"):
            raise BadInput(f"a memory is a 'gru' or an 'lstm', got {cell!r}")
        if gate_bias and cell != "gru":
            raise BadInput(f"gate_bias belongs to a GRU's update gate, and this is an {cell}")
        self.encoder, self.cell, self.width = encoder, cell, width
        inputs: Any = encoder.width
        self.rnn: Any = (nn.GRU if cell == "gru" else nn.LSTM)(inputs, width)
        for weight in self.rnn.parameters():
            nn.init.orthogonal_(weight) if weight.ndim > 1 else nn.init.zeros_(weight)
        if gate_bias:
            update: Any = self.rnn.bias_ih_l0
            nn.init.constant_(update[width : 2 * width], gate_bias)
        self.size = width if cell == "gru" else 2 * width

    def initial(self, n: int) -> Tensor:
        """The state [n, size] of n episodes that begin."""
        return torch.zeros(n, self.size, device=self.rnn.weight_hh_l0.device)

    def features(self, state: Tensor) -> Tensor:
        """h [..., width] of states [..., size]."""
        return state[..., : self.width]

    def forward(self, features: Tensor) -> Tensor:
        """Features as they are: see the top of this file."""
        return features

    def step(self, observation: Any, state: Tensor) -> Tensor:
        """The next state [N, size] from observations [N, *obs]. A state is 0 where an episode begins: that is the caller's."""
        inside = nn.functional.linear(self.encoder(observation), self.rnn.weight_ih_l0, self.rnn.bias_ih_l0)
        h = self.features(state)
        back = torch.addmm(self.rnn.bias_hh_l0, h, self.rnn.weight_hh_l0.T)
        if self.cell == "gru":
            reset, update = (inside[:, : 2 * self.width] + back[:, : 2 * self.width]).sigmoid().chunk(2, 1)
            new = torch.addcmul(inside[:, 2 * self.width :], reset, back[:, 2 * self.width :]).tanh()
            return torch.lerp(new, h, update)
        enter, forget, new, leave = (inside + back).chunk(4, 1)
        c = forget.sigmoid() * state[:, self.width :] + enter.sigmoid() * new.tanh()
        return torch.cat([leave.sigmoid() * c.tanh(), c], 1)

    def unroll(self, observation: Any, state: Tensor, is_first: Tensor) -> tuple[Tensor, Tensor]:
        """(features [L, B, width], state [B, size] after the last) from observations [L, B, *obs], the state before the first, and
        is_first [L, B], bool. Torch's own kernel runs between two rows where any episode begins."""
        parts = [*self._segments(observation, state, is_first)]
        return torch.cat([out for _, out, _ in parts]), parts[-1][2]

    def foresee(self, observation: Any, successor: Any, state: Tensor, is_first: Tensor) -> Tensor:
        """Features [L, B, width] of `successor`, what came after each row, from arguments as `unroll` takes them.

        They are those of the next row, and of one more step where an episode begins there, and after the last row.
        """
        features = []
        for end, out, after in self._segments(observation, state, is_first):
            seen = tree_map(lambda x, last=end - 1: x[last], successor)
            features += [out[1:], self.features(self.step(seen, after))[None]]
        return torch.cat(features)

    def _segments(self, observation: Any, state: Tensor, is_first: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(row after the last, features of its rows, state after it) of each stretch in which no episode begins but at its first row."""
        x = self.encoder(observation)
        starts = [0, *(is_first[1:].any(1).nonzero().flatten() + 1).tolist(), len(x)]
        for begin, end in zip(starts[:-1], starts[1:], strict=True):
            state = state * ~is_first[begin].unsqueeze(-1)
            out, last = self.rnn(x[begin:end], self._split(state))
            state = last[0] if self.cell == "gru" else torch.cat([last[0][0], last[1][0]], 1)
            yield end, out, state

    def _split(self, state: Tensor) -> Any:
        """The state as torch's kernel takes it."""
        if self.cell == "gru":
            return state[None]
        h, c = state[None].split(self.width, -1)
        return h.contiguous(), c.contiguous()


def with_memory(encoder: nn.Module, memory: Choice, width: int, gate_bias: float = 0.0) -> nn.Module:
    """The encoder with a memory behind it, or as it is for "none"."""
    return encoder if memory == "none" else Memory(encoder, memory, width, gate_bias)


def memory_of(net: nn.Module) -> Memory | None:
    """The memory that a network holds."""
    return next((part for part in net.modules() if isinstance(part, Memory)), None)


def begin(net: nn.Module, n: int) -> dict[str, Tensor]:
    """What a network carries into n episodes that begin: nothing without a memory."""
    memory = memory_of(net)
    return {} if memory is None else {STATE: memory.initial(n)}


def at_first(net: nn.Module, observation: Tree) -> Tree:
    """What a network is asked with where an episode begins, for observations [N, *obs]."""
    memory = memory_of(net)
    return observation if memory is None else memory.features(memory.step(observation, memory.initial(1)))


def remember(
    net: nn.Module, observation: Tree, carry: Mapping[str, Tensor] | None, is_first: Tensor
) -> tuple[Tree, dict[str, Tensor], dict[str, Tensor]]:
    """(what a network is asked with for observations [N, *obs], what it carries on, what to record of a step).

    Recorded is the state that was carried here, 0 where an episode begins. Without a memory: (observation, {}, {}).
    """
    memory = memory_of(net)
    if memory is None:
        return observation, {}, {}
    assert carry is not None
    state = carry[STATE] * ~is_first.unsqueeze(-1)
    after = memory.step(observation, state)
    return memory.features(after), {STATE: after}, {STATE: state}
