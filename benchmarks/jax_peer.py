"""A VAE and an IWAE in JAX, as its users write them: data on the device, steps scanned in one jitted call, optax.

The same architecture, estimators and loss as ours. A process that has made one of these is JAX's own: XLA reads its
number of threads once.
"""

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from iwae.model import Model, ModelConfig

INSTALLED = all(importlib.util.find_spec(name) for name in ("jax", "optax"))

Params = dict[str, list[tuple[Any, Any]]]  # layers of each network: weight [in, out] and bias [out]

if INSTALLED:
    import jax
    import optax
    from jax import lax, nn
    from jax import numpy as jnp


def limit_threads(threads: int) -> None:
    """Leave XLA so many of this machine's cores. Before JAX is first used in a process."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def params_of(model: Model) -> Params:
    """The weights of our model of one stochastic layer."""
    encoder = model.encoder[0]
    networks = {
        "encoder": [*encoder.hidden[0::2], encoder.mean, encoder.log_std],
        "decoder": [*model.pixel_hidden[0::2], model.pixel_logits],
    }
    return {
        name: [
            (jnp.asarray(each.weight.detach().cpu().numpy().T), jnp.asarray(each.bias.detach().cpu()))
            for each in linears
        ]
        for name, linears in networks.items()
    }


def encode(params: Params, x: Any) -> tuple[Any, Any]:
    """Mean and log standard deviation of q(h|x), [batch, latent] each."""
    *hidden, mean, log_std = params["encoder"]
    for weight, bias in hidden:
        x = jnp.tanh(x @ weight + bias)
    return x @ mean[0] + mean[1], x @ log_std[0] + log_std[1]


def log_joint(params: Params, x: Any, h: Any) -> Any:
    """log p(x, h) [k, batch], without the constant of the prior."""
    *hidden, (weight, bias) = params["decoder"]
    features = h
    for layer in hidden:
        features = jnp.tanh(features @ layer[0] + layer[1])
    logits = features @ weight + bias
    return (x * logits - nn.softplus(logits)).sum(-1) - 0.5 * jnp.square(h).sum(-1)


def log_weights(params: Params, x: Any, noise: Any) -> Any:
    """log p(x, h) − log q(h|x) [k, batch] for h = mean + std · noise [k, batch, latent]."""
    mean, log_std = encode(params, x)
    log_q = -0.5 * jnp.square(noise).sum(-1) - log_std.sum(-1)
    return log_joint(params, x, mean + jnp.exp(log_std) * noise) - log_q


def loss(params: Params, x: Any, noise: Any) -> Any:
    """Minus the mean bound L_k (k = 1: the ELBO)."""
    log_w = log_weights(params, x, noise)
    return -(nn.logsumexp(log_w, axis=0) - jnp.log(len(log_w))).mean()


def resampled_loss(params: Params, x: Any, noise: Any, uniform: Any) -> Any:
    """Its gradient is that of ``loss`` in expectation, by DReG and one draw of k, chosen by its weight, backward.

    Tucker et al. 2019: the chosen draw's path derivative counts w̃ for the encoder and 1 for the decoder.
    """
    weights = lax.stop_gradient(nn.softmax(log_weights(params, x, noise), axis=0))
    chosen = jnp.minimum((jnp.cumsum(weights, axis=0) < uniform).sum(0), len(weights) - 1)
    own = jnp.take_along_axis(noise, chosen[None, :, None], axis=0)[0]
    weight = jnp.take_along_axis(weights, chosen[None], axis=0)[0]
    mean, log_std = encode(params, x)
    h = mean + jnp.exp(log_std) * own
    fixed_mean, fixed_log_std = lax.stop_gradient((mean, log_std))
    h = lax.stop_gradient(h) + weight[:, None] * (h - lax.stop_gradient(h))  # the encoder's share of the gradient
    log_q = -0.5 * jnp.square((h - fixed_mean) * jnp.exp(-fixed_log_std)).sum(-1)
    return (log_q - log_joint(params, x, h)).mean()


def trainer(
    config: ModelConfig, images: np.ndarray, k: int, batch: int, resample: bool, chunk: int
) -> Callable[[int], Any]:
    """Trains on images [n, pixels]: a function that makes so many calls of ``chunk`` steps each, and returns the losses
    of the last one [chunk]."""
    data, optimizer = jnp.asarray(images, jnp.float32), optax.adam(1e-3)
    params = params_of(Model(config, seed=0))

    def step(carry: tuple, rows: Any) -> tuple[tuple, Any]:
        params, state, key = carry
        key, normal, uniform = jax.random.split(key, 3)
        x, noise = data[rows], jax.random.normal(normal, (k, batch, config.latent[0]))
        if resample:
            value, gradient = jax.value_and_grad(resampled_loss)(
                params, x, noise, jax.random.uniform(uniform, (batch,))
            )
        else:
            value, gradient = jax.value_and_grad(loss)(params, x, noise)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state, key), value

    @jax.jit(donate_argnums=0)
    def run(carry: tuple, order: Any) -> tuple[tuple, Any]:
        return lax.scan(step, carry, order)

    carry = (params, optimizer.init(params), jax.random.key(0, impl="rbg"))
    generator, order = np.random.default_rng(0), np.empty(0, np.int64)

    def work(calls: int) -> Any:
        nonlocal carry, order
        values = None
        for _ in range(calls):
            while len(order) < chunk * batch:
                order = np.concatenate([order, generator.permutation(len(data))])
            rows, order = order[: chunk * batch], order[chunk * batch :]
            carry, values = run(carry, rows.reshape(chunk, batch))
        return jax.block_until_ready((carry, values))[1]

    return work


def estimator(model: Model, images: np.ndarray, samples: int, at_once: int) -> Callable[[int], Any]:
    """−L_samples of images [n, pixels] under our model's weights: a function that estimates all of them so often, and
    returns the last estimates [n], nats."""
    params, data = params_of(model), jnp.asarray(images, jnp.float32)

    @jax.jit
    def nll(params: Params, data: Any, key: Any) -> Any:
        def some(x: Any, key: Any) -> Any:
            noise = jax.random.normal(key, (at_once, len(x), model.config.latent[0]))
            return nn.logsumexp(log_weights(params, x, noise), axis=0)

        parts = lax.map(lambda key: some(data, key), jax.random.split(key, samples // at_once))
        return jnp.log(samples) - nn.logsumexp(parts, axis=0)

    def work(times: int) -> Any:
        found = None
        for number in range(times):
            found = jax.block_until_ready(nll(params, data, jax.random.key(number, impl="rbg")))
        return found

    return work
