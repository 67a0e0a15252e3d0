"""Random rollouts, and what each recursion is by definition: sums written out for every row, in Python floats."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

FLAGS = ("terminated", "truncated")


@st.composite
def rollouts(draw) -> dict:
    """Reward, value, next_value, log_ratio, terminated, truncated, discount (number or tensor), lambda."""
    shape = (draw(st.integers(1, 9)), *draw(st.lists(st.integers(1, 3), max_size=2)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def uniform(low: float, high: float):
        return torch.empty(shape, dtype=torch.float64).uniform_(low, high, generator=generator)

    rollout = {name: uniform(-2, 2) for name in ("reward", "value", "next_value", "log_ratio")}
    for name in FLAGS:
        rollout[name] = uniform(0, 1) < draw(st.sampled_from([0.0, 0.1, 0.4, 1.0]))
    rollout["discount"] = draw(st.sampled_from([0.0, 0.9, 1.0, uniform(0, 1)]))
    rollout["trace_decay"] = draw(st.sampled_from([0.0, 0.7, 1.0]))
    return rollout


def by_column(reference, rollout: dict, **numbers) -> torch.Tensor:
    """`reference(t, column)` for every row of every column, as a tensor of the rollout's shape."""
    shape = rollout["reward"].shape
    full = {name: torch.as_tensor(x, dtype=None if name in FLAGS else torch.float64) for name, x in rollout.items()}
    flat = {name: x.expand(shape).reshape(shape[0], -1).T.tolist() for name, x in full.items() if name != "trace_decay"}
    columns = [{name: x[i] for name, x in flat.items()} for i in range(len(flat["reward"]))]
    rows = [[reference(t, column, **numbers) for column in columns] for t in range(shape[0])]
    return torch.tensor(rows, dtype=torch.float64).reshape(shape)


def horizon(t: int, c: dict) -> int:
    """How many rows the episode of row t has from t on, in what was seen."""
    ends = [k for k in range(t, len(c["reward"])) if c["terminated"][k] or c["truncated"][k]]
    return (ends[0] if ends else len(c["reward"]) - 1) - t + 1


def weight(t: int, k: int, c: dict) -> float:
    """discount[t] * ... * discount[k - 1]."""
    product = 1.0
    for i in range(t, k):
        product *= c["discount"][i]
    return product


def rewards(t: int, c: dict, n: int) -> float:
    return sum(weight(t, k, c) * c["reward"][k] for k in range(t, t + n))


def n_step(t: int, c: dict, n: int) -> float:
    n = min(n, horizon(t, c))
    last = t + n - 1
    return rewards(t, c, n) + (0 if c["terminated"][last] else weight(t, last + 1, c) * c["next_value"][last])


def reward_to_go(t: int, c: dict) -> float:
    return rewards(t, c, horizon(t, c))


def lambda_mixture(t: int, c: dict, trace_decay: float) -> float:
    """Sutton and Barto 2018, eq. 12.3: n-step returns weighted by (1 - lambda) lambda^(n - 1), the last by the rest."""
    h = horizon(t, c)
    mixed = sum((1 - trace_decay) * trace_decay ** (n - 1) * n_step(t, c, n) for n in range(1, h))
    return mixed + trace_decay ** (h - 1) * n_step(t, c, h)


def error(t: int, c: dict) -> float:
    return c["reward"][t] + (0 if c["terminated"][t] else c["discount"][t] * c["next_value"][t]) - c["value"][t]


def gae(t: int, c: dict, trace_decay: float) -> float:
    """Schulman et al. 2016, eq. 16: the sum of (discount lambda)^l delta[t + l]."""
    return sum(trace_decay ** (k - t) * weight(t, k, c) * error(k, c) for k in range(t, t + horizon(t, c)))
