"""The fast twins of `Greedy`: equal to its `act` but for rounding of the values."""

from __future__ import annotations

import numpy as np

from whorl.functional.kernels.cached import cached
from whorl.nets import tile_coding
from whorl.nets.linear_q import LinearQ
from whorl.nets.tile_coding import code
from whorl.policies import exploration as exploration_module
from whorl.policies.actors.mlp import Given, Memory, Network, Rows
from whorl.policies.exploration import EPSILON, EPSILON_GREEDY, choose, row_of
from whorl.policies.policy import Acted, Actor


@cached(tile_coding, exploration_module)
def _act(
    observation: Rows, kind: int, table: Rows, slots: int, weight: Rows, exploration: Rows, noise: Rows, allowed: Rows, index: Rows,
    value: Rows, key: Rows, q: Rows, scratch: Rows, action: Rows,
) -> None:  # fmt: skip
    for i in range(len(observation)):
        code(kind, observation[i], table, slots, index, value, key)
        for a in range(len(q)):
            total = 0.0
            for k in range(len(index)):
                total += value[k] * weight[a, index[k]]
            q[a] = total
        action[i] = choose(q, allowed[i], exploration, noise[i, 0], noise[i, 1], scratch)


@cached(exploration_module)
def _choose_all(
    q: Rows, exploration: Rows, rates: Rows, spread: float, noise: Rows, allowed: Rows, scratch: Rows, action: Rows
) -> None:  # fmt: skip
    """`rates` [3] is scratch: the exploration of one environment."""
    for k in range(len(rates)):
        rates[k] = exploration[k]
    for i in range(len(action)):
        if spread != 0.0:
            rates[EPSILON] = exploration[EPSILON] ** (1.0 + spread * i / max(1, len(action) - 1))
        action[i] = choose(q[i], allowed[i], rates, noise[i, 0], noise[i, 1], scratch)


def linear(q: LinearQ, exploration: Rows, num_envs: int) -> Actor:
    """For values that are linear in features; exploration: see `policies.exploration`, looked at in every call."""
    coder, weight = (q.features.kind, q.features.table.numpy(), q.features.slots), q.weight.numpy()
    greedy, nothing = np.array([EPSILON_GREEDY, 0.0, 1.0]), np.zeros((num_envs, 2))
    every = np.ones((num_envs, q.actions), bool)
    scratch = (*row_of(q.features), np.zeros(q.actions), np.zeros(q.actions))
    action = np.zeros(num_envs, np.int64)
    decided = {"action": action}

    def act(observation: Rows, carry: Memory, is_first: Rows, noise: Given, action_mask: Given = None) -> Acted:
        allowed = every if action_mask is None else action_mask
        rates, numbers = (greedy, nothing) if noise is None else (exploration, noise)
        _act(observation.reshape(num_envs, -1), *coder, weight, rates, numbers, allowed, *scratch, action)
        return decided, carry

    return act


def values(network: Network, actions: int, exploration: Rows, spread: float, num_envs: int) -> Actor:
    """For values (or what differs from them by a number for each row) that a network gives; spread: `epsilon_spread`."""
    greedy, nothing = np.array([EPSILON_GREEDY, 0.0, 1.0]), np.zeros((num_envs, 2))
    every = np.ones((num_envs, actions), bool)
    rates, scratch, action = np.zeros(3), np.zeros(actions), np.zeros(num_envs, np.int64)
    decided = {"action": action}

    def act(observation: Rows, carry: Memory, is_first: Rows, noise: Given, action_mask: Given = None) -> Acted:
        _, q = network(observation)
        allowed = every if action_mask is None else action_mask
        how, numbers = (greedy, nothing) if noise is None else (exploration, noise)
        _choose_all(q, how, rates, spread, numbers, allowed, scratch, action)
        return decided, carry

    return act
