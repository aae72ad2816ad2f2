"""Over a slow line the browser asks for what refreshes itself when the page has gone on: that must not empty the window
(pages/frame/fragments.py)."""

from playwright.sync_api import Page, expect

from tests.browser.driver import assert_clean, settled, still


def slow_down(page: Page, ms: int) -> None:
    """Every message to the server takes so long, from the next load of the page on."""
    page.add_init_script(
        f"""const send = WebSocket.prototype.send;
        WebSocket.prototype.send = function (message) {{ setTimeout(() => send.call(this, message), {ms}); }};"""
    )
    page.reload()
    page.wait_for_timeout(ms)
    settled(page)


def test_a_page_that_has_ended_early(visit):
    """Chains are annealed, and ask for their progress, while the paper is cleared."""
    page = visit("app.py")
    slow_down(page, 900)
    page.get_by_test_id("stMain").get_by_role("button", name="Random image").click()
    expect(page.get_by_text("Annealing, for").first).to_be_visible()
    page.wait_for_timeout(1500)  # the picture in hand is on the paper, and questions are on their way
    page.get_by_role("button", name="Clear the drawing").click()
    expect(page.get_by_text("Draw one digit with the mouse")).to_be_visible()
    page.wait_for_timeout(2000)  # all are answered
    expect(page.get_by_text("Draw one digit with the mouse")).to_be_visible()
    assert_clean(page)


def test_a_page_that_has_been_left(visit):
    """A run asks for its progress, once more by the answer to a click that comes after the one on another page."""
    page = visit("app.py", "Samples")
    sidebar = page.get_by_test_id("stSidebar")
    sidebar.get_by_text("Train a small model").click()
    still(page)
    sidebar.get_by_label("Epochs", exact=True).fill("1000")  # minutes
    sidebar.get_by_label("Epochs", exact=True).press("Enter")
    settled(page)
    sidebar.get_by_role("button", name="Start training").click()
    expect(sidebar.get_by_role("button", name="Stop")).to_be_visible()
    slow_down(page, 1500)
    expect(sidebar.get_by_role("button", name="Stop")).to_be_visible()
    sidebar.get_by_role("button", name="Random image").click()
    page.wait_for_timeout(1400)
    page.get_by_role("link", name="Results", exact=True).click()
    expect(page.get_by_role("heading", name="Measured against published")).to_be_visible()
    page.wait_for_timeout(4000)  # all are answered
    expect(page.get_by_text("Select a row to open its model")).to_be_visible()
    assert_clean(page)
