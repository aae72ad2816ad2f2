"""A model for other programs: its encoder and its decoder as ONNX, or as torch.export's ``.pt2``.

    encoder   x [batch, pixels] → mean_1, log_std_1, …, mean_L, log_std_L     q(h_l|h_l₋₁) at the mean of h_l₋₁
    decoder   h [batch, latent of layer L] → logits, probabilities            of the pixels, through the means below

With one layer both are exact; with more, layers above the first are evaluated at the means. The batch may
have any size. The checkpoint's card goes inside as JSON.
"""

import copy
import io
import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iwae import checkpoints
from iwae.checkpoints import Card
from iwae.model import Model
from iwae.system import optional

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
DECODED = {True: ["logits", "probabilities"], False: ["outputs", "means"]}  # the names, by whether pixels are binary
CARD = "card.json"  # the name of the card inside


class Encoder(nn.Module):
    """x → (mean, log standard deviation) of every stochastic layer, each given the mean of the one below."""

    def __init__(self, model: Model):
        super().__init__()
        self.layers = model.encoder

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        below, out = x, []
        for layer in self.layers:
            below, log_std = layer(below)
            out += [below, log_std]
        return tuple(out)


class Decoder(nn.Module):
    """The top layer's h → (the likelihood's outputs, the pixels' means): of binary pixels logits and probabilities."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = copy.deepcopy(model)
        del self.model.encoder  # whose weights would be exported too

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model.logits(self.model.ancestral_sample(h))
        return logits, self.model.likelihood.mean(logits)


def package(checkpoint: Path, formats: tuple[str, ...]) -> dict[str, bytes]:
    """What ``encoder`` and ``decoder`` files of a checkpoint hold, by file name, in each of ``formats``.

    Raises CheckpointError, ValueError for a format that does not exist, MissingError where ONNX is not installed.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ValueError(f"unknown format {unknown[0]!r}; there are {', '.join(FORMATS)}")
    if "onnx" in formats:
        optional.require("exporting to ONNX", "onnx", "onnxscript")
    model, card = checkpoints.load(checkpoint)
    layers = range(1, len(card.model.latent) + 1)
    outputs = [f"{name}_{layer}" for layer in layers for name in ("mean", "log_std")]
    parts = {
        "encoder": (Encoder(model), "x", card.model.pixels, outputs),
        "decoder": (Decoder(model), "h", card.model.latent[-1], DECODED[model.likelihood.binary]),
    }
    content = {}
    for name, (module, given, size, outputs) in parts.items():
        program = _trace(module.eval().requires_grad_(False), given, size)
        for form in formats:
            to_bytes = _onnx if form == "onnx" else _torch
            content[f"{name}{FORMATS[form]}"] = to_bytes(program, card, given, outputs)
    return content


def _trace(module: nn.Module, given: str, size: int) -> torch.export.ExportedProgram:
    example = torch.zeros(2, size)  # of any size above 1: one of 1 would be taken for a constant
    program = torch.export.export(module, (example,), dynamic_shapes={given: {0: torch.export.Dim("batch")}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of the source on this machine
    return program


def _torch(program: torch.export.ExportedProgram, card: Card, given: str, outputs: list[str]) -> bytes:
    buffer = io.BytesIO()
    names = {"inputs": [given], "outputs": outputs}
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch about itself
        torch.export.save(program, buffer, extra_files={CARD: json.dumps(asdict(card) | names)})
    return buffer.getvalue()


def _onnx(program: torch.export.ExportedProgram, card: Card, given: str, outputs: list[str]) -> bytes:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    with warnings.catch_warnings(action="ignore"):
        names: Any = {"input_names": [given], "output_names": outputs}
        exported: Any = torch.onnx.export(program, (), dynamo=True, verbose=False, **names)
    proto = exported.model_proto
    graph = proto.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]  # torch's own notes, the source's place among them
    proto.metadata_props.add(key=CARD, value=json.dumps(asdict(card)))
    return proto.SerializeToString()
