"""The page of reconstructions: its losses and its order of images are the engine's."""

import pytest

from iwae import catalog
from iwae.analysis.reconstruction import reconstructions
from iwae.checkpoints import load
from iwae.data import datasets
from iwae.evaluation.stats import mean_se

PAGE = "pages/4_Reconstructions.py"


@pytest.fixture
def found():
    """Both models' reconstructions of all 500 test digits."""
    entries, x = catalog.entries()[0], datasets.load("mnist-5k").binary("test")
    return [reconstructions(load(entries[key].path)[0], x, samples=50) for key in catalog.DEFAULT_PAIR]


def headings(test) -> list[str]:
    return [element.value for element in test.markdown if element.value.startswith("**Image")]


def test_losses_over_the_test_set(app, found):
    table = next(
        frame.value
        for frame in app(PAGE, reconstructions_section="Over the test set").table
        if "A − B, paired" in frame.value
    )
    assert len(table) == 4
    for name, column in zip("AB", found, strict=True):
        for place, loss in enumerate(column.losses.values()):
            mean, se = mean_se(loss)
            assert table[name][place] == f"{mean:.2f} ± {se:.2f}"
    mean, se = mean_se(found[0].losses["draw"] - found[1].losses["draw"])
    assert table["A − B, paired"][0] == f"{mean:+.2f} ± {se:.2f}".replace("-", "−")


def test_images_are_sorted_filtered_and_paged(app, found):
    a, b = (part.losses["mean"] for part in found)
    order = (a - b).argsort(stable=True).tolist()
    test = app(PAGE)
    test.selectbox(key="judge").set_value("mean").run()
    assert [f"**Image {number}**" in text for number, text in zip(order, headings(test), strict=False)] == [True] * 3
    test.number_input(key="recon_page").set_value(2).run()
    assert f"**Image {order[3]}**" in headings(test)[0]
    test.selectbox(key="order").set_value("where B is better").run()
    assert f"**Image {order[-4]}**" in headings(test)[0]
    test.selectbox(key="class").set_value("3").run()
    assert headings(test) and all(text.endswith("· 3") for text in headings(test))
    test.number_input(key="recon_page").set_value(5).run()
    test.selectbox(key="class").set_value("7").run()
    assert not test.exception and headings(test)


def test_an_image_opens_on_the_posterior_page(app):
    test = app(PAGE)
    number = int(headings(test)[0].split("**")[1].split()[1])
    next(button for button in test.button if button.label == "Open").click().run()
    assert not test.exception and test.session_state["image"] == number
