"""Other people's words are shown as they are written, never as Markdown: a picture in them would make the browser ask
another host. They all go through ``show.plain``."""

import ast
import json
import re
from pathlib import Path

import pytest

from iwae.runs import store
from iwae.training.config import TrainConfig
from pages.common.figure_card import escape_markdown

ROOT = Path(__file__).parents[2]
PICTURE = "![canary](https://canary.example/x.png)"
NAME = "![canary](https:&#47;&#47;canary.example)"  # as a name of a file, which holds no slash

# Streamlit's calls whose text is Markdown, with the argument that is; and words that come from elsewhere
MARKDOWN = """
    error warning info success caption markdown write header subheader title toast badge button expander checkbox toggle
    popover metric page_link download_button dialog spinner status
""".split()  # noqa: SIM905
FOREIGN_NAMES = ("error", "reason", "damage", "said_by", "problem")
FOREIGN_ATTRIBUTES = ("message", "damage", "device", "folder", "path", "stem")
FOREIGN_OWNERS = ("run", "file", "look", "one.run", "standing", "path")  # whose .name anybody may have chosen


def foreign(node: ast.AST) -> list[str]:
    """Expressions in ``node`` that hold somebody else's words and do not go through ``plain``."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("escape_markdown", "len", "text"):
        return []
    if isinstance(node, ast.Name) and node.id in FOREIGN_NAMES:
        return [node.id]
    if isinstance(node, ast.Attribute):
        if node.attr in FOREIGN_ATTRIBUTES and not ast.unparse(node).startswith("view."):
            return [ast.unparse(node)]
        if node.attr == "name" and ast.unparse(node.value) in FOREIGN_OWNERS:
            return [ast.unparse(node)]
    return [found for child in ast.iter_child_nodes(node) for found in foreign(child)]


def offences(source: str) -> list[str]:
    """Of the Markdown of a page: the first argument of each call, and every ``help``."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] in MARKDOWN:
            texts = [*call.args[:1], *(word.value for word in call.keywords if word.arg == "help")]
            found += [f"line {call.lineno}: {each}" for text in texts for each in foreign(text)]
    return found


SCRIPTS = [ROOT / "home.py", *sorted((ROOT / "pages").rglob("*.py"))]


@pytest.mark.parametrize("page", SCRIPTS, ids=lambda path: path.stem)
def test_foreign_words_go_through_one_door(page):
    assert offences(page.read_text(encoding="utf-8")) == []


def test_the_door_is_missed_where_it_is_missing():
    for line in ("st.error(str({}))", 'st.caption(f"on {{{}}}")', 'row.button("Stop", help="of " + {})'):
        for word in ("error", "run.device", "run.name", "one.status.message"):
            assert len(offences(line.format(word))) == 1
            assert offences(line.format(f"escape_markdown({word})")) == []


@pytest.mark.parametrize("text", [PICTURE, NAME, "<img src=x>", "$x$", ":red[x]", "# x", "- x", "1. x", "> x", "a_b_"])
def test_plain_text_means_nothing_in_markdown(text):
    escaped = escape_markdown(text)
    assert escaped.replace("\\", "") == text.replace("\\", "")
    for sign in "[]<$#&`*_":
        assert all(escaped[place - 1] == "\\" for place, each in enumerate(escaped) if each == sign), escaped


def marked_up(test) -> list[str]:
    """All texts of a page that the browser reads as Markdown."""
    found = []

    def walk(message):
        if message is None:  # an element that AppTest does not know
            return
        for field, value in message.ListFields():
            values = [value] if not field.is_repeated else list(value)
            for each in values:
                if field.message_type is not None and hasattr(each, "ListFields"):
                    walk(each)
                elif isinstance(each, str) and field.name in ("body", "label", "help", "caption", "content", "title"):
                    found.append(each)

    for block in (test.main, test.sidebar):
        for element in block:
            if element.type not in ("text", "code", "arrow_data_frame", "plotly_chart"):
                walk(element.proto)
    return found


def test_no_page_lets_a_picture_through(app, own_folders, monkeypatch):
    """As the message of a run, its device, a setting that does not exist, a model's sizes, and names of files."""
    models = own_folders / "models"
    monkeypatch.setenv("IWAE_MODELS_DIR", str(models))
    models.mkdir()
    (models / f"{NAME}.safetensors").write_bytes(b"none")
    failed, unknown, sizes, named = (store.create(TrainConfig(model="16:4", k=2, epochs=1)) for _ in range(4))
    for run in (failed, unknown, sizes):
        run.set_status("failed", PICTURE)
    for run, key, value in ((failed, "device", PICTURE), (unknown, "config", {PICTURE: 1})):
        settings = json.loads((run.folder / "config.json").read_text())
        (run.folder / "config.json").write_text(json.dumps(settings | {key: value}))
    settings = json.loads((sizes.folder / "config.json").read_text())
    settings["config"]["model"] = PICTURE
    (sizes.folder / "config.json").write_text(json.dumps(settings))
    named.set_status("failed", PICTURE)
    named.folder.rename(named.folder.with_name(NAME))
    texts = marked_up(app())
    texts += marked_up(app("pages/7_Training.py"))
    test = app("pages/7_Training.py", training_section="One run")
    texts += marked_up(test)
    for run in (failed.name, unknown.name, sizes.name, NAME):
        test.selectbox(key="run").set_value(run).run()
        assert not test.exception
        texts += marked_up(test)
        next(button for button in test.button if button.label == "Delete …").click().run()
        texts += marked_up(test)
    told = [text for text in texts if "canary" in text]
    assert len(told) >= 6
    assert [text for text in told if re.search(r"(?<!\\)[\[\]]", text)] == []
