"""A visitor without a browser: Streamlit's own messages over a WebSocket, and uploads over HTTP.

It does what the browser's part of Streamlit does for a server: sends the values of all widgets with each rerun, takes
over values that the server has set, runs fragments again when their time has come, and forgets what a run left out.
"""

import asyncio
import contextlib
import time
import urllib.request
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Element_pb2 import Element
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import ClientConnection, connect

from tests.server import DIRECT

PATIENCE = 60.0  # seconds with one answer
TRIGGERS = ("button", "download_button")


class SessionError(AssertionError):
    """What went wrong for a visitor; the message says where."""


class Session:
    """A visitor of the app at ``url``, from ``await Session.open(url)`` to ``await close()``."""

    def __init__(self, url: str, socket: ClientConnection, token: str):
        self.url, self.socket, self.token = url, socket, token
        self.id = ""
        self.page = ""
        self.query = ""
        self.elements: dict[tuple[int, ...], tuple[Element, str]] = {}  # by place: the element and its fragment
        self.values: dict[str, WidgetState] = {}
        self.problems: list[str] = []  # exceptions that the app has shown, and runs that have not ended well
        self._touched: set[tuple[int, ...]] = set()
        self._timers: dict[str, list[float]] = {}  # of fragments: interval, when next
        self._announced: dict[str, float] = {}
        self._finished = asyncio.Event()
        self._ends = ()
        self._urls: asyncio.Queue = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._keep_time())]

    @classmethod
    async def open(cls, url: str, page: str = "", query: str = "") -> "Session":
        """Connect, and run the page at the address ``page?query``; raises SessionError."""
        token = await asyncio.to_thread(_xsrf_token, url)
        socket = await connect(
            f"{url.replace('http', 'ws', 1)}/_stcore/stream",
            subprotocols=["streamlit", token],
            additional_headers={"Cookie": f"_streamlit_xsrf={token}"},
            origin=url,
            max_size=None,
            open_timeout=PATIENCE,
        )
        session = cls(url, socket, token)
        session.query = query
        await session.run(page_name=page)
        return session

    async def close(self) -> None:
        """Leave, as a closed tab does."""
        for task in self._tasks:
            task.cancel()
        await self.socket.close()

    async def run(self, *changes: WidgetState, page_name: str | None = None, fragment: str = "") -> float:
        """Run the page, another one, or a fragment, with changed values; returns the seconds until all was there."""
        self.values |= {change.id: change for change in changes}
        message = BackMsg()
        state = message.rerun_script
        state.query_string = self.query
        if page_name is None:
            state.page_script_hash = self.page
        else:
            state.page_name = page_name
        state.fragment_id = fragment
        state.widget_states.widgets.extend(self.values.values())
        state.context_info.url = self.url
        for change in changes:  # a press counts once
            if change.WhichOneof("value") == "trigger_value":
                del self.values[change.id]
        self._ends = (ForwardMsg.FINISHED_SUCCESSFULLY,)
        if fragment:
            self._ends += (ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY,)
        self._finished.clear()
        started = time.perf_counter()
        await self.socket.send(message.SerializeToString())
        try:
            await asyncio.wait_for(self._finished.wait(), PATIENCE)
        except TimeoutError:
            raise SessionError(f"no answer within {PATIENCE:.0f} s") from None
        if self._tasks[0].done():
            raise SessionError("the connection broke")
        return time.perf_counter() - started

    async def follow(self, label: str, query: str = "") -> float:
        """Click the sidebar's link of this name; returns the seconds until all was there. ``query``: more of it."""
        link = self.widget("page_link", label)
        self.page, self.query = link.page_script_hash, "&".join(filter(None, (link.query_string, query)))
        return await self.run()

    async def upload(self, label: str, name: str, content: bytes) -> float:
        """Choose a file in the uploader of this label; returns the seconds until all was there."""
        started = time.perf_counter()
        widget = self.widget("file_uploader", label)
        message = BackMsg()
        message.file_urls_request.request_id = name
        message.file_urls_request.session_id = self.id
        message.file_urls_request.file_names.append(name)
        await self.socket.send(message.SerializeToString())
        urls = await asyncio.wait_for(self._urls.get(), PATIENCE)
        await asyncio.to_thread(_put, self.url + urls.upload_url, self.token, name, content)
        state = WidgetState(id=widget.id)
        info = state.file_uploader_state_value.uploaded_file_info.add()
        info.file_id, info.name, info.size = urls.file_id, name, len(content)
        info.file_urls.CopyFrom(urls)
        await self.run(state)
        return time.perf_counter() - started

    def of(self, kind: str, root: int | None = None) -> Iterator[Any]:
        """The elements of a kind in order, everywhere or in the main part (0) or the sidebar (1)."""
        for place, (element, _) in sorted(self.elements.items()):
            if element.WhichOneof("type") == kind and root in (None, place[0]):
                yield getattr(element, kind)

    def fragment_of(self, widget_id: str) -> str:
        """The fragment that a widget belongs to, or nothing."""
        for element, fragment in self.elements.values():
            if getattr(getattr(element, element.WhichOneof("type") or "alert"), "id", "") == widget_id:
                return fragment
        return ""

    def widget(self, kind: str, label: str) -> Any:
        """The widget whose label begins so; raises SessionError when it is not on the page."""
        for widget in self.of(kind):
            if widget.label.startswith(label):
                return widget
        raise SessionError(f"there is no {kind} {label!r} on the page")

    async def _receive(self) -> None:
        try:
            async for data in self.socket:
                message = ForwardMsg.FromString(data)
                getattr(self, f"_on_{message.WhichOneof('type')}", lambda _: None)(message)
        finally:
            self._finished.set()

    def _on_new_session(self, message: ForwardMsg) -> None:
        new = message.new_session
        self.id = new.initialize.session_id or self.id
        self.page = new.page_script_hash
        self._touched, self._announced = set(), {}

    def _on_delta(self, message: ForwardMsg) -> None:
        place, delta = tuple(message.metadata.delta_path), message.delta
        self._touched.add(place)
        if delta.WhichOneof("type") != "new_element":
            self.elements.pop(place, None)
            return
        element = delta.new_element
        self.elements[place] = element, delta.fragment_id
        kind = element.WhichOneof("type")
        if kind == "exception":
            self.problems.append(f"exception: {element.exception.type} {element.exception.message}")
        widget = getattr(element, kind) if kind else None
        if getattr(widget, "set_value", False) and (state := as_set(kind, widget)) is not None:
            self.values[widget.id] = state

    def _on_auto_rerun(self, message: ForwardMsg) -> None:
        self._announced[message.auto_rerun.fragment_id] = message.auto_rerun.interval

    def _on_file_urls_response(self, message: ForwardMsg) -> None:
        self._urls.put_nowait(message.file_urls_response.file_urls[0])

    def _on_page_info_changed(self, message: ForwardMsg) -> None:
        self.query = message.page_info_changed.query_string

    def _on_page_not_found(self, message: ForwardMsg) -> None:
        self.problems.append(f"page not found: {message.page_not_found.page_name}")

    def _on_script_finished(self, message: ForwardMsg) -> None:
        status, now = message.script_finished, time.monotonic()
        timers = {fragment: [interval, now + interval] for fragment, interval in self._announced.items()}
        if status == ForwardMsg.FINISHED_SUCCESSFULLY:
            self.elements = {place: found for place, found in self.elements.items() if place in self._touched}
            ids = {getattr(getattr(e, e.WhichOneof("type") or "alert"), "id", "") for e, _ in self.elements.values()}
            self.values = {name: value for name, value in self.values.items() if name in ids}
            self._timers = timers
        elif status == ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY:
            self._timers |= timers
        elif status == ForwardMsg.FINISHED_WITH_COMPILE_ERROR:
            self.problems.append("the script does not compile")
            self._finished.set()
        if status in self._ends:
            self._finished.set()

    async def _keep_time(self) -> None:
        """Runs fragments again when it is time, as the browser does."""
        while True:
            await asyncio.sleep(0.1)
            for fragment, timer in list(self._timers.items()):
                if self._finished.is_set() and time.monotonic() >= timer[1]:
                    timer[1] = time.monotonic() + timer[0]
                    message = BackMsg()
                    state = message.rerun_script
                    state.query_string, state.page_script_hash = self.query, self.page
                    state.fragment_id, state.is_auto_rerun = fragment, True
                    state.widget_states.widgets.extend(self.values.values())
                    with contextlib.suppress(Exception):  # a broken connection is told by _receive
                        await self.socket.send(message.SerializeToString())


