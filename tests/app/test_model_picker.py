"""The dialog of all models and the boxes of the sidebar: short names, favourite pairs, models of your own."""

import pytest

from iwae import catalog
from iwae.catalog import CatalogError
from iwae.data import datasets
from iwae.runs.queue import RunError
from iwae.training.config import TrainConfig
from tests.app.test_pages import words

TINY = TrainConfig("digits", model="16:4", objective="vae", k=1, epochs=1, valid_images=50)


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


def dialog(test, row: int | None = None, **state):
    """The page with its dialog open, filters as in ``state``, and a row of the table selected."""
    test.button(key="models").click()
    for key, value in state.items():
        test.session_state[f"models.{key}"] = value
    if row is not None:
        test.session_state["models.table"] = {"selection": {"rows": [row], "columns": [], "cells": []}}
    return test.run()


def table(test):
    return next(frame.value for frame in test.dataframe if "continued from" in frame.value)


def test_names_of_all_shipped_models_differ_and_are_short():
    found, _ = catalog.entries()
    names = catalog.names(found)
    assert len(set(names.values())) == len(found) > 30
    assert max(map(len, names.values())) <= catalog.LONGEST_NAME
    assert not any("1layer" in text or "2layer" in text for text in (*names.values(), found[next(iter(found))].label))
    for key, name in names.items():  # each begins with what was trained
        assert name.startswith(found[key].short)
    assert names["mnist-1layer-iwae-k50"] == "IWAE k = 50 · mnist · 200 epochs"
    assert names["mnist-fixed-1layer-vae-k1-then-iwae-k50"] == "IWAE k = 50 · mnist-fixed · from VAE k = 1"
    pair = {key: found[key] for key in catalog.DEFAULT_PAIR}  # alone, the data set is all that there is to say
    assert list(catalog.names(pair).values()) == ["VAE k = 1 · mnist", "IWAE k = 50 · mnist"]


def test_an_own_model_is_named_and_removed_and_a_shipped_one_never(models, trained):
    source = catalog.SHIPPED / f"{catalog.DEFAULT_PAIR[0]}.safetensors"
    added, run = catalog.add(source.read_bytes(), "mine"), trained(TINY)
    found, _ = catalog.entries()
    for key, name in ((added, "My  first\tmodel"), (f"run:{run.name}", "Tiny é")):
        catalog.rename(found[key], name)
        fresh, refused = catalog.entries()
        assert catalog.names(fresh)[key] == " ".join(name.split()) and not refused
    for wrong in ("Tiny é", "x" * 43, "a\x1b[2Jb", catalog.names(found)["mnist-2d-vae-k1"]):
        with pytest.raises(CatalogError, match=r"another model has|at most 42 printable"):
            catalog.rename(fresh[added], wrong)
    catalog.rename(fresh[added], "")
    assert catalog.names(catalog.entries()[0])[added] == catalog.names(found)[added]
    shipped = found[catalog.DEFAULT_PAIR[0]]
    for change in (lambda: catalog.rename(shipped, "x"), lambda: catalog.remove(shipped)):
        with pytest.raises(CatalogError, match="ships with the program"):
            change()
    with run.claim():
        run.set_status("running")
        with pytest.raises(RunError, match="stop it first"):
            catalog.remove(fresh[f"run:{run.name}"])
        run.set_status("finished")
    for key in (added, f"run:{run.name}"):
        catalog.remove(fresh[key])
    assert not list(models.iterdir()) and not run.folder.exists() and shipped.path.exists()


def test_two_runs_that_differ_in_nothing_have_names_that_differ(trained):
    import shutil

    run = trained(TINY)
    for number in (2, 3):
        shutil.copytree(run.folder, run.folder.with_name(f"{run.name}-{number}"))
    names = catalog.names(catalog.entries()[0])
    assert len(set(names.values())) == len(names)


def test_the_dialog_searches_filters_and_opens(app):
    test = dialog(app("pages/5_Samples.py"), search="2 layers VAE", data=["mnist-fixed"])
    assert not test.exception
    found, _ = catalog.entries()
    shown = table(test)
    assert set(shown["architecture"]) == {"2 layers"} and set(shown["data"]) == {"mnist-fixed"}
    assert set(shown["objective"]) <= {"VAE", "IWAE"} and "VAE" in set(shown["objective"])
    names = {name: key for key, name in catalog.names(found).items()}
    key = names[shown["name"][1]]
    assert shown["NLL"][1] == found[key].card.metrics["nll"] and shown["± s.e."][1] == found[key].card.metrics["nll_se"]
    test.session_state["models.table"] = {"selection": {"rows": [1], "columns": [], "cells": []}}
    dialog(test, 1, search="2 layers VAE", data=["mnist-fixed"])
    assert not [button for button in test.button if button.label in ("Rename", "Remove …")]  # it ships
    test.button(key="models.b").click().run()
    assert test.selectbox(key="b").value == key and test.query_params["b"] == key


def test_favourite_pairs_and_the_same_model_twice(app):
    test = dialog(app("pages/5_Samples.py"))
    test.button(key="favourite.1 vs 2 layers").click().run()
    assert [test.selectbox(key=slot).value for slot in "ab"] == list(catalog.FAVOURITES["1 vs 2 layers"])
    assert "A and B are the same" not in words(test)
    test.selectbox(key="a").set_value(test.selectbox(key="b").value).run()
    assert "A and B are the same model" in words(test) and not test.exception


def test_the_dialog_removes_an_own_model_after_confirmation(app, models):
    key = catalog.add((catalog.SHIPPED / f"{catalog.DEFAULT_PAIR[0]}.safetensors").read_bytes(), "mine")
    test = dialog(app("pages/5_Samples.py", b=key), 0, search="mine")
    test.text_input(key=f"name.{key}").set_value("Mine")
    test.button(key="models.rename").click().run()
    assert "Mine" in test.selectbox(key="b").options
    dialog(test, 0, search="mine")
    assert (models / "mine.safetensors").exists()
    test.button(key="models.remove").click().run()
    assert not test.exception and not list(models.iterdir()) and test.selectbox(key="b").value != key


def test_another_model_a_brings_its_data_set_along_or_the_page_warns(app):
    """Here are the embedded digits only: MNIST's stand for every MNIST model, and for Omniglot's there is a warning."""
    assert {datasets.family(name) for name in ("mnist", "mnist-fixed", "mnist-5k")} == {"mnist"}
    test = app("pages/5_Samples.py", a="digits-small-vae-k1")
    assert test.selectbox(key="data").value == "digits" and not test.warning
    test.selectbox(key="a").set_value("mnist-5k-1layer-vae-k1").run()
    assert test.selectbox(key="data").value == "mnist-5k" and not test.warning
    test.selectbox(key="a").set_value("mnist-2d-vae-k1").run()
    assert test.selectbox(key="data").value == "mnist-5k" and not test.warning
    test.selectbox(key="a").set_value("omniglot-1layer-vae-k1").run()
    (warning,) = test.warning
    assert "Model A was trained on omniglot" in warning.value and test.selectbox(key="data").value == "mnist-5k"
