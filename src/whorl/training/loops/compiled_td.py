"""TD(lambda) on a native world in one compiled loop: environment, features, policy and update, with nothing between them.

It does what plain.train, StreamCollector and TD.learn do, step for step with the same random numbers, and leaves the same state behind:
a run may change from one to the other at any step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba.extending import register_jitable

from whorl.agents import td_kernel
from whorl.agents.td import TD
from whorl.agents.td_kernel import Learner, Row, Rule, Taken, There, anneal, claim, td_step, traces_of
from whorl.batch import Buffer
from whorl.collectors.stream import NOISE, StreamCollector
from whorl.envs.native import world as world_module
from whorl.envs.native.world import Arrays, World, advance, begin
from whorl.errors import BadInput
from whorl.functional import traces as traces_module
from whorl.functional.kernels.cached import cached
from whorl.functional.traces import Phi, clear, read_all, store
from whorl.nets import tile_coding
from whorl.nets.linear_q import LinearQ
from whorl.nets.tile_coding import HASHED, RAW, code
from whorl.policies import exploration as exploration_module
from whorl.policies.exploration import choose, row_of
from whorl.training.hooks import Hook

STEPS_ITSELF = True


class Piece(NamedTuple):
    """How far one call goes."""

    steps: int
    episodes: int
    noise: np.ndarray  # [steps, 2], or more rows


class UnderWay(NamedTuple):
    """What goes from one call to the next, each of one environment, [1] but `td_error`, which is []."""

    action: np.ndarray  # int64, what the policy does next
    ret: np.ndarray
    length: np.ndarray
    is_first: np.ndarray
    td_error: np.ndarray


class Ends(NamedTuple):
    """The episodes that ended, in order, arrays [NOISE]."""

    step: np.ndarray
    length: np.ndarray
    ret: np.ndarray


class Scratch(NamedTuple):
    rows: Row  # of s and of s', which change places at each step: arrays [2, ...]
    q: np.ndarray  # [A]
    first_q: np.ndarray  # [A], where an episode begins
    share: np.ndarray  # [A]


def train(agent: TD, collector: StreamCollector, buffer: Buffer, total_steps: int, hooks: Iterable[Hook] = ()) -> None:
    """As plain.train, in pieces of up to `NOISE` steps; hooks run after each piece. Raises BadInput for parts it cannot take."""
    check(agent, collector)
    env: Any = collector.env
    ledger = collector.ledger
    collector.begin()
    learner, features, world, actions = agent.learner(), agent.critic.features, env.arrays, agent.policy.actions
    scratch = Scratch(
        Row(*map(np.stack, zip(row_of(features), row_of(features), strict=True))),
        *(np.zeros(actions) for _ in range(3)),
    )
    is_first: Any = collector.is_first
    under_way = UnderWay(np.zeros(1, np.int64), ledger.returns, ledger.lengths, is_first, agent.td_error.numpy())
    ends = Ends(np.zeros(NOISE, np.int64), np.zeros(NOISE, np.int64), np.zeros(NOISE))
    height, width = features.table.shape
    sizes = Sizes(features.active, height, width, world.observation.shape[1], actions)
    run = compiled(type(env).dynamics, type(env).observe, features.kind, sizes, learner.rule)
    while not collector.done(total_steps):
        block, first = divmod(collector.rollouts + 1, NOISE)
        steps = min(NOISE - first, total_steps - ledger.count)
        most = int(min(NOISE, ledger.most_episodes - ledger.finished))
        under_way.action[:] = collector.decided["action"]
        piece = Piece(steps, most, collector.numbers(block)[first:, 0])
        taken, finished, fine = run(piece, world, learner, under_way, ends, scratch)
        collector.advance(taken, {"action": under_way.action}, Ends(*(x[:finished] for x in ends)))
        agent.env_steps.add_(taken)
        if not fine:
            raise agent.diverged(0)
        ended = [hook(None, agent.metrics) for hook in hooks]
        if any(ended):
            return


def check(agent: TD, collector: StreamCollector) -> None:
    """Raises BadInput for what is not in the compiled loop."""
    env = collector.env
    if not isinstance(agent, TD) or not isinstance(agent.critic, LinearQ):
        raise BadInput("the compiled loop learns linear values (td with a table, linear features or tile coding)")
    if agent.critic is not agent.policy.q:
        raise BadInput("the compiled loop is for control: a prediction learns through the ordinary loop")
    if not isinstance(env, World) or env.num_envs != 1 or env.action_mask is not None:
        raise BadInput(f"the compiled loop needs one native world without action masks, num_envs=1; got {env!r}")


class Sizes(NamedTuple):
    """What is constant in one compiled loop, so that its small loops are unrolled."""

    active: int  # features of a state that are not 0
    height: int  # of the coder's table
    width: int
    observation: int
    actions: int


@cache
def compiled(dynamics: Callable, observe: Callable, kind: int, sizes: Sizes, rule: Rule) -> Callable:
    """The loop around one world's functions (see envs/native/world.py), for one kind of features, these sizes and one rule of `td_step`.

    It returns (steps taken, episodes ended, whether the values are fine).
    """
    active, height, width, components, actions = sizes
    target_of, trace_kind, exclusive = rule
    allowed: Any = (True,) * actions
    ones: Any = (1.0,) * active

    if kind == RAW:

        @register_jitable(forceinline=True)
        def values_of(value: np.ndarray) -> np.ndarray:
            return value

    else:  # features that are on or off need no multiplication

        @register_jitable(forceinline=True)
        def values_of(value: np.ndarray) -> np.ndarray:
            return ones

    def run(
        piece: Piece, world: Arrays, everything: Learner, under_way: UnderWay, ends: Ends, scratch: Scratch
    ) -> tuple[int, int, bool]:
        steps, most, noise = piece
        coder, weight, all_traces, hashing, _, rates, exploration = everything
        _, table, slots, size = coder
        (indices, coefficients, keys), q, first_q, share = scratch
        if not (  # always so: the compiler takes it from here
            indices.shape[1] == active and coefficients.shape[1] == active and table.shape == (height, width)
            and world.observation.shape[1] == components and world.successor.shape[1] == components
            and len(q) == actions and len(first_q) == actions and len(share) == actions
        ):  # fmt: skip
            return 0, 0, False
        rule = Rule(target_of, trace_kind, exclusive)
        learner = Learner(coder, weight, all_traces, hashing, rule, rates, exploration)
        clock, settings, start = world.clock, world.settings, world.start
        state, observation, successor = world.state[0], world.observation[0], world.successor[0]  # not one a step
        traces = traces_of(all_traces, 0)
        here, finished, n, fine = 0, 0, 0, True
        action, ret, length = under_way.action[0], under_way.ret[0], under_way.length[0]
        ended = under_way.is_first[0]
        if ended:  # as learn_rows does at the first step of an episode
            clear(weight, traces)
        code(kind, observation, table, slots, indices[here], coefficients[here], keys[here])
        while n < steps and finished < most:
            row = Row(indices[here], values_of(coefficients[here]), keys[here])
            next_index, next_value, next_key = indices[1 - here], coefficients[1 - here], keys[1 - here]
            if kind == HASHED:
                claim(row, hashing)
            reward, terminated, truncated = advance(dynamics, state, action, 0, clock, settings)
            observe(state, successor)
            code(kind, successor, table, slots, next_index, next_value, next_key)
            read_all(weight, traces, Phi(next_index, values_of(next_value), 0), size, q)
            following = choose(q, allowed, exploration, noise[n, 0], noise[n, 1], share)
            ended, next_action = terminated or truncated, following
            if ended:
                begin(state, 0, clock, settings, start)
                observe(state, observation)
                code(kind, observation, table, slots, next_index, next_value, next_key)
                read_all(weight, traces, Phi(next_index, values_of(next_value), 0), size, first_q)
                following = choose(first_q, allowed, exploration, noise[n, 0], noise[n, 1], share)
            taken, there = Taken(action, reward, terminated, ended), There(q, next_action, allowed, share)
            delta, fine = td_step(learner, traces, row, taken, there)
            under_way.td_error[()] = delta
            n += 1
            if not fine:
                break
            anneal(exploration, rates)
            ret, length, action = ret + reward, length + 1, following
            here = 1 - here
            if ended:
                ends.step[finished], ends.length[finished], ends.ret[finished] = n, length, ret
                finished, ret, length = finished + 1, 0.0, 0
        store(weight, traces)
        if not ended:
            for d in range(len(observation)):
                observation[d] = successor[d]
        under_way.action[0], under_way.ret[0], under_way.length[0], under_way.is_first[0] = action, ret, length, ended
        return n, finished, fine

    constants = "_".join(str(int(number)) for number in (kind, *sizes, *rule))
    run.__qualname__ = f"{dynamics.__module__}.{dynamics.__name__}_{constants}"
    parts = (world_module, td_kernel, traces_module, tile_coding, exploration_module)
    return cached(dynamics.__code__.co_filename, *parts)(run)
