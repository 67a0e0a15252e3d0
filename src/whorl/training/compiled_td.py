"""TD(lambda) on a native world in one compiled loop: environment, features, policy and update, with nothing between them.

It does what loop.train, StreamCollector and TD.learn do, step for step with the same random numbers, and leaves the same state behind:
a run may change from one to the other at any step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np

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
from whorl.nets.tile_coding import HASHED, code
from whorl.policies import greedy
from whorl.policies.greedy import choose, row_of
from whorl.training.loop import Hook


def train(agent: TD, collector: StreamCollector, buffer: Any, total_steps: int, hooks: Iterable[Hook] = ()) -> None:
    """As loop.train, in pieces of up to `NOISE` steps; hooks run after each piece. Raises BadInput for parts it cannot take."""
    check(agent, collector)
    env: Any = collector.env
    collector.begin()
    actions, features = agent.policy.actions, agent.critic.features
    learner, rows = agent.learner(), [np.stack(pair) for pair in zip(row_of(features), row_of(features), strict=True)]
    values = np.zeros(agent.critic.actions), np.zeros(actions), np.zeros(actions), np.ones(actions, bool)
    act = np.zeros(1, np.int64)
    run = compiled(type(env).dynamics, type(env).observe)
    ends = np.zeros(NOISE, np.int64), np.zeros(NOISE, np.int64), np.zeros(NOISE)  # step, length and return
    while not collector.done(total_steps):
        block, first = divmod(collector.rollouts + 1, NOISE)
        steps = min(NOISE - first, total_steps - collector.steps)
        most = int(min(NOISE, collector.most_episodes - collector.finished))
        act[:] = collector.decided["action"]
        taken, finished, fine = run(
            steps, most, env._arrays[:6], act, collector.numbers(block)[first:, 0], *learner, tuple(rows), values,
            (collector._return, collector._length, collector._is_first), ends, agent.td_error.numpy(),
        )  # fmt: skip
        collector.advance(taken, {"action": act}, [x[:finished] for x in ends])
        agent.env_steps += taken
        if not fine:
            raise agent.diverged(0)
        for hook in hooks:
            hook(None, agent.metrics)


def check(agent: TD, collector: StreamCollector) -> None:
    """Raises BadInput for what is not in the compiled loop."""
    env = collector.env
    if not isinstance(agent, TD) or not isinstance(agent.critic, LinearQ):
        raise BadInput("the compiled loop learns linear values (td with a table, linear features or tile coding)")
    if agent.critic is not agent.policy.q:
        raise BadInput("the compiled loop is for control: a prediction learns through the ordinary loop")
    if not isinstance(env, World) or env.num_envs != 1 or env.action_mask is not None:
        raise BadInput(f"the compiled loop needs one native world without action masks, num_envs=1; got {env!r}")


@cache
def compiled(dynamics: Callable, observe: Callable) -> Callable:
    """The loop around one world's functions (see envs/native/world.py).

    It returns (steps taken, episodes ended, whether the values are fine).
    """

    def run(
        steps, most, world, act, noise, features, weight, all_traces, hashing, rule, rates, exploration, rows, values,
        under_way, ends, td_error,
    ):  # fmt: skip
        states, clock, settings, start, observations, successors = world
        state, observation, successor = states[0], observations[0], successors[0]  # one view each, not one a step
        kind, table, slots, size = features
        traces = Traces(all_traces.slot[0], all_traces.feature[0], all_traces.packed[0], all_traces.numbers[0])
        indices, coefficients, keys = rows  # of s and of s', which change places at each step
        here = 0
        q, there, share, allowed = values
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
            read_all(weight, traces, next_index, next_value, size, q)
            following = choose(q, allowed, exploration, noise[n, 0], noise[n, 1], share)
            ended, next_action = terminated or truncated, following
            if ended:
                begin(state, 0, clock, settings, start)
                observe(state, observation)
                code(kind, observation, table, slots, next_index, next_value, next_key)
                read_all(weight, traces, next_index, next_value, size, there)
                following = choose(there, allowed, exploration, noise[n, 0], noise[n, 1], share)
            delta, fine = td_step(
                weight, traces, rule, rates, exploration, size, index, value, action, reward, terminated, ended,
                q, next_action, allowed, share,
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

    run.__qualname__ = f"{dynamics.__module__}.{dynamics.__name__}"
    return cached(dynamics.__code__.co_filename, world_module, td, traces_module, tile_coding, greedy)(run)
