"""What a browser may send as the value of a component: anything. It changes nothing, and the page says so.

A real server gets it over its WebSocket, as a browser would send it.
"""

import json
import sys

import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetState

from tests import pictures
from tests.server import ROOT, Server
from tests.session import Session, apart

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the session starts a server of its own")
NAN, HUGE = float("nan"), 10**400
SAID = "The browser sent something that cannot be used"
SMALL = "a=digits-small-vae-k1&b=digits-small-iwae-k50&data=digits&samples=100"


def components(session: Session) -> dict:
    return {each.component_name: each for each in session.of("bidi_component")}


async def said(session: Session, widget: str, sent: object, kind: str = "json_value") -> str:
    """The errors on the page once the browser has sent this for a widget."""
    await session.run(WidgetState(id=widget, **{kind: json.dumps(sent)}))
    assert not session.problems, (sent, session.problems)
    return " ".join(alert.body for alert in session.of("alert"))


async def refused(session: Session, widget: str, field: str, good: dict, bad: dict) -> None:
    """Each of the ``bad`` parts instead of a good one is refused, and so is what is no such value at all."""
    address = session.query
    for part, wrongs in bad.items():
        for wrong in wrongs:
            assert SAID in await said(session, widget, {field: good | {part: wrong}}), (part, wrong)
    for wrong in ("text", [1, 2], {}):
        assert SAID in await said(session, widget, {field: wrong}), wrong
    for state in ({field: None}, ["text"]):  # nothing has been sent
        assert SAID not in await said(session, widget, state), state
    assert session.query == address  # the digit in hand is the same


async def home(session: Session) -> None:
    """A drawing; one on paper that the server has changed since is too late, and no mistake."""
    await session.run()
    canvas = components(session)["digit_canvas"]
    revision = json.loads(canvas.json)["revision"]
    good = {"revision": revision, "history": [[1.0, 2.0, 3.0, 4.5], None, [5, 6]], "pixels": [0] * 783 + [255]}
    bad = {
        "history": ["a", [[1]], [[1, NAN]], [[1, HUGE]], [["1", 2]], [{}]],
        "pixels": [None, [0] * 783, [0] * 783 + [256], [0] * 783 + [NAN], [0] * 783 + [True]],
    }
    await refused(session, canvas.id, "drawing", good, bad)
    assert SAID not in await said(session, canvas.id, {"drawing": good | {"revision": NAN, "pixels": [1]}})
    assert json.loads(components(session)["digit_canvas"].json)["history"] == []
    assert SAID not in await said(session, canvas.id, {"drawing": good})
    assert json.loads(components(session)["digit_canvas"].json)["history"] == good["history"]
    assert "x=" in session.query  # it is in hand


async def upload(session: Session) -> None:
    """An edit of an upload."""
    await session.follow("Posterior", "digit=Upload")
    await session.upload("A picture", "two.png", pictures.picture(2))
    editor, address = components(session)["picture_editor"], session.query
    good = {"turn": 0, "box": None, "dark_ink": None, "erased": []}
    bad = {
        "turn": [None, NAN, HUGE],
        "box": ["abc", [1, 2, 3], [0, 0, NAN, 9], [0, 0, HUGE, 9]],
        "dark_ink": ["yes"],
        "erased": [5, [[1]], [[1, NAN]], [[0, 0] * 6000]],
    }
    await refused(session, editor.id, "edit", good, bad)
    await said(session, editor.id, {"edit": good | {"turn": 90}})
    assert session.query != address


async def maps(session: Session) -> None:
    """A place on the maps, and a selection of points; a place on another map is too late."""
    await session.follow("Latent space", "map=PCA")
    panel = components(session)["live_map"]
    good = {"map": json.loads(panel.json)["map"], "parts": [[0.5, 1, 1]], "moved": [{}, {"3": 0.5}]}
    bad = {
        "parts": [None, [1], [[1, 2]], [[1, 2, NAN]], [[1, 2, HUGE]], [[0, 0, 1]] * 3],
        "moved": [[{}], [{}, {"50": 1}], [{}, {"-1": 1}], [{}, {"3": NAN}], [{}, [1]]],
    }
    await refused(session, panel.id, "spot", good, bad)
    assert SAID not in await said(session, panel.id, {"spot": good | {"map": "another", "moved": [{"99": 1}, {}]}})
    assert SAID not in await said(session, panel.id, {"spot": good})
    assert json.loads(components(session)["live_map"].json)["spot"] == {k: good[k] for k in ("parts", "moved")}
    chart = next(each for each in session.of("plotly_chart") if each.id)
    address = session.query
    for points in (5, [1], *([{"customdata": number}] for number in ("a", [-1], 300, 1.5, NAN, HUGE))):
        wrong = {"selection": {"points": points}}
        assert SAID in await said(session, chart.id, wrong, "string_value") and session.query == address, points
    await said(session, chart.id, {"selection": {"points": [{"customdata": [7]}]}}, "string_value")
    assert "image=7" in session.query


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(ROOT / "app.py", tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


@pytest.mark.parametrize("visit", [home, upload, maps])
def test_what_no_script_of_ours_sends_changes_nothing(server, visit):
    async def check() -> None:
        session = await Session.open(server.url, query=SMALL)
        await visit(session)
        await session.close()

    apart(check())