def value(kind: str, widget: Any, to: Any) -> WidgetState:
    """The state of a widget of this kind with the value ``to``: a number, a text, a list of them, or a press."""
    state = WidgetState(id=widget.id)
    if kind == "number_input":
        state.double_value = to
    elif kind == "slider":
        if widget.options:
            state.string_array_value.data.extend([to])
        else:
            state.double_array_value.data.extend(to if isinstance(to, list) else [to])
    elif kind in ("selectbox", "radio"):
        state.string_value = to
    elif kind in ("multiselect", "button_group"):
        state.string_array_value.data.extend(to if isinstance(to, list) else [to])
    elif kind == "checkbox":
        state.bool_value = to
    elif kind in TRIGGERS:
        state.trigger_value = True
    else:
        raise ValueError(f"no way to act on a {kind}")
    return state


def as_set(kind: str, widget: Any) -> WidgetState | None:
    """The value that the server has given a widget; None for one without."""
    if kind in ("number_input", "checkbox"):
        return value(kind, widget, widget.value)
    if kind in ("selectbox", "radio"):
        return value(kind, widget, widget.raw_value)
    if kind == "slider":
        return value(kind, widget, widget.raw_value[0] if widget.options else list(widget.value))
    if kind in ("multiselect", "button_group"):
        return value(kind, widget, list(widget.raw_values))
    return None


T = TypeVar("T")


def apart(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in a thread of its own: a browser test may have left its event loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _xsrf_token(url: str) -> str:
    with DIRECT.open(f"{url}/_stcore/health", timeout=PATIENCE) as answer:
        cookies = answer.headers.get_all("Set-Cookie") or []
    for cookie in cookies:
        if cookie.startswith("_streamlit_xsrf="):
            return cookie.split("=", 1)[1].split(";")[0]
    raise SessionError("the server gives no XSRF token")


def _put(address: str, token: str, name: str, content: bytes) -> None:
    mark = "a-line-that-no-picture-holds"
    head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    body = f"{head}Content-Type: image/png\r\n\r\n".encode() + content + f"\r\n--{mark}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={mark}", "X-Xsrftoken": token}
    headers["Cookie"] = f"_streamlit_xsrf={token}"
    DIRECT.open(urllib.request.Request(address, body, headers, method="PUT"), timeout=PATIENCE).close()
