"""A model that is added from a file, and hostile names, in the app."""

import re

import pytest
import torch

from iwae import catalog, checkpoints
from pages.shared.show import plain


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


def test_weights_that_no_number_can_follow_get_a_sentence(app):
    model, card = checkpoints.load(catalog.SHIPPED / f"{catalog.DEFAULT_PAIR[0]}.safetensors")
    with torch.no_grad():
        model.pixel_logits.weight.fill_(3e38)
        model.pixel_logits.bias.fill_(3e38)
    path = catalog.models_dir() / "wild.safetensors"
    checkpoints.save(path, model, card)
    test = app(b="model:wild")
    assert not test.exception
    assert any("not finite" in error.value for error in test.error)


def test_plain_text_holds_no_markup():
    hostile = "a *b* _c_ [d](http://e) <img src=x> `f` $g$ :smile: :red[h] #i ~~j~~\n- k"
    shown = plain(hostile)
    assert re.search(r"(?<!\\)[*_\[\]<`$#~]|(?<!\\):(?=\w)", shown) is None
    assert re.sub(r"\\(.)", r"\1", shown) == hostile.replace("\n", " ")
