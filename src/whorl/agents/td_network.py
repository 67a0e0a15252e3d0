"""TD(lambda) with values from a network: the same recursion over all parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from whorl.agents.td_kernel import EXPECTED_SARSA, PREDICTION, Q_LEARNING, SARSA
from whorl.policies.greedy import Greedy

HOPELESS = 1e6  # a TD error, in units of the largest reward


class TraceDescent(torch.optim.Optimizer):
    """e <- decay e + gradient, w <- w + learning_rate * td_error * e, for all parameters."""

    td_error: Tensor
    fine = True  # False: the last step would have made a weight infinite, and was not done

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float, decay: float):
        super().__init__(parameters, {"lr": learning_rate, "decay": decay})
        for p in self.param_groups[0]["params"]:
            self.state[p] = {"trace": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:  # type: ignore[override]
        group = self.param_groups[0]
        traces = [self.state[p]["trace"].mul_(group["decay"]).add_(p.grad) for p in group["params"]]
        moves = [group["lr"] * self.td_error * trace for trace in traces]
        self.fine = all(bool((p + move).isfinite().all()) for p, move in zip(group["params"], moves, strict=True))
        if self.fine:
            for p, move in zip(group["params"], moves, strict=True):
                p.add_(move)

    def clear(self) -> None:
        """No trace any more: an episode ended, or Watkins's cut."""
        for p in self.param_groups[0]["params"]:
            self.state[p]["trace"].zero_()


def future_value(target: int, policy: Greedy, q: Tensor, action: int, allowed: Tensor | None) -> tuple[Tensor, bool]:
    """V' of the target's kind from the values q [A] of s', and whether a' = `action` was exploratory, which cuts the traces (Watkins)."""
    if target == PREDICTION:
        return q[0], False
    allowed = torch.ones_like(q, dtype=torch.bool) if allowed is None else allowed
    best = torch.where(allowed, q, -torch.inf).max()
    if target == SARSA:
        return q[action], False
    if target == EXPECTED_SARSA:
        return (policy.probabilities(q, allowed) * q).sum(), False
    return best, target == Q_LEARNING and bool(q[action] < best)
