"""What a screen reader is given, by Chromium's accessibility tree: names, roles, states, and what is announced."""

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.driver import assert_clean, settled


def spoken(page: Page) -> list[tuple[str, str, dict]]:
    """(role, name, properties) of everything in the tree."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    return [
        (
            node["role"]["value"],
            node.get("name", {}).get("value", ""),
            {part["name"]: part["value"].get("value") for part in node.get("properties", [])},
        )
        for node in nodes
        if not node.get("ignored")
    ]


def assert_controls_are_named(page: Page) -> None:
    """Everything that can be operated has a name, and no two links of one name lead to different pages."""
    operated = ("button", "link", "slider", "checkbox", "application", "textbox", "combobox", "tab", "spinbutton")
    nameless = [role for role, name, _ in spoken(page) if role in operated and not name]
    assert not nameless, f"{len(nameless)} without a name: {set(nameless)}"
    links: dict[str, set[str]] = {}
    for link in page.get_by_role("link").all():
        links.setdefault(link.inner_text(), set()).add(link.evaluate("link => new URL(link.href).pathname"))
    assert not [name for name, pages in links.items() if len(pages) > 1]


def announced(area: Locator) -> Locator:
    return area.get_by_role("status")


def test_home_tells_the_tour_the_canvas_and_the_pictures(visit):
    page = visit("app.py")
    page.locator(".live .mean canvas").last.wait_for()
    assert_controls_are_named(page)
    tree = spoken(page)
    for role, beginning in (
        ("region", "A tour in three steps"), ("application", "Draw a digit with mouse, pen or finger"),
        ("button", "Undo the last stroke"), ("button", "Clear the drawing"),
        ("image", "The digit as both models see it"),
        ("group", "A · VAE k = 1"), ("image", "A · VAE k = 1: decoded from the mean of q"),
        ("image", "B · IWAE k = 50: 5 decoded draws from q"),
    ):  # fmt: skip
        assert any(r == role and name.startswith(beginning) for r, name, _ in tree), (role, beginning)
    polite = [properties for role, _, properties in tree if role == "status"]
    assert len(polite) >= 2 and all(properties["live"] == "polite" for properties in polite)
    expect(announced(page.locator(".tour"))).to_contain_text("1 of 3")
    page.get_by_role("button", name="Next").click()
    expect(announced(page.locator(".tour"))).to_contain_text("2 of 3")
    page.get_by_role("application", name="Draw a digit").focus()
    page.keyboard.press("Space")
    expect(announced(page.locator(".digit-canvas"))).to_have_text("Pen down")
    page.keyboard.press("Space")
    expect(announced(page.locator(".digit-canvas"))).to_have_text("Pen up")


def test_the_live_map_tells_places_pins_and_units(visit):
    page = visit("app.py", "Latent_space?data=mnist-5k&images=300&map=PCA")
    live = page.get_by_role("application", name="Move the pointer over a map")
    live.focus()
    page.keyboard.press("ArrowRight")
    expect(announced(live)).to_contain_text("At ")
    page.keyboard.press("Enter")
    expect(announced(live)).to_contain_text("Pin 1. At ")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(announced(live)).to_contain_text("Pin 2. At ")
    slide = page.get_by_role("slider", name="Slide between them")
    slide.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(slide).to_have_attribute("aria-valuetext", "1% from pin 1 to 2")
    for model in ("A · VAE k = 1", "B · IWAE k = 50"):
        of_one = page.get_by_role("group", name=model)
        of_one.get_by_text("Top units").click()
        assert of_one.get_by_role("slider").count() >= 3
        expect(of_one.get_by_role("img", name=f"{model}: what this place decodes to")).to_be_visible()
    units = [(name, p) for role, name, p in spoken(page) if role == "slider" and name.startswith("unit ")]
    assert units and all("nats" in name and p["valuemin"] < p["valuemax"] for name, p in units)
    assert_controls_are_named(page)
    page.get_by_role("button", name="Clear the pins").click()
    expect(announced(live)).to_have_text("There are no pins.")
    assert_clean(page)


@pytest.mark.parametrize("name", ["Posterior", "Bounds", "Training", "Results"])
def test_every_control_has_a_name(visit, name):
    page = visit("app.py", name)
    settled(page)
    assert_controls_are_named(page)
