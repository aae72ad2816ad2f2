"""Run folders are foreign input: whatever is in them, every reader returns or says in a sentence what is wrong with
which run, and the pages show it."""

import os
import signal

import pytest

from iwae import catalog
from iwae.__main__ import main
from iwae.runs import queue, store, summary
from iwae.runs.store import Run, RunError
from iwae.training.config import TrainConfig
from tests import damage
from tests.app import open_section

CONFIG = TrainConfig("digits", model="16:4", objective="vae", k=1, epochs=2, valid_images=50)
SECONDS = 600  # after which a reader hangs, on a machine that many share


@pytest.fixture
def good(train):
    return train(CONFIG).folder


@pytest.fixture(autouse=True)
def never_hangs():
    def hangs(*_):
        raise TimeoutError(f"a reader has taken {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def ask(run: Run) -> list[str]:
    """What the readers say that is wrong."""
    said = []
    for reader in (
        lambda: summary.table_row(summary.read(run)),
        lambda: run.progress(),
        lambda: summary.snapshots(run)[1],
        lambda: (run.logs, run.max_snapshots, run.device, run.start),
    ):
        try:
            answer = reader()
        except RunError as error:
            assert f"run {run.name}" in str(error) and len(str(error)) < 600 and str(error).isprintable()
            said.append(str(error))
        else:
            said += answer if isinstance(answer, list) else []
    status = run.status()
    assert status.phase in ("finished", "died", "running", "starting", "waiting", "evaluating", "stopped", "failed")
    return said + [status.message] * (status.phase == "died")


def test_every_damage_to_every_file_is_a_sentence(good, capsys):
    place = store.runs_dir()
    damaged = list(damage.copies(good, place))
    assert len(store.list_runs()) == len(damaged) and queue.waiting_runs(place) == []
    for file, kind, folder in damaged:
        said = " ".join(ask(Run(folder)))
        named = file.split("/")[-1]
        if file in ("config.json", "status.json", "metrics.jsonl") and (file, kind) != ("metrics.jsonl", "nothing"):
            assert named in said, (file, kind)
        if file.startswith("snapshots/") and kind not in ("folder", "pipe", "link", "link_to_itself"):
            assert named in said, (file, kind)
    models, refused = catalog.entries()
    told = {folder.name for file, _, folder in damaged if file == "checkpoint.safetensors"}
    assert told <= set(refused) and not any(f"run:{name}" in models for name in told)
    assert main(["runs", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(folder.name in listed for _, _, folder in damaged) and "�" not in listed.replace("\n", "")


@pytest.mark.parametrize("file", ["config.json", "status.json", "metrics.jsonl"])
def test_every_wrong_value_is_a_sentence_or_one_that_may_be(good, file):
    run = Run(damage.copy(good, store.runs_dir() / "one"))
    content = (run.folder / file).read_text()
    first, *rest = content.splitlines(keepends=True) if file == "metrics.jsonl" else [content]
    told, count = 0, 0
    for key, value, text in damage.wrong_values(first):
        damage.rewrite(run.folder / file, "".join([text + "\n", *rest]))
        said = ask(Run(run.folder))
        told, count = told + bool(said), count + 1
        if (key, value) in (("device", '"text"'), ("bound", "-1")):
            continue
        needed = ("config", "device", "phase", "step", "epochs", "bound", "seconds", "images_per_second")
        if key in needed or value in ("NaN", "Infinity", "1e999", "1" + "0" * 30, "1" * 5000):
            assert said, (key, value)
    assert told > count / 2


def test_other_names_and_links_are_no_snapshots(good):
    run = Run(damage.copy(good, store.runs_dir() / "one"))
    whole = list(run.snapshots.paths())
    one = run.snapshots.paths()[whole[-1]]
    for name in ("00000013 (copy)", "13", "１３１３１３１３", "9" * 40, "00000014.tmp", "1e9"):
        os.link(one, run.snapshots.folder / f"{name}.safetensors")
    outside = store.runs_dir().parent / "outside.safetensors"
    os.link(one, outside)
    (run.snapshots.folder / "00000099.safetensors").symlink_to(outside)
    assert list(run.snapshots.paths()) == whole and summary.snapshots(run)[1] == []
    run.snapshots.folder.rename(store.runs_dir().parent / "elsewhere")
    run.snapshots.folder.symlink_to(store.runs_dir().parent / "elsewhere")
    assert run.snapshots.paths() == {}


def test_the_pages_show_what_is_wrong_beside_what_is_right(app, good):
    """All damaged runs at once, and some of them looked at one by one."""
    place = store.runs_dir()
    whole = damage.copy(good, place / "whole")
    damaged = list(damage.copies(good, place))
    assert not app().exception
    chosen = [folder.name for file, _, folder in damaged if file in ("config.json", "status.json", "metrics.jsonl")]
    test = app("pages/7_Training.py")
    test.multiselect(key="runs").set_value([whole.name, *chosen]).run()
    assert not test.exception
    errors = "\n".join(error.value for error in test.error).replace("\\", "")
    for file, kind, folder in damaged:
        if folder.name in chosen and (file, kind) != ("metrics.jsonl", "nothing"):
            assert folder.name in errors, (file, kind)
    shown = next(frame.value for frame in test.dataframe if "test NLL" in frame.value)
    assert whole.name in list(shown["run"])
    assert "nested too deeply" in errors
    open_section(test, "One run")
    for file, kind in (
        ("checkpoint.safetensors", "pipe"),
        ("checkpoint.safetensors", "link"),
        ("snapshots/00000013.safetensors", "huge"),
        ("snapshots", "pipe"),
        ("status.json", "folder"),
        ("config.json", "nested"),
    ):
        name = next(folder.name for one, other, folder in damaged if (one, other) == (file, kind))
        test.selectbox(key="run").set_value(name).run()
        assert not test.exception, (file, kind)
