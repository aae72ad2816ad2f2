"""The benchmark of the app's speed still tells when the pages of today are complete."""

from urllib.parse import urljoin

from benchmarks import app


def test_pages_and_uploads_are_seen_to_be_complete(visit):
    page = visit("app.py")
    page.add_init_script(app.ACTED)
    page.reload()
    times = app._changes(page, 1) | app._strokes(page, 1)
    times |= {"upload": app._uploads(page, urljoin(page.url, "/").rstrip("/"), 1), "edit": app._edits(page, 1)}
    assert all(0 < seconds < app.SECONDS for (seconds,) in times.values())
