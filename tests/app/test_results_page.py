"""The page of results: the rows and points of the engine, and a row that opens its model."""

import json
import re
from urllib.parse import parse_qs

import pytest

from iwae import catalog
from iwae.results import findings, grid
from iwae.results import rows as results
from iwae.runs import estimate
from tests.app import PLANE, open_section, open_tables

PAGE = "pages/8_Results.py"
FIGURES = "Against the number of samples k"


@pytest.fixture
def rows():
    return results.collect(catalog.entries()[0] | catalog.cards())[0]


def table(test):
    return next(frame.value for frame in test.dataframe if "difference" in frame.value)


def words(test) -> str:
    return "\n".join(str(element.value) for kind in ("markdown", "caption", "info") for element in test.get(kind))


def test_the_table_is_the_engine_s(app, rows):
    test = app(PAGE)
    shown = table(test)
    assert list(shown["name"]) == [row.name for row in rows]
    assert list(shown["nll"]) == [row.metrics["nll"] for row in rows]
    expected = [f"{row.verdict()} ({row.seed_count})" if row.verdict() else "–" for row in rows]
    assert list(shown["difference"]) == expected and "no standard error" in words(test)


def test_the_figures_hold_measured_and_published_points(app, rows):
    test = app(PAGE, results_section=FIGURES)
    spec = json.loads(test.get("plotly_chart")[0].proto.spec)
    expected = results.against_k(rows, "mnist", "1layer", "nll")
    assert [trace["name"] for trace in spec["data"]] == [part.name for part in expected]
    for trace, part in zip(spec["data"], expected, strict=True):
        assert trace["y"] == pytest.approx(list(part.y)) and trace["marker"]["symbol"].endswith("-open") == (
            part.error is None
        )
    assert not any("± s.e." in frame.value for frame in test.dataframe)  # not before it is opened
    open_tables(test, "results.nll")
    numbers = next(frame.value for frame in test.dataframe if "± s.e." in frame.value)
    assert len(numbers) >= sum(len(part.y) for part in expected)
    test.selectbox(key="results.data").set_value("omniglot-burda").run()
    test.selectbox(key="results.model").set_value("2layer").run()  # its reconstruction loss
    assert not test.exception and len(test.get("plotly_chart")) == 1
    assert "Neither measured nor published" in test.info[0].value
    spec = json.loads(test.get("plotly_chart")[0].proto.spec)
    assert {y for trace in spec["data"] for y in trace["y"]} >= {106.30, 103.38, 111.52}


def test_a_row_opens_its_model(app, rows):
    test = app(PAGE)
    test.session_state["results"] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    test.run()
    assert rows[0].command in test.code[0].value and rows[0].name in words(test)
    next(button for button in test.button if button.label == "Show as B").click().run()
    assert not test.exception and test.selectbox(key="b").value == rows[0].name


def test_what_is_not_run_is_shown_on_demand(app, rows, monkeypatch):
    monkeypatch.setattr(estimate, "MEASURED_SECONDS", 0.0)  # costs by one step of each kind
    missing = grid.not_run(rows)
    test = app(PAGE)
    test.toggle(key="results.all").set_value(True).run()
    shown = table(test)
    assert list(shown["name"])[len(rows) :] == [row.name for row in missing]
    test.session_state["results"] = {"selection": {"rows": [len(rows)], "columns": [], "cells": []}}
    test.run()
    assert test.code[0].value == missing[0].command
    assert re.search(r"about [\d.]+ h of training on this CPU", words(test))
    assert not any(button.label == "Show as A" for button in test.button)


def test_a_small_run_of_one_s_own_does_not_take_the_figures_over(app, trained):
    """It and the models of mnist-5k are the first rows of the table, but model A's data keep the figures."""
    run = trained(PLANE)
    test = app(PAGE)
    assert f"run:{run.name}" in list(table(test)["name"]) and table(test)["dataset"].iloc[0] == "mnist-5k"
    open_section(test, FIGURES)
    assert test.selectbox(key="results.data").value == "mnist"
    test.selectbox(key="results.data").set_value("digits").run()
    test.selectbox(key="results.model").set_value("16:2").run()
    spec = json.loads(test.get("plotly_chart")[0].proto.spec)
    assert len(spec["data"]) == 1 and spec["layout"]["showlegend"] is True


def test_the_poster_s_claims_have_figures_verdicts_and_a_page_that_shows_why(app, rows):
    """Without data and network, from the cards; a link brings the claim's own pair along."""
    test, expected = app(PAGE, results_section="The poster, checked"), findings.findings(rows)
    said = words(test).replace("\xa0", " ")
    for finding in expected:
        assert f"**{finding.title}**  \n{finding.claim}" in said
        assert f"**{finding.verdict.capitalize()}**" in said and f"**{finding.figures[0].text}**" in said
    links = {link.label: parse_qs(link.proto.query_string) for link in test.get("page_link")}
    there = links["See what q misses"]
    assert (there["a"], there["b"]) == (["mnist-fixed-1layer-vae-k50"], ["mnist-fixed-1layer-iwae-k50"])
    assert there["posterior_section"] == ["What q misses"] and "data" not in there
    open_tables(test, "findings")
    table = next(frame.value for frame in test.dataframe if "verdict" in frame.value)
    assert len(table) == sum(len(finding.figures) for finding in expected)
    simple = words(app(PAGE, results_section="The poster, checked", simple="true"))
    assert "±" not in simple and expected[0].title in simple


def test_a_download_does_not_run_the_page_again(app):
    """A run drops the files of the run before, perhaps sooner than the browser has fetched them."""
    buttons = app(PAGE).get("download_button")
    assert len(buttons) >= 3 and all(button.proto.ignore_rerun for button in buttons)
