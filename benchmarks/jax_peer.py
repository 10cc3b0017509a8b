"""The updates of workloads.py in JAX: ``jit`` of one update, and ``scan`` over many updates in one call.

Networks and data are arguments, and each update of a scan has a minibatch of its own. With the same data in all updates, or with data that
the function closes over, XLA computes the target network's output once for all of them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SCAN_LENGTH = 100


def _perceptron(rng: Any, sizes: tuple[int, ...]) -> list[Any]:
    pairs = zip(sizes, sizes[1:], strict=False)
    bounds = [(a, b, 1 / np.sqrt(a)) for a, b in pairs]
    return [
        (jnp.asarray(rng.uniform(-c, c, (a, b)), jnp.float32), jnp.asarray(rng.uniform(-c, c, b), jnp.float32))
        for a, b, c in bounds
    ]


def _forward(parameters: list[Any], x: Any, activation: Callable = jax.nn.relu) -> Any:
    for w, b in parameters[:-1]:
        x = activation(x @ w + b)
    w, b = parameters[-1]
    return x @ w + b


def _adam_state(parameters: Any) -> Any:
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    return zeros, zeros, jnp.zeros(())


def _adam(parameters: Any, gradients: Any, state: Any, rate: float, eps: float = 1e-8) -> Any:
    m, v, step = state
    step = step + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradients)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradients)
    scale, root = rate / (1 - 0.9**step), 1 / jnp.sqrt(1 - 0.999**step)
    moved = jax.tree.map(lambda p, m, v: p - scale * m / (jnp.sqrt(v) * root + eps), parameters, m, v)
    return moved, (m, v, step)


def _runners(update: Callable, state: Any, minibatches: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Two functions: one jitted update, and `SCAN_LENGTH` updates in one call. Both keep their state and wait for the result.

    ``update`` takes the state and one minibatch. The arrays of ``minibatches`` are `SCAN_LENGTH` of these.
    """
    once = jax.jit(update)
    many = jax.jit(lambda s, data: jax.lax.scan(lambda c, one: (update(c, one), None), s, data)[0])
    states = {"once": state, "many": state}
    first = jax.tree.map(lambda x: x[0], minibatches)

    def run_once():
        states["once"] = jax.block_until_ready(once(states["once"], first))

    def run_many():
        states["many"] = jax.block_until_ready(many(states["many"], minibatches))

    return run_once, run_many


def dqn(sizes: tuple[int, ...], batch: int) -> tuple[Callable, Callable]:
    rng = np.random.default_rng(0)
    q, target = _perceptron(rng, sizes), _perceptron(rng, sizes)
    many = (SCAN_LENGTH, batch)
    observations, following = (jnp.asarray(rng.standard_normal((*many, sizes[0])), jnp.float32) for _ in range(2))
    actions = jnp.asarray(rng.integers(0, sizes[-1], many))
    rewards, terminated = jnp.ones(many), jnp.zeros(many)

    def loss(q, target, minibatch):
        observations, actions, rewards, following, terminated = minibatch
        td_target = rewards + 0.99 * (1 - terminated) * _forward(target, following).max(1)
        taken = jnp.take_along_axis(_forward(q, observations), actions[:, None], 1)[:, 0]
        return ((taken - jax.lax.stop_gradient(td_target)) ** 2).mean()

    def update(state, minibatch):
        q, target, adam = state
        q, adam = _adam(q, jax.grad(loss)(q, target, minibatch), adam, 1e-3)
        return q, target, adam

    return _runners(update, (q, target, _adam_state(q)), (observations, actions, rewards, following, terminated))


