"""Every number field of every page: what is typed is used, or refused with the range that is allowed."""

import re
from pathlib import Path

import pytest

from pages.common.figure_card import escape_markdown
from tests.app.test_pages import words

ROOT = Path(__file__).parents[2]
PAGES = {  # what opens all number fields, and their keys
    "home.py": ({}, set()),
    "pages/1_Posterior.py": (
        {"posterior_section": "Resampled draws", "own units": "true"},
        {"number", "samples", "seed", "shown", "unit.across", "unit.up"},
    ),
    "pages/2_Latent_space.py": ({"map": "Two units"}, {"images", "a_x", "a_y", "b_x", "b_y"}),
    "pages/3_Active_units.py": ({}, set()),
    "pages/4_Reconstructions.py": ({"recon_images": "300"}, {"recon_page"}),
    "pages/5_Samples.py": ({}, {"seed"}),
    "pages/6_Bounds.py": ({"bounds_section": "One step of training"}, {"samples", "seed", "k", "step"}),
    "pages/7_Training.py": ({}, set()),
    "pages/8_Results.py": ({}, set()),
}
USUAL = {"samples": "300", "images": "100"}  # small ones


def test_no_page_has_number_fields_of_another_kind():
    scripts = ROOT / "home.py", *(ROOT / "pages").rglob("*.py")
    calls = [path.name for path in scripts if ".number_input(" in path.read_text()]
    assert calls == ["number_field.py"]
    assert {*PAGES} == {"home.py", *(f"pages/{path.name}" for path in (ROOT / "pages").glob("[0-9]*.py"))}


@pytest.mark.parametrize("page", [page for page, (_, keys) in PAGES.items() if keys])
def test_what_is_out_of_range_is_refused_with_the_range(app, page):
    query, keys = PAGES[page]
    test = app(page, **query, **{key: USUAL[key] for key in keys & {*USUAL}})
    fields = {field.key: field for field in test.number_input}
    assert {*fields} == keys
    usual, ranges = {}, {}
    for key, field in fields.items():
        usual[key] = int(field.value)
        low, high = re.search(r"From ([\d,]+) to ([\d,]+)\.$", field.help).groups()
        ranges[key] = low, high, int(low.replace(",", "")), int(high.replace(",", ""))
        assert field.label and ranges[key][2] <= usual[key] <= ranges[key][3]
    for wrong in ("below", "above", "broken", "huge"):
        for key, field in fields.items():
            *_, low, high = ranges[key]
            field.set_value({"below": low - 1, "above": high + 1, "broken": usual[key] + 0.5, "huge": 1e300}[wrong])
        test.run()
        assert not test.exception
        said = sorted(error.value for error in test.error)
        assert len(said) == len(keys)
        for key, (low, high, *_) in ranges.items():
            sentence = escape_markdown(f"choose a whole number from {low} to {high}. In use: {usual[key]:,}.")
            assert any(one.endswith(sentence) for one in said), (key, wrong, said)
        fields = {field.key: field for field in test.number_input}
    for key, field in fields.items():
        field.set_value(float(ranges[key][2]))
    test.run()
    assert not test.exception and not test.error


def test_the_number_in_use_is_the_one_that_the_page_shows(app):
    """1e3 in the address means 1,000; after 10 draws are refused these 1,000 are still used, and 200 are next."""
    test = app("pages/1_Posterior.py", posterior_section="Bound against k", samples="1e3")
    assert "for k from 1 to 1,000" in words(test)
    test.number_input(key="samples").set_value(10).run()
    assert (
        escape_markdown("10 is out of range: choose a whole number from 100 to 50,000. In use: 1,000.")
        == test.error[0].value
    )
    assert "for k from 1 to 1,000" in words(test)
    test.number_input(key="samples").set_value(200).run()
    assert not test.error and "for k from 1 to 200" in words(test)


def test_an_address_with_an_image_that_is_not_there(app):
    test = app("pages/6_Bounds.py", image="100000", samples="300")
    assert "There is no test image 100,000 here: their numbers are 0 to " in words(test)
    assert "Test image 0 of" in words(test)
