"""Five probe environments: the smallest worlds that each need one more part of an agent to work.

After Andy Jones, "Debugging reinforcement learning systems" (2021). One fails only when the part it names is broken:

    ProbeConstant     one step, observation 0, reward 1                 the value loss and its optimizer
    ProbeObservation  one step, observation +-1, reward = observation   the gradient through the network's input
    ProbeDiscount     two steps, observation 0 then 1, reward 0, 1      the discount and the bootstrap
    ProbeAction       one step, observation 0, reward by action         the advantage and the policy loss
    ProbePolicy       one step, observation +-1, reward by both         a policy that looks at the observation

Discrete: the first three have one action, the last two have two (0 is side -1, 1 is side +1); ProbeAction gives
reward = side, ProbePolicy reward = side * observation. Continuous (`...Continuous-v0`, an action in [-1, 1]): the first
three ignore it, ProbeAction gives -(action - 1/2)^2, ProbePolicy -(action - observation / 2)^2. The action is taken as given:
clipped at the bounds, the reward would be flat beyond them and a wide Gaussian rightly learns to stay there.

Every probe knows the truth: `value(observation, discount)` and `best_action(observation)`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from gymnasium import spaces
from numba.extending import register_jitable

from whorl.envs.native.world import World

CONSTANT, OBSERVATION, DISCOUNT, ACTION, POLICY = range(5)


@register_jitable
def observed(x: float) -> float:
    return np.sign(x)


@register_jitable
def simple(state: np.ndarray) -> tuple[float, bool]:
    """(reward, terminated) of the probes in which actions do nothing; state = (kind, number whose sign is observed)."""
    if state[0] == DISCOUNT and state[1] == 0:
        state[1] = 1.0
        return 0.0, False
    return (observed(state[1]) if state[0] == OBSERVATION else 1.0), True


@register_jitable
def discrete(state: np.ndarray, action: int, chance: float) -> tuple[float, bool]:
    if state[0] < ACTION:
        return simple(state)
    side = 2.0 * action - 1.0
    return (side if state[0] == ACTION else side * observed(state[1])), True


@register_jitable
def continuous(state: np.ndarray, action: np.ndarray, chance: float) -> tuple[float, bool]:
    if state[0] < ACTION:
        return simple(state)
    best = 0.5 if state[0] == ACTION else 0.5 * observed(state[1])
    return -((np.float64(action[0]) - best) ** 2), True


@register_jitable
def observe(state: np.ndarray, out: np.ndarray) -> None:
    out[0] = observed(state[1])


class Probe(World):
    """One probe; `num_actions` 0 means continuous."""

    kind: ClassVar[int]
    num_actions: ClassVar[int] = 0
    observation_space = spaces.Box(-1.0, 1.0, (1,))
    observe = staticmethod(observe)

    def __init_subclass__(cls) -> None:
        signed = cls.kind in (OBSERVATION, POLICY)
        cls.low, cls.high = (cls.kind, -1.0 if signed else 0.0), (cls.kind, 1.0 if signed else 0.0)
        cls.least, cls.most = (cls.kind, -1.0), (cls.kind, 1.0)
        cls.action_space = spaces.Discrete(cls.num_actions) if cls.num_actions else spaces.Box(-1.0, 1.0, (1,))
        cls.dynamics = staticmethod(discrete if cls.num_actions else continuous)

    @classmethod
    def value(cls, observation: np.ndarray, discount: float) -> np.ndarray:
        """The optimal value [N] of observations [N, 1] (in the first three also every policy's)."""
        seen = np.asarray(observation, np.float64)[..., 0]
        if cls.kind == OBSERVATION:
            return seen
        if cls.kind == DISCOUNT:
            return np.where(seen == 0, discount, 1.0)
        return np.full_like(seen, 0.0 if cls.kind >= ACTION and not cls.num_actions else 1.0)

    @classmethod
    def best_action(cls, observation: np.ndarray) -> np.ndarray | None:
        """The only optimal action for observations [N, 1]: int64 [N] or float32 [N, 1]; None where all are optimal."""
        if cls.kind < ACTION:
            return None
        side = np.asarray(observation) if cls.kind == POLICY else np.ones_like(observation)
        return (side[..., 0] > 0).astype(np.int64) if cls.num_actions else (0.5 * side).astype(np.float32)


class ProbeConstant(Probe):
    id, kind, num_actions = "ProbeConstant-v0", CONSTANT, 1


class ProbeObservation(Probe):
    id, kind, num_actions = "ProbeObservation-v0", OBSERVATION, 1


class ProbeDiscount(Probe):
    id, kind, num_actions = "ProbeDiscount-v0", DISCOUNT, 1


class ProbeAction(Probe):
    id, kind, num_actions = "ProbeAction-v0", ACTION, 2


class ProbePolicy(Probe):
    id, kind, num_actions = "ProbePolicy-v0", POLICY, 2


class ProbeConstantContinuous(Probe):
    id, kind = "ProbeConstantContinuous-v0", CONSTANT


class ProbeObservationContinuous(Probe):
    id, kind = "ProbeObservationContinuous-v0", OBSERVATION


class ProbeDiscountContinuous(Probe):
    id, kind = "ProbeDiscountContinuous-v0", DISCOUNT


class ProbeActionContinuous(Probe):
    id, kind = "ProbeActionContinuous-v0", ACTION


class ProbePolicyContinuous(Probe):
    id, kind = "ProbePolicyContinuous-v0", POLICY