def ppo(sizes: tuple[int, ...], batch: int) -> tuple[Callable, Callable]:
    rng = np.random.default_rng(0)
    networks = (_perceptron(rng, sizes), _perceptron(rng, (*sizes[:-1], 1)))
    many = (SCAN_LENGTH, batch)
    observations = jnp.asarray(rng.standard_normal((*many, sizes[0])), jnp.float32)
    actions = jnp.asarray(rng.integers(0, sizes[-1], many))
    advantages, returns = (jnp.asarray(rng.standard_normal(many), jnp.float32) for _ in range(2))
    old_log_prob = jnp.full(many, -0.7)

    def loss(networks, minibatch):
        actor, critic = networks
        observations, actions, old_log_prob, advantages, returns = minibatch
        log_probs = jax.nn.log_softmax(_forward(actor, observations, jnp.tanh))
        ratio = jnp.exp(jnp.take_along_axis(log_probs, actions[:, None], 1)[:, 0] - old_log_prob)
        scaled = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)
        policy = -jnp.minimum(ratio * scaled, jnp.clip(ratio, 0.8, 1.2) * scaled).mean()
        value = ((_forward(critic, observations, jnp.tanh)[:, 0] - returns) ** 2).mean()
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
        return policy + 0.5 * value - 0.01 * entropy

    def update(state, minibatch):
        networks, adam = state
        gradients = jax.grad(loss)(networks, minibatch)
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(gradients)))
        gradients = jax.tree.map(lambda g: g * jnp.minimum(0.5 / (norm + 1e-6), 1.0), gradients)
        return _adam(networks, gradients, adam, 3e-4, 1e-5)

    return _runners(update, (networks, _adam_state(networks)), (observations, actions, old_log_prob, advantages, returns))


def sac(sizes: tuple[int, ...], batch: int) -> tuple[Callable, Callable]:
    rng = np.random.default_rng(0)
    inputs = sizes[0]
    hidden = sizes[1:-1]
    outputs = sizes[-1]
    actor = _perceptron(rng, (inputs, *hidden, 2 * outputs))
    critics, targets = ([_perceptron(rng, (inputs + outputs, *hidden, 1)) for _ in range(2)] for _ in range(2))
    many = (SCAN_LENGTH, batch)
    observations, following = (jnp.asarray(rng.standard_normal((*many, inputs)), jnp.float32) for _ in range(2))
    actions = jnp.asarray(rng.uniform(-1, 1, (*many, outputs)), jnp.float32)

    def sample(actor, x, key):
        out = _forward(actor, x)
        mean = out[:, :outputs]
        log_std = jnp.clip(out[:, outputs:], -20.0, 2.0)
        noise = jax.random.normal(key, mean.shape)
        u = mean + jnp.exp(log_std) * noise
        log_prob = -0.5 * noise * noise - log_std - 0.9189385 - 2.0 * (0.6931472 - u - jax.nn.softplus(-2.0 * u))
        return jnp.tanh(u), log_prob.sum(1, keepdims=True)

    def smaller(critics, x):
        return jnp.minimum(_forward(critics[0], x), _forward(critics[1], x))

    def update(state, minibatch):
        actor, critics, targets, log_alpha, adams, key = state
        observations, actions, following = minibatch
        key, first, second = jax.random.split(key, 3)
        alpha = jnp.exp(log_alpha)
        next_actions, next_log_prob = sample(actor, following, first)
        next_q = smaller(targets, jnp.concatenate([following, next_actions], 1)) - alpha * next_log_prob
        td_target = 1.0 + 0.99 * next_q
        joined = jnp.concatenate([observations, actions], 1)
        gradients = jax.grad(lambda c: sum(((_forward(k, joined) - td_target) ** 2).mean() for k in c))(critics)
        critics, critic_adam = _adam(critics, gradients, adams[0], 1e-3)

        def actor_loss(actor):
            new_actions, log_prob = sample(actor, observations, second)
            q = smaller(critics, jnp.concatenate([observations, new_actions], 1))
            return (alpha * log_prob - q).mean(), log_prob

        gradients, log_prob = jax.grad(actor_loss, has_aux=True)(actor)
        actor, actor_adam = _adam(actor, gradients, adams[1], 1e-3)
        gradient = jax.grad(lambda a: -(jnp.exp(a) * (log_prob - outputs)).mean())(log_alpha)
        log_alpha, alpha_adam = _adam(log_alpha, gradient, adams[2], 1e-3)
        targets = jax.tree.map(lambda t, c: t + 0.005 * (c - t), targets, critics)
        return actor, critics, targets, log_alpha, (critic_adam, actor_adam, alpha_adam), key

    log_alpha = jnp.zeros(1)
    adams = (_adam_state(critics), _adam_state(actor), _adam_state(log_alpha))
    state = (actor, critics, targets, log_alpha, adams, jax.random.PRNGKey(0))
    return _runners(update, state, (observations, actions, following))
