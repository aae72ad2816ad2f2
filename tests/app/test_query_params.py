"""What stands in the address, which anybody may have typed, never raises: what cannot be is left out, and said."""

import pytest

from iwae.runs import store
from iwae.training.config import TrainConfig
from tests.app import open_section

TRAINING = "pages/7_Training.py"
NO_NUMBERS = ("inf", "-inf", "nan", "1e999", "9" * 400, "")


@pytest.mark.parametrize(
    ("page", "keys"),
    [
        ("pages/1_Posterior.py", ("samples", "seed", "shown", "which", "digit", "image", "hidden")),
        ("pages/5_Samples.py", ("count", "seed", "sample", "side", "to", "steps")),
        ("pages/6_Bounds.py", ("samples", "k", "step", "objective", "power-mean.p", "renyi.alpha")),
        (TRAINING, ("against", "moment")),
    ],
)
def test_what_no_widget_can_hold_is_left_out_and_said(app, page, keys):
    store.create(TrainConfig(model="16:4", k=2, epochs=1)).set_status("stopped")
    values = {key: NO_NUMBERS[place % len(NO_NUMBERS)] for place, key in enumerate(keys)}
    test = app(page, **values)
    said = " ".join(warning.value for warning in test.warning).replace("\\", "")
    assert all(f"asks for {key} = " in said for key in keys)
    assert not set(keys) & set(test.query_params)
    assert not test.exception


@pytest.mark.parametrize("value", ["", "inf", "1e999", "x" * 10_000])
def test_every_value_of_the_choices_of_training(app, value):
    store.create(TrainConfig(model="16:4", k=2, epochs=1)).set_status("stopped")
    test = app(TRAINING, against=value, run=value, runs=value, data=value, a=value, b=value)
    assert test.segmented_control(key="against").value == "epochs"
    open_section(test, "One run")
    assert test.selectbox(key="run").value == store.list_runs()[0].name


def test_what_may_be_is_left_as_it_is(app):
    test = app("pages/1_Posterior.py", samples="600", seed="1e3", image="7")
    values = [test.number_input(key=key).value for key in ("samples", "seed", "number")]
    assert values == [600, 1000, 7] and not [one for one in test.warning if "asks for" in one.value]


def test_a_link_from_before_the_parameters_of_bounds_were_renamed_sets_their_sliders(app):
    test = app("pages/6_Bounds.py", bounds_section="Every bound", samples="300", p="1.5", kl_weight="2.0", beta="0.5")
    assert [test.slider(key=key).value for key in ("power-mean.p", "l-alpha.alpha", "ciwae.beta")] == [1.5, 2.0, 0.5]
    assert "p" not in test.query_params and test.number_input(key="samples").value == 300


def test_the_warning_stays_until_the_page_is_left(app):
    """A run of the page that comes by itself, as when annealing ends, does not take it away."""
    test = app("pages/1_Posterior.py", samples="nan")
    (warning,) = test.warning
    assert "samples = 'nan'" in warning.value
    assert [each.value for each in test.run().warning] == [warning.value]
    assert not test.switch_page("pages/5_Samples.py").run().warning
    assert not test.switch_page("pages/1_Posterior.py").run().warning
