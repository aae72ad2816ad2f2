"""A part that looks again by itself: it draws, then asks for news, and never amid the page's own run."""

import pytest
import streamlit as st

from pages.common.server import polling


class Began(Exception):
    """Instead of Streamlit's own, which only a server's run of a page takes."""


def test_news_wait_for_the_page_and_for_what_is_drawn(monkeypatch):
    done, news, beats = [], [True], []

    def rerun():
        raise Began

    def fragment(function, run_every):
        beats.append((function, run_every))
        return function

    monkeypatch.setattr(st, "rerun", rerun)
    monkeypatch.setattr(st, "fragment", fragment)
    polling.poll(lambda: done.append("drawn"), lambda: news[0], 2.0)
    assert done == ["drawn"]  # the page's own run comes to its end
    ((look, seconds),) = beats
    assert seconds == 2.0
    news[0] = False
    look()
    assert done == ["drawn"] * 2
    news[0] = True
    with pytest.raises(Began):
        look()
    assert done == ["drawn"] * 3
