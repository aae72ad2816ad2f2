"""The button behind which every file lies."""

import time
from collections.abc import Callable

import streamlit as st
from streamlit.runtime import media_file_manager

KEPT_SECONDS = 60.0


class KeptFile(media_file_manager.MediaFileMetadata):
    """Streamlit drops a file that was made when it was asked for once two runs have ended, anybody's and of any
    fragment: among many visitors before the browser has fetched it."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._made = time.monotonic()

    def mark_for_delete(self) -> None:
        if time.monotonic() - self._made > KEPT_SECONDS:
            super().mark_for_delete()


media_file_manager.MediaFileMetadata = KeptFile


def download_button(label: str, content: Callable[[], str | bytes], name: str, mime: str, key: str, **looks) -> None:
    """A file that is made when it is asked for.

    The page does not run again, as it would by default: Streamlit drops the files of the run before, this one too where
    the browser has not fetched it yet.
    """
    st.download_button(label, content, name, mime, key=key, on_click="ignore", **looks)
