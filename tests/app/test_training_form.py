"""The form that starts a run: what was typed is run, or nothing is and the page says why."""

import re

import pytest

from iwae.runs import store
from iwae.training.config import TrainConfig
from pages.common.figure_card import escape_markdown
from pages.common.number_field import parse
from tests.app.test_pages import words


def start(test):
    return next(button for button in test.button if button.label == "Start training").click().run()


@pytest.mark.parametrize(
    ("objective", "field", "typed", "says"),
    [
        ("ciwae", "ciwae.beta", "1.5", "1.5 is out of range: choose a number from 0 to 1"),
        ("iwae", "epochs", "0", "0 is out of range: choose a whole number from 1 to 1,000,000"),
        ("iwae", "epochs", "2.7", "“2.7” is not a whole number"),
        ("iwae", "seed", "", "“” is not a whole number"),
        ("miwae", "miwae.k1", "1e9", "1e9 is out of range"),
    ],
)
def test_what_is_no_number_of_the_field_is_not_run(app, objective, field, typed, says):
    test = app()
    test.selectbox(key="train.objective").set_value(objective).run()
    test.text_input(key=f"train.{field}").set_value(typed).run()
    assert test.error[0].value.startswith(escape_markdown(says))
    start(test)
    assert test.error[1].value.startswith("Nothing was started") and not store.list_runs() and not test.exception


def test_groups_that_need_more_memory_than_there_is_are_not_run(app):
    test = app()
    test.selectbox(key="train.objective").set_value("miwae").run()
    for field in ("k1", "k2"):
        test.text_input(key=f"train.miwae.{field}").set_value("1e3").run()
    assert "k = k1·k2 = 1,000,000 samples per image" in words(test)
    start(test)
    assert (
        escape_markdown("k1·k2 = 1,000·1,000 = 1,000,000 draws for each of 50 images need about") in test.error[0].value
    )
    assert not store.list_runs()


def test_what_is_typed_is_what_is_run(app, monkeypatch):
    """“1e1” epochs are ten, a β-VAE with a KL warm-up, and a gradient that the form calls biased."""
    monkeypatch.setattr(store, "start", lambda config, **_: store.create(config))
    test = app()
    test.selectbox(key="train.objective").set_value("l-alpha").run()
    typed = {"l-alpha.alpha": "4", "epochs": "1e1", "kl_warmup": " 3 ", "rate": "1e-3", "seed": "7"}
    for name, text in typed.items():
        test.text_input(key=f"train.{name}").set_value(text).run()
    test.selectbox(key="train.likelihood").set_value("gaussian")
    test.selectbox(key="train.activation").set_value("silu")
    gradients = test.selectbox(key="train.gradient")
    assert "sticking the landing, biased for k > 1" in gradients.options
    gradients.set_value("stl").run()
    start(test)
    (run,) = store.list_runs()
    config = TrainConfig(
        "mnist-5k", "1layer@gaussian@silu", "l-alpha",
        k=1, alpha=4.0, epochs=10, kl_warmup=3, learning_rate=1e-3, gradient="stl",
        seed=7, batch_size=50,
    )  # fmt: skip
    assert run.config == config and not test.error and config.dataset == TrainConfig().dataset


@pytest.mark.parametrize(
    ("text", "whole", "value"),
    [
        ("1e3", True, 1000),
        ("1e3", False, 1000.0),
        (" 12 ", True, 12),
        ("−5", True, -5),
        ("+7", True, 7),
        ("2.0", True, 2),
        (".5", False, 0.5),
        ("9007199254740993", True, 2**53 + 1),
        *(
            (text, True, None)
            for text in ("2.7", "1e-3", "", " ", "abc", "1,000", "0x10", "nan", "inf", "1e400", "1 2")
        ),
        *((text, False, None) for text in ("0,5", "nan", "-inf", "½", "1e400", "--1")),
    ],
)
def test_numbers_as_they_are_typed(text, whole, value):
    if value is None:
        with pytest.raises(ValueError, match=f"{re.escape(text.strip())}.*choose a"):
            parse(text, -(10**16), 10**16, whole)
    else:
        found = parse(text, -(10**16), 10**16, whole)
        assert found == value and isinstance(found, int if whole else float)
