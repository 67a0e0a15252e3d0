"""PPO with environment and learner in one jitted program, as PureJaxRL does it: CartPole-v1 of gymnax, the parameters of the others.

The end of an episode cuts the bootstrap, also at the time limit, as CleanRL has it. Compilation lies before what counts.
"""

from functools import cache
from typing import NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import optax
from report import Timed, serve

EPOCHS, MINIBATCHES = 4, 4
GAMMA, LAMBDA, CLIP, ENTROPY, VALUE, MAX_NORM, LR = 0.99, 0.95, 0.2, 0.01, 0.5, 0.5, 1e-3
ENV, SETTINGS = gymnax.make("CartPole-v1")
OPTIMIZER = optax.chain(optax.clip_by_global_norm(MAX_NORM), optax.adam(LR, eps=1e-5))


class Row(NamedTuple):
    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array


def new_mlp(key, sizes, gain):
    gains = [2**0.5] * (len(sizes) - 2) + [gain]
    keys = jax.random.split(key, len(gains))
    shapes = zip(keys, gains, sizes[:-1], sizes[1:], strict=True)
    return [(jax.nn.initializers.orthogonal(g)(k, (a, b)), jnp.zeros(b)) for k, g, a, b in shapes]


def mlp(layers, x):
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
    return x @ layers[-1][0] + layers[-1][1]


def heads(parameters, x):
    return jax.nn.log_softmax(mlp(parameters["actor"], x)), mlp(parameters["critic"], x)[..., 0]


def taken(log_probs, action):
    return jnp.take_along_axis(log_probs, action[..., None], -1)[..., 0]


def loss(parameters, row, advantage, target):
    log_probs, value = heads(parameters, row.observation)
    ratio = jnp.exp(taken(log_probs, row.action) - row.log_prob)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    surrogate = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage).mean()
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
    return -surrogate - ENTROPY * entropy + VALUE * 0.5 * jnp.square(value - target).mean()


def act(carry, key):
    parameters, state, observation, total, finished = carry
    choose, move = jax.random.split(key)
    log_probs, value = heads(parameters, observation)
    action = jax.random.categorical(choose, log_probs)
    keys = jax.random.split(move, len(action))
    after, state, reward, terminated, truncated, _ = jax.vmap(ENV.step, (0, 0, 0, None))(keys, state, action, SETTINGS)
    done = terminated | truncated
    total = total + reward
    finished = jnp.where(done, total, finished)  # return of each environment's newest whole episode
    row = Row(observation, action, taken(log_probs, action), value, reward, done)
    return (parameters, state, after, jnp.where(done, 0.0, total), finished), row


def advantages(rows, last_value):
    def back(carry, row):
        advantage, next_value = carry
        alive = 1.0 - row.done
        delta = row.reward + GAMMA * next_value * alive - row.value
        advantage = delta + GAMMA * LAMBDA * alive * advantage
        return (advantage, row.value), advantage

    return jax.lax.scan(back, (jnp.zeros_like(last_value), last_value), rows, reverse=True)[1]


@cache
def iterations(num_envs, num_steps, count):
    """(function that begins, function that goes on by `count` iterations), jitted."""
    size = num_envs * num_steps

    def minibatch(carry, batch):
        parameters, moments = carry
        change, moments = OPTIMIZER.update(jax.grad(loss)(parameters, *batch), moments, parameters)
        return (optax.apply_updates(parameters, change), moments), None

    def iteration(carry, _):
        parameters, moments, world, key = carry
        key, acting, *shuffles = jax.random.split(key, 2 + EPOCHS)
        (_, *world), rows = jax.lax.scan(act, (parameters, *world), jax.random.split(acting, num_steps))
        advantage = advantages(rows, heads(parameters, world[1])[1])
        data = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), (rows, advantage, advantage + rows.value))

        def epoch(carry, key):
            order = jax.random.permutation(key, size)
            batches = jax.tree.map(lambda x: x[order].reshape(MINIBATCHES, -1, *x.shape[1:]), data)
            return jax.lax.scan(minibatch, carry, batches)

        (parameters, moments), _ = jax.lax.scan(epoch, (parameters, moments), jnp.stack(shuffles))
        return (parameters, moments, tuple(world), key), None

    def begin(seed):
        key, actor, critic, reset = jax.random.split(jax.random.key(seed), 4)
        parameters = {"actor": new_mlp(actor, (4, 64, 64, 2), 0.01), "critic": new_mlp(critic, (4, 64, 64, 1), 1.0)}
        observation, state = jax.vmap(ENV.reset, (0, None))(jax.random.split(reset, num_envs), SETTINGS)
        zero = jnp.zeros(num_envs)
        return parameters, OPTIMIZER.init(parameters), (state, observation, zero, zero), key

    return jax.jit(begin), jax.jit(lambda carry: jax.lax.scan(iteration, carry, None, count)[0])


def run(num_envs=8, num_steps=128, seconds=1.0, seed=0):
    count = max(1, 16_384 // (num_envs * num_steps))
    begin, go_on = iterations(num_envs, num_steps, count)
    carry, steps, timer = begin(seed), 0, Timed(2 * num_envs * num_steps, seconds)
    while not timer(steps):
        carry = jax.block_until_ready(go_on(carry))
        steps += count * num_envs * num_steps
    return timer.outcome(carry[2][3].mean())


if __name__ == "__main__":
    serve(run)
