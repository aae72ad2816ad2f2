"""Exported encoders and decoders, run by the libraries they are made for, agree with the model in float32."""

import io
import json
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from iwae import catalog, checkpoints
from iwae.__main__ import main
from iwae.cli.card import card_text
from iwae.export import programs
from iwae.model import Model, ModelConfig
from iwae.system import optional
from iwae.training.config import TrainConfig

BATCHES = (1, 2, 7)  # traced with 2
SHIPPED = catalog.SHIPPED / f"{catalog.DEFAULT_PAIR[1]}{checkpoints.SUFFIX}"
FORMATS = ("torch",) if optional.missing("onnx", "onnxscript", "onnxruntime") else ("torch", "onnx")


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory) -> Path:
    """A small model of two stochastic layers, as it comes from its seed."""
    return saved("30,20:10/8:5", tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory) -> Path:
    """A small model with convolutions and a second stochastic layer above them."""
    return saved("3c,4c,20:10/8:5@relu", tmp_path_factory.mktemp("model") / "conv.safetensors")


def saved(sizes: str, path: Path) -> Path:
    config = ModelConfig.parse(sizes)
    card = checkpoints.Card(config, asdict(TrainConfig(model=str(config))), {"epochs": 0.0, "steps": 0})
    checkpoints.save(path, Model(config, seed=5), card)
    return path


@pytest.fixture(scope="module", params=["shipped", "two_layers", "convolutional"])
def exported(request, two_layers, convolutional) -> tuple[Path, dict[str, bytes]]:
    path = {"shipped": SHIPPED, "two_layers": two_layers, "convolutional": convolutional}[request.param]
    return path, programs.package(path, FORMATS)


def run(content: dict[str, bytes], name: str, form: str, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The outputs of an exported file by their names, computed by its own library."""
    data = content[name + programs.FORMATS[form]]
    if form == "torch":
        extra = {programs.CARD: ""}
        program = torch.export.load(io.BytesIO(data), extra_files=extra)
        with torch.no_grad():
            return dict(zip(json.loads(extra[programs.CARD])["outputs"], program.module()(x), strict=True))
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert given.shape[0] == "batch"
    outputs = session.run(None, {given.name: x.numpy()})
    return {out.name: torch.from_numpy(value) for out, value in zip(session.get_outputs(), outputs, strict=True)}


@pytest.mark.parametrize("form", ["torch", "onnx"])
@torch.no_grad()
def test_exported_encoder_and_decoder_agree_with_the_model(exported, form):
    if form not in FORMATS:
        pytest.skip("requirements-extra.txt")
    path, content = exported
    model, card = checkpoints.load(path)
    generator = torch.Generator().manual_seed(1)
    for batch in BATCHES:
        x = torch.bernoulli(torch.full((batch, 784), 0.2), generator=generator)
        found = run(content, "encoder", form, x)
        below = x
        for layer, encoder in enumerate(model.encoder, 1):
            mean, log_std = encoder(below)
            assert_close(found.pop(f"mean_{layer}"), mean)
            assert_close(found.pop(f"log_std_{layer}"), log_std)
            below = mean
        assert not found
        h = torch.randn(batch, card.model.latent[-1], generator=generator)
        found = run(content, "decoder", form, h)
        assert_close(found.pop("logits"), model.logits(model.ancestral_sample(h)))
        assert_close(found.pop("probabilities"), model.decode(model.ancestral_sample(h)))
        assert not found


def test_the_card_travels_inside_and_nothing_of_this_machine(exported):
    path, content = exported
    card = json.loads(json.dumps(asdict(checkpoints.read_card(path))))
    for name, data in content.items():
        if name.endswith(".onnx"):
            import onnx

            model = onnx.load_from_string(data)
            onnx.checker.check_model(model, full_check=True)
            inside, everything = json.loads(model.metadata_props[0].value), data
        else:
            extra = {programs.CARD: ""}
            torch.export.load(io.BytesIO(data), extra_files=extra)
            inside = json.loads(extra[programs.CARD])
            assert inside.pop("inputs") == ["x" if name.startswith("encoder") else "h"] and inside.pop("outputs")
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                everything = b"".join(archive.read(part) for part in archive.namelist())
        assert inside == card
        for place in (Path(torch.__file__).parents[1], catalog.SHIPPED.parent):
            assert str(place).encode() not in everything
        weights = 4 * sum(weight.numel() for weight in checkpoints.load(path)[0].parameters())  # bytes, as float32
        assert len(data) < 0.75 * weights + 40_000, "the other half of the model is in it too"


def test_the_command_makes_a_folder_for_the_hub(tmp_path, two_layers, capsys):
    folder = tmp_path / "out"
    assert main(["export", str(two_layers), "--out", str(folder), "--format", "torch"]) == 0
    content = {"encoder.pt2", "decoder.pt2", "model.safetensors", "config.json", "README.md"}
    assert {path.name for path in folder.iterdir()} == content
    assert (folder / "model.safetensors").read_bytes() == two_layers.read_bytes()
    assert (folder / "README.md").read_text() == card_text(two_layers, "model.safetensors")
    _, card = checkpoints.load(folder / "model.safetensors")
    assert checkpoints.read_card_alone(folder / "config.json") == card
    capsys.readouterr()
    assert main(["export", str(two_layers), "--out", str(folder)]) == 2  # it is no longer empty
    assert "--out must name a new or an empty folder" in capsys.readouterr().err


def test_without_the_packages_of_onnx_nothing_is_written_and_the_message_says_what_to_install(
    tmp_path, two_layers, capsys, monkeypatch
):
    monkeypatch.setattr(optional, "find_spec", lambda name: None)
    assert main(["export", str(two_layers), "--out", str(tmp_path / "out")]) == 1
    told = "error: exporting to ONNX needs onnx, onnxscript: pip install -r requirements-extra.txt\n"
    assert capsys.readouterr().err == told
    assert not (tmp_path / "out").exists()
