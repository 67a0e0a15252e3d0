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

from whorl.agents import td
from whorl.agents.td import TD, anneal, claim, td_step
from whorl.collectors.stream import NOISE, StreamCollector
from whorl.envs.native import world as world_module
from whorl.envs.native.world import World, advance, begin
from whorl.errors import BadInput
from whorl.functional import traces as traces_module
from whorl.functional.kernels.cached import cached
from whorl.functional.traces import Traces, clear, read_all, store
from whorl.nets import tile_coding
from whorl.nets.linear_q import LinearQ
from whorl.nets.tile_coding import HASHED, RAW, code
from whorl.policies import greedy
from whorl.policies.greedy import choose, row_of
from whorl.training.hooks import Hook


def train(agent: TD, collector: StreamCollector, buffer: Any, total_steps: int, hooks: Iterable[Hook] = ()) -> None:
    """As plain.train, in pieces of up to `NOISE` steps; hooks run after each piece. Raises BadInput for parts it cannot take."""
    check(agent, collector)
    env: Any = collector.env
    collector.begin()
    actions, features = agent.policy.actions, agent.critic.features
    learner, rows = agent.learner(), [np.stack(pair) for pair in zip(row_of(features), row_of(features), strict=True)]
    values = np.zeros(actions), np.zeros(actions), np.zeros(actions)
    act, td_error = np.zeros(1, np.int64), agent.td_error.numpy()
    height, width = features.table.shape
    sizes = Sizes(features.active, height, width, env._arrays[4].shape[1], actions)
    run = compiled(type(env).dynamics, type(env).observe, features.kind, sizes, learner[4])
    ends = np.zeros(NOISE, np.int64), np.zeros(NOISE, np.int64), np.zeros(NOISE)  # step, length and return
    while not collector.done(total_steps):
        block, first = divmod(collector.rollouts + 1, NOISE)
        steps = min(NOISE - first, total_steps - collector.steps)
        most = int(min(NOISE, collector.ledger.most_episodes - collector.finished))
        act[:] = collector.decided["action"]
        taken, finished, fine = run(
            steps, most, env._arrays[:6], act, collector.numbers(block)[first:, 0], *learner, tuple(rows), values,
            (collector.ledger.returns, collector.ledger.lengths, collector.is_first), ends, td_error,
        )  # fmt: skip
        collector.advance(taken, {"action": act}, tuple(x[:finished] for x in ends))
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
def compiled(dynamics: Callable, observe: Callable, kind: int, sizes: Sizes, rule: tuple) -> Callable:
    """The loop around one world's functions (see envs/native/world.py), for one kind of features, these sizes and one rule of `td_step`.

    It returns (steps taken, episodes ended, whether the values are fine).
    """
    active, height, width, components, actions = sizes
    target_of, trace_kind, exclusive = rule
    allowed, ones = (True,) * actions, (1.0,) * active

    if kind == RAW:

        @register_jitable(forceinline=True)
        def values_of(row):
            return row

    else:  # features that are on or off need no multiplication

        @register_jitable(forceinline=True)
        def values_of(row):
            return ones

    def run(
        steps, most, world, act, noise, features, weight, all_traces, hashing, _, rates, exploration, rows, values,
        under_way, ends, td_error,
    ):  # fmt: skip
        table = features[1]
        if not (  # always so: the compiler takes it from here
            rows[0].shape[1] == active and rows[1].shape[1] == active and table.shape == (height, width)
            and world[4].shape[1] == components and world[5].shape[1] == components and len(values[0]) == actions
            and len(values[1]) == actions and len(values[2]) == actions
        ):  # fmt: skip
            return 0, 0, False
        states, clock, settings, start, observations, successors = world
        state, observation, successor = states[0], observations[0], successors[0]  # one view each, not one a step
        slots, size = features[2], features[3]
        traces = Traces(all_traces.slot[0], all_traces.feature[0], all_traces.packed[0], all_traces.numbers[0])
        indices, coefficients, keys = rows  # of s and of s', which change places at each step
        here = 0
        q, there, share = values
        action, finished, n, ended, fine = act[0], 0, 0, under_way[2][0], True
        ret, length = under_way[0][0], under_way[1][0]
        if ended:  # as learn_rows does at the first step of an episode
            clear(weight, traces)
        code(kind, observation, table, slots, indices[here], coefficients[here], keys[here])
        while n < steps and finished < most:
            index, value, key = indices[here], coefficients[here], keys[here]
            next_index, next_value, next_key = indices[1 - here], coefficients[1 - here], keys[1 - here]
            if kind == HASHED:
                claim(index, key, hashing)
            reward, terminated, truncated = advance(dynamics, state, action, 0, clock, settings)
            observe(state, successor)
            code(kind, successor, table, slots, next_index, next_value, next_key)
            read_all(weight, traces, next_index, values_of(next_value), size, q)
            following = choose(q, allowed, exploration, noise[n, 0], noise[n, 1], share)
            ended, next_action = terminated or truncated, following
            if ended:
                begin(state, 0, clock, settings, start)
                observe(state, observation)
                code(kind, observation, table, slots, next_index, next_value, next_key)
                read_all(weight, traces, next_index, values_of(next_value), size, there)
                following = choose(there, allowed, exploration, noise[n, 0], noise[n, 1], share)
            delta, fine = td_step(
                weight, traces, (target_of, trace_kind, exclusive), rates, exploration, size, index, values_of(value),
                action, reward, terminated, ended, q, next_action, allowed, share,
            )  # fmt: skip
            td_error[()] = delta
            n += 1
            if not fine:
                break
            anneal(exploration, rates)
            ret, length, action = ret + reward, length + 1, following
            here = 1 - here
            if ended:
                ends[0][finished], ends[1][finished], ends[2][finished] = n, length, ret
                finished, ret, length = finished + 1, 0.0, 0
        store(weight, traces)
        act[0] = action
        if not ended:
            for d in range(len(observation)):
                observation[d] = successor[d]
        under_way[0][0], under_way[1][0], under_way[2][0] = ret, length, ended
        return n, finished, fine

    constants = "_".join(str(int(number)) for number in (kind, *sizes, *rule))
    run.__qualname__ = f"{dynamics.__module__}.{dynamics.__name__}_{constants}"
    return cached(dynamics.__code__.co_filename, world_module, td, traces_module, tile_coding, greedy)(run)
