"""The Hugging Face cards: what the Hub reads, against the checkpoint's own card, and the shipped files."""

import dataclasses
import json

import pytest

from iwae import catalog, checkpoints
from iwae.__main__ import main
from iwae.checkpoints import Card
from iwae.cli.card import card_text
from iwae.export import model_card
from iwae.model import ModelConfig
from iwae.training import commands
from iwae.training.config import TrainConfig

SHIPPED = sorted(catalog.SHIPPED.glob(f"*{checkpoints.SUFFIX}"))
NAMED = {"nll", "elbo", "reconstruction", "kl_prior", "kl_posterior", "pruned_nll", "ess"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_model_has_its_card_beside_it(path):
    """Where this fails, `python -m iwae card checkpoints/*.safetensors --beside` writes them anew."""
    assert path.with_suffix(".md").read_text() == card_text(path)


def test_no_card_lies_without_its_model():
    cards = {path.stem for path in catalog.SHIPPED.glob("*.md")} - {"README"}
    assert cards == {path.stem for path in SHIPPED}


def two_layers() -> Card:
    metrics = {name: 80 + place / 7 for place, name in enumerate(sorted(NAMED))}
    metrics |= {f"{name}_se": 0.123456 for name in NAMED} | {"active_units": [7, 2], "pca_active_units": [6, 2]}
    metrics |= {"threshold": 0.01, "images": 300, "samples": 1000, "seed": 4}
    training = dataclasses.asdict(TrainConfig(model="16:8/8:4", start="first.safetensors", objective="vae", k=1))
    progress = {"steps": 650, "epochs": 50.0, "seconds": 90.0, "device": "cpu", "valid_bound": -101.5}
    progress["history"] = [{"training": dataclasses.asdict(TrainConfig(model="16:8/8:4", k=5)), "epochs": 50.0}]
    return Card(ModelConfig.parse("16:8/8:4"), training, progress, metrics)


@pytest.mark.parametrize("which", [*SHIPPED, two_layers], ids=lambda which: getattr(which, "stem", "two_layers"))
def test_the_hub_reads_what_the_checkpoint_says(which):
    hub = pytest.importorskip("huggingface_hub", reason="requirements-extra.txt")
    card = two_layers() if which is two_layers else checkpoints.read_card(which)
    text = model_card.text(card, "a-model", "a-model.safetensors")
    data = hub.ModelCard(text).data  # parses the YAML, and the results into EvalResult
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "iwae", "unconditional-image-generation")
    assert ("importance-weighted-autoencoder" in data.tags) == (card.training["objective"] != "vae")
    assert data.datasets == (["ylecun/mnist"] if card.training["dataset"] == "mnist" else None)
    assert data.model_name == "a-model"
    results = {result.metric_type: result for result in data.eval_results}
    assert data.metrics == list(results)
    for name in NAMED:
        assert results[name].metric_value == pytest.approx(card.metrics[name], abs=5.1e-5)
        how = dict(results[name].metric_args)
        assert how.pop("standard_error") == pytest.approx(card.metrics[f"{name}_se"], abs=5.1e-5)
        assert how == {key: card.metrics[key] for key in ("images", "samples", "seed")}
        assert results[name].dataset_split == "test"
    units = {f"{name}_{layer}": value for name in ("active_units", "pca_active_units")
             for layer, value in enumerate(card.metrics[name], 1)}  # fmt: skip
    assert {name: result.metric_value for name, result in results.items() if name not in NAMED} == units
    assert json.loads(json.dumps(data.to_dict())) == data.to_dict()  # plain values only, as the Hub stores them


def test_the_text_tells_how_it_was_trained_and_measured():
    card = two_layers()
    text = model_card.text(card, "a-model", "model.safetensors")
    first, second = (
        commands.train(TrainConfig.from_dict(part)) for part in (card.progress["history"][0]["training"], card.training)
    )
    assert f"```sh\n{first}\n{second}\n```" in text
    assert f"| NLL | {card.metrics['nll']:.2f} ± 0.12 |" in text and "| active units | 7 of 8 + 2 of 4 |" in text
    assert 'checkpoints.load(Path("model.safetensors"))' in text
    bare = model_card.text(dataclasses.replace(card, metrics={}), "a-model", "model.safetensors")
    assert "Not evaluated yet." in bare and "model-index" not in bare


def test_the_example_in_a_card_runs():
    path = SHIPPED[0]
    code = card_text(path, str(path)).split("```python\n")[1].split("```")[0]
    values = {}
    exec(code, values)
    assert values["log_w"].shape == (50, 1) and values["pixels"].shape == (1, 784)


def test_the_command_prints_or_writes(tmp_path, capsys):
    path = tmp_path / "copy.safetensors"
    path.write_bytes(SHIPPED[0].read_bytes())
    text = card_text(path)
    assert main(["card", str(path)]) == 0
    assert capsys.readouterr().out == text
    assert main(["card", str(path), "--out", str(tmp_path / "deep" / "README.md")]) == 0
    assert main(["card", str(path), "--beside"]) == 0
    assert (tmp_path / "deep" / "README.md").read_text() == text == (tmp_path / "copy.md").read_text()


def test_products_are_told_where_they_were_not_what_was_asked_for():
    card = two_layers()
    card.training["precision"] = "bfloat16"
    assert "matmul precision |" not in model_card.text(card, "m", "m.safetensors")  # not known
    card.progress["precision"] = "float32"
    row = "| matmul precision | float32: its processor had no use for bfloat16 |"
    assert row in model_card.text(card, "m", "m.safetensors")
