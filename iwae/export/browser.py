"""A model for a web page: its encoder and decoder as a list of layers, with the weights in half precision.

One ``.safetensors`` file of float16 tensors. Its header holds, under ``program``, JSON:

    version   1
    encoder   for each stochastic layer l = 1 … L the steps from x, or from h_l₋₁, to mean_l, std_l and
              h_l = mean_l + std_l · noise_l
    decoder   the steps from h_1 to pixels, the probabilities E[x|h₁]
    above     for each stochastic layer l = 2 … L the steps from h_l to h_l₋₁, the mean of p(h_l₋₁|h_l)

A step computes the value named ``to`` from those named in ``of``, and is one of

    affine    of [value], with the tensors ``weights``.weight and ``weights``.bias: value · weightᵀ + bias
    tanh, relu, silu, exp, sigmoid      of [value], element by element
    normal    of [mean, std, noise]: mean + std · noise

so a program that knows these five runs any such model, whatever its sizes (pages/common/input/forward.js).
"""

import json
from collections.abc import Iterable
from typing import Any

import safetensors.torch
from torch import nn

from iwae import checkpoints
from iwae.kernels import precision
from iwae.kernels.layers import ACTIVATIONS
from iwae.model import Model

VERSION = 1
ELEMENTWISE = {ACTIVATIONS[name]: name for name in ("tanh", "relu", "silu")}
LARGEST = 1_100_000  # bytes of a file: one of two stochastic layers of the paper's sizes has 970,000

Step = dict[str, Any]


class BrowserError(ValueError):
    """A model that no page can run; the message says why."""


def package(model: Model) -> bytes:
    """The file of a model; raises BrowserError for one that is not made of the steps above, or is too large."""
    program = steps(model)
    needed = [
        step["weights"]
        for layer in [*program["encoder"], program["decoder"], *program["above"]]
        for step in layer
        if "weights" in step
    ]
    size = 2 * sum(weight.numel() for name in needed for weight in model.get_submodule(name).parameters())
    if size > LARGEST:
        raise BrowserError(f"its weights would be {size / 1e6:.1f} MB, and a page takes {LARGEST / 1e6:.1f} MB")
    try:
        weights = checkpoints.half_weights(model)
    except ValueError as error:
        raise BrowserError(str(error)) from None
    tensors = {
        f"{name}.{kind}": weights[f"{name}.{kind}"].cpu().contiguous() for name in needed for kind in ("weight", "bias")
    }
    return safetensors.torch.save(tensors, {"program": json.dumps(program)})


def steps(model: Model) -> dict[str, Any]:
    """What ``program`` holds for this model; raises BrowserError where a module is not one of the known steps."""
    if (reason := model.nonstandard()) is not None:
        raise BrowserError(reason)
    if model.config.likelihood != "bernoulli":
        raise BrowserError(f"its likelihood is {model.config.likelihood}, and a page decodes Bernoulli pixels alone")
    if model.config.convolutions:
        raise BrowserError("it has convolutions, which a page does not compute")
    encoder, below = [], "x"
    layers: list[Any] = list(model.encoder)
    for place, layer in enumerate(layers):
        number, name = place + 1, f"encoder.{place}"
        mean, log_std, std, h = (f"{value}_{number}" for value in ("mean", "log_std", "std", "h"))
        hidden, features = _sequence(layer.hidden, f"{name}.hidden", below)
        encoder.append([
            *hidden,
            _affine(features, mean, f"{name}.mean"),
            _affine(features, log_std, f"{name}.log_std"),
            {"op": "exp", "of": [log_std], "to": std},
            {"op": "normal", "of": [mean, std, f"noise_{number}"], "to": h},
        ])  # fmt: skip
        below = h
    hidden, features = _sequence(model.pixel_hidden, "pixel_hidden", "h_1")
    decoder = [
        *hidden,
        _affine(features, "logits", "pixel_logits"),
        {"op": "sigmoid", "of": ["logits"], "to": "pixels"},
    ]
    above = []
    layers = list(model.decoder)
    for place, layer in enumerate(layers):
        name = f"decoder.{place}"
        hidden, features = _sequence(layer.hidden, f"{name}.hidden", f"h_{place + 2}")
        above.append([*hidden, _affine(features, f"h_{place + 1}", f"{name}.mean")])
    return {"version": VERSION, "encoder": encoder, "decoder": decoder, "above": above}


def _sequence(modules: Iterable[nn.Module], name: str, value: str) -> tuple[list[Step], str]:
    """The steps of modules one after the other, and the name of the last value."""
    found = []
    for place, module in enumerate(modules):
        before, value = value, f"{name}.{place}"
        if type(module) is precision.Linear:
            found.append(_affine(before, value, value))
        elif type(module) in ELEMENTWISE:
            found.append({"op": ELEMENTWISE[type(module)], "of": [before], "to": value})
        else:
            raise BrowserError(f"module {value!r} is a {type(module).__name__}")
    return found, value


def _affine(value: str, to: str, weights: str) -> Step:
    return {"op": "affine", "of": [value], "to": to, "weights": weights}
