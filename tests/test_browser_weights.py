"""Models for a web page: what a file holds is the model's own layers, rounded, and what cannot be held is refused."""

import json

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.testing import assert_close

from iwae import catalog, checkpoints
from iwae.analysis import latent
from iwae.export import browser
from iwae.model import Model, ModelConfig

ELEMENTWISE = {"tanh": torch.tanh, "exp": torch.exp, "sigmoid": torch.sigmoid}
ELEMENTWISE |= {"relu": torch.relu, "silu": torch.nn.functional.silu}


def read(content: bytes) -> tuple[dict, dict[str, torch.Tensor]]:
    """Program and tensors of a file."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return json.loads(header["__metadata__"]["program"]), safetensors.torch.load(content)


def run(content: bytes, values: dict[str, torch.Tensor], *, down: bool = False) -> dict[str, torch.Tensor]:
    """Every step of the file in float32, as its docstring defines them; ``down`` from the top layer, not from x."""
    program, tensors = read(content)
    layers = [*reversed(program["above"])] if down else [*program["encoder"], program["decoder"]]
    for step in [step for layer in layers for step in layer]:
        given = [values[name] for name in step["of"]]
        if step["op"] == "affine":
            weight, bias = (tensors[f"{step['weights']}.{kind}"].float() for kind in ("weight", "bias"))
            values[step["to"]] = given[0] @ weight.T + bias
        elif step["op"] == "normal":
            values[step["to"]] = given[0] + given[1] * given[2]
        else:
            values[step["to"]] = ELEMENTWISE[step["op"]](*given)
    return values


@pytest.mark.parametrize("sizes", ["30,20:10", "30:8/20,10:5/7:3@relu", "20:4@silu"])
def test_the_steps_are_the_model(sizes):
    model = Model(ModelConfig.parse(sizes), seed=3)
    model.load_state_dict({name: weight.half().float() for name, weight in model.state_dict().items()})
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(784, generator=generator).round().expand(4, 784)
    noise = model.noise(1, 4, generator)
    given = {"x": x} | {f"noise_{number}": eps[0] for number, eps in enumerate(noise, 1)}
    values = run(browser.package(model), given)
    with torch.no_grad():
        drawn = model.sample(x, noise=noise)
        for number, h in enumerate(drawn.h, 1):
            assert_close(values[f"h_{number}"], h[0])
        assert_close(values["mean_1"], model.encode_first(x)[0])
        assert_close(values["std_1"], model.encode_first(x)[1].exp())
        assert_close(values["pixels"], model.decode(drawn.h[0][0]))
        top, depth = drawn.h[-1][0], len(drawn.h)
        below = run(browser.package(model), {f"h_{depth}": top}, down=True)
        assert_close(below["h_1"], latent.first_layer(model, top, depth))
        assert_close(below["h_1"], model.ancestral_sample(top))


def test_every_shipped_model_fits():
    sizes = {}
    for key, entry in catalog.entries()[0].items():
        content = browser.package(checkpoints.load(entry.path)[0])
        sizes[key] = len(content)
        tensors = read(content)[1]
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert sizes and max(sizes.values()) <= browser.LARGEST


def test_what_a_page_cannot_run_is_refused_with_a_reason():
    large = Model(ModelConfig.parse("600,600:50"))
    with pytest.raises(browser.BrowserError, match=r"3\.5 MB, and a page takes 1\.1 MB"):
        browser.package(large)
    relu = Model(ModelConfig.parse("20:5"))
    relu.pixel_hidden[1] = nn.ReLU()
    with pytest.raises(browser.BrowserError, match="pixel_hidden"):
        browser.package(relu)
    with pytest.raises(browser.BrowserError, match="GELU"):
        browser.package(Model(ModelConfig.parse("20:5@gelu")))
    wide = Model(ModelConfig.parse("20:5"))
    with torch.no_grad():
        wide.pixel_logits.bias[0] = 1e6
    with pytest.raises(browser.BrowserError, match="65,504"):
        browser.package(wide)
