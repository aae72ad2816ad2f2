"""A file that was asked for is there until the browser has had time to fetch it."""

import time

from streamlit.runtime.media_file_manager import MediaFileManager
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage

from pages.common import download


def test_a_file_outlives_the_runs_of_others_for_a_minute(monkeypatch):
    files = MediaFileManager(MemoryMediaFileStorage("/media"))
    entry = {"callable": lambda: b"content", "mimetype": "text/plain", "filename": "a.txt"}
    monkeypatch.setitem(files._deferred_callables, "asked", {**entry, "session_id": "one"})
    monkeypatch.setattr(files, "_remove_orphaned_deferred_callables", lambda: None)
    files.execute_deferred("asked")
    (name,) = files._file_metadata
    for _ in range(5):  # runs that end
        files.remove_orphaned_files()
    assert list(files._file_metadata) == [name]
    later = time.monotonic() + download.KEPT_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    for _ in range(2):
        files.remove_orphaned_files()
    assert not files._file_metadata
