"""A model that is added from a file, and hostile names, in the app."""

import re
import time
from pathlib import Path

import pytest
import torch

from iwae import catalog, checkpoints
from iwae.checkpoints import Card
from iwae.model import Model, ModelConfig
from pages.common.figure_card import escape_markdown
from tests.app import open_section

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


def add(test, name: str, content: bytes):
    next(box for box in test.file_uploader if "checkpoint" in box.label).upload(name, content)
    next(button for button in test.button if button.label == "Add as model B").click()
    return test.run()


def test_an_added_model_becomes_b(app, models):
    source = catalog.SHIPPED / f"{catalog.DEFAULT_PAIR[0]}.safetensors"
    test = add(app(), "../my model.safetensors", source.read_bytes())
    assert not test.exception and not test.error
    assert [path.name for path in models.iterdir()] == ["my-model.safetensors"]
    assert test.selectbox(key="b").value == "model:my-model"
    assert test.metric[0].value == test.metric[2].value  # A is the same model


def test_a_refused_file_gets_a_sentence_without_markup(app, models):
    test = add(app(), "![x](http://127.0.0.1:9/track.png).safetensors", b"\x80\x04.")
    assert not test.exception and len(test.error) == 1 and not models.exists()
    assert "not a safetensors file" in test.error[0].value and "![" not in test.error[0].value


def wild(name: str, value: float) -> None:
    """Adds a model whose layer of this name has all its weights and biases at one value."""
    model, card = checkpoints.load(catalog.SHIPPED / f"{catalog.DEFAULT_PAIR[0]}.safetensors")
    with torch.no_grad():
        layer = model.get_submodule(name)
        layer.weight.fill_(value if name != LOG_STD else 0)
        layer.bias.fill_(value)
    card.progress["weights"] = "float32"  # half precision ends at 65,504
    checkpoints.save(catalog.models_dir() / "wild.safetensors", model, card)


LOG_STD = "encoder.0.log_std"
LOGITS, MEAN = ("pixel_logits", 3e38), ("encoder.0.mean", 3e38)
WIDE, NARROW = (LOG_STD, 1000.0), (LOG_STD, -1000.0)


@pytest.mark.parametrize(
    ("page", "layer", "says"),
    [
        ("home.py", LOGITS, "the log-weights of 5,000 of 5,000 draws are not finite"),
        ("home.py", NARROW, "log standard deviation of q(h₁|x) of image 0 is -inf"),
        ("pages/2_Latent_space.py", MEAN, "the mean of q(h₁|x) of image "),
        ("pages/2_Latent_space.py", WIDE, "log standard deviation of q(h₁|x) of image "),
        ("pages/2_Latent_space.py", NARROW, "log standard deviation of q(h₁|x) of image 0 is -inf"),
        ("pages/3_Active_units.py", LOGITS, "log p̂(x) of image "),
        ("pages/3_Active_units.py", MEAN, r"E\_q\[h|x\] in layer 1 of image "),
        ("pages/3_Active_units.py", WIDE, "the KL of a unit in layer 1 of image "),
        ("pages/4_Reconstructions.py", LOGITS, "the loss of the reconstruction (draw) of image "),
        ("pages/5_Samples.py", LOGITS, "what the decoder says of a pixel of image "),
    ],
)
def test_weights_that_no_number_can_follow_get_a_sentence(app, page, layer, says):
    wild(*layer)
    test = app(page, b="model:wild")
    assert not test.exception
    (error,) = [error.value for error in test.error]
    assert error.startswith("VAE k = 1 cannot be used: ") and says in error


def test_a_posterior_too_narrow_for_a_number_still_has_its_kl(app):
    """log σ = −1000 in 50 units: KL = (μ² − 1)/2 + 1000 each, which needs no σ."""
    wild(*NARROW)
    test = app("pages/3_Active_units.py", b="model:wild")
    open_section(test, "One unit at a time")
    assert not test.error
    label = test.selectbox(key="unit.b").options[0]
    assert float(label.split(" · ")[1].split()[0]) == pytest.approx(1000, abs=20)


def keep(name: str, config: ModelConfig) -> None:
    """A model of these sizes among those that were added."""
    card = Card(config, checkpoints.read_card(catalog.SHIPPED / f"{catalog.DEFAULT_PAIR[0]}.safetensors").training)
    checkpoints.save(catalog.models_dir() / f"{name}.safetensors", Model(config), card)


def test_a_model_too_large_for_a_page_is_refused_there_by_name(app):
    keep("many", ModelConfig(hidden=((20,),), latent=(1500,)))
    assert not app(b="model:many", image=1).error  # the first page can
    test = app("pages/2_Latent_space.py", b="model:many", images=200)
    assert not test.exception and len(test.error) == 1
    said = test.error[0].value
    assert "1,500 latent and 20 hidden units" in said and "map of 200 images on the page Latent space" in said
    assert "seconds is the limit" in said or "MB is the limit" in said


@pytest.mark.parametrize(
    "page", ["home.py", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("pages/[1-6]*")))]
)
def test_no_page_begins_what_would_ruin_the_app(app, page):
    keep("ruin", ModelConfig(hidden=((1,),), latent=(100_000,)))  # such as one of your runs: it came by no form
    start = time.monotonic()
    test = app(page, b="model:ruin")
    refused = any("100,000 latent and 1 hidden units" in error.value for error in test.error)
    assert not test.exception and (refused or "Samples" in page)  # whose 200 images need no more than 240 MB
    assert time.monotonic() - start < 60  # it would take hours


def test_plain_text_holds_no_markup():
    hostile = "a *b* _c_ [d](http://e) <img src=x> `f` $g$ :smile: :red[h] #i ~~j~~\n- k"
    shown = escape_markdown(hostile)
    assert re.search(r"(?<!\\)[*_\[\]<`$#~]|(?<!\\):(?=\w)", shown) is None
    assert re.sub(r"\\(.)", r"\1", shown) == hostile.replace("\n", " ")
