"""Callbacks of a training, and the logs for other programs: each holds what the run's records hold, each step once,
though the run was killed and resumed. Read with the programs' own libraries."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from iwae import Training
from iwae.__main__ import main
from iwae.runs import loggers, store, worker
from iwae.runs.loggers import LOGGERS, MLflow, TensorBoard, WandB
from iwae.system import optional
from iwae.training.config import TrainConfig
from iwae.training.loop import Callback, Record

ROOT = Path(__file__).parents[1]
CONFIG = TrainConfig("digits", model="16:4/8:2", k=3, epochs=4, log_every=5)
HERE = [kind for kind, logger in LOGGERS.items() if logger.available()]
Points = dict[str, list[tuple[int, float]]]  # (step, value) of each tag

pytestmark = pytest.mark.usefixtures("own_runs")


def needs(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(kind not in HERE, reason=f"requirements-{LOGGERS[kind].extra}.txt")


def read_tensorboard(folder: Path, name: str) -> tuple[Points, dict[str, str]]:
    """(values, settings) as they lie in all files of a run, nothing purged."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    numbers, texts = defaultdict(list), {}
    for path in sorted((folder / name).glob("events*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    numbers[value.tag].append((event.step, value.tensor.float_val[0]))
                elif value.tensor.string_val:
                    texts[value.tag] = value.tensor.string_val[0].decode()
    settings = json.loads(texts["config/text_summary"].removeprefix("```json\n").removesuffix("```"))
    return numbers, {key: str(value) for key, value in settings.items()}


def read_wandb(folder: Path, name: str) -> tuple[Points, dict[str, str]]:
    """The same, of the only file of the run: what ``wandb sync`` would send."""
    from wandb.proto.wandb_internal_pb2 import Record as Entry

    (path,) = (folder / name).glob("wandb/offline-run-*/run-*.wandb")
    numbers, settings = defaultdict(list), {}
    for entry in map(Entry.FromString, entries(path.read_bytes())):
        for update in entry.run.config.update:
            settings[update.key] = str(json.loads(update.value_json))
        for item in entry.history.item:
            (tag,) = item.nested_key
            if not tag.startswith("_"):
                numbers[tag].append((entry.history.step.num, json.loads(item.value_json)))
    return numbers, settings


def entries(content: bytes) -> list[bytes]:
    """Of a file in the format of LevelDB's log: blocks of 32 KiB; before each part its checksum, length and kind."""
    found, place = [], 7
    while place + 7 <= len(content):
        if (left := 2**15 - place % 2**15) < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        part = content[place + 7 : place + 7 + length]
        if kind in (1, 2):  # whole, or the first part
            found.append(part)
        else:
            found[-1] += part
        place += 7 + length
    return found


def read_mlflow(folder: Path, name: str) -> tuple[Points, dict[str, str]]:
    """The same, of the only run of that name."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / loggers.DATABASE}")
    (experiment,) = (each.experiment_id for each in client.search_experiments() if each.name == loggers.PROJECT)
    (run,) = (each for each in client.search_runs([experiment]) if each.info.run_name == name)
    assert run.info.status == "FINISHED"
    numbers = {
        tag: sorted((each.step, each.value) for each in client.get_metric_history(run.info.run_id, tag))
        for tag in run.data.metrics
    }
    return numbers, run.data.params


READERS = {"tensorboard": read_tensorboard, "wandb": read_wandb, "mlflow": read_mlflow}


def expected(records: list[Record], kind: str) -> Points:
    by_step = {
        "bound/training": [(r.step, r.bound) for r in records],
        "bound/validation": [(r.step, r.valid_bound) for r in records if r.valid_bound is not None],
        "images per second": [(r.step, r.images_per_second) for r in records],
        "learning rate": [(r.step, r.learning_rate) for r in records],
        "epochs": [(r.step, r.epochs) for r in records],
    }
    whole = [r for r in records if r.active_units]
    for layer in (0, 1):
        by_step[f"active units/layer {layer + 1}"] = [(r.step, r.active_units[layer]) for r in whole]
    if kind == "wandb":  # whose steps are one series for all
        return by_step
    by_epoch = {"bound/training": [r.bound for r in whole], "bound/validation": [r.valid_bound for r in whole]}
    by_epoch |= {f"active units/layer {layer + 1}": [r.active_units[layer] for r in whole] for layer in (0, 1)}
    return by_step | {
        f"by epoch/{tag}": [(int(r.epochs), value) for r, value in zip(whole, values, strict=True)]
        for tag, values in by_epoch.items()
    }


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[list[Record], Path, str, list[int]]:
    """(records, folder of the logs, name, steps that were logged before) of a run that was killed after the record of
    step 30, with the state of step 26 saved, then resumed to its end."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IWAE_RUNS_DIR", str(runs))
        patch.setenv("OMP_NUM_THREADS", "1")
        run = store.create(CONFIG, logs=store.logs_for(HERE))
        program = f"""
import os, signal
from pathlib import Path
from iwae.runs import loggers, worker
from iwae.runs.store import Run

loggers.FLUSH_SECONDS = 1e-9
def kill(record, training):
    if record.step == 30:
        os.kill(os.getpid(), signal.SIGKILL)
worker.work(Run(Path({str(run.folder)!r})), kill, save_seconds=0)
"""
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT)
        assert done.returncode == -signal.SIGKILL
        before = [record.step for record in run.records()]
        run.prepare()
        assert worker.work(run).phase == "finished"
        return run.records(), store.logs_dir(), run.name, before


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=needs(kind)) for kind in LOGGERS])
def test_a_log_holds_every_record_once_though_the_run_was_killed_and_resumed(kind, killed):
    records, folder, name, before = killed
    assert before[-1] == 30 and [r.step for r in records if r.valid_bound is not None] == [13, 26, 39, 52]
    numbers, settings = READERS[kind](folder, name)
    wanted = expected(records, kind)
    assert set(numbers) == set(wanted)
    for tag, points in wanted.items():
        assert [step for step, _ in numbers[tag]] == [step for step, _ in points], tag
        if kind == "mlflow" and tag == "images per second":  # of step 30 that of the killed process stays
            continue
        assert [value for _, value in numbers[tag]] == pytest.approx([value for _, value in points], rel=1e-6), tag
    given = {key: str(value) for key, value in dataclasses.asdict(CONFIG).items() if value is not None}
    assert {key: value for key, value in settings.items() if key != "_wandb"} == given


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=needs(kind)) for kind in LOGGERS])
def test_from_python_a_second_training_of_the_same_name_is_a_log_of_its_own(kind, tmp_path):
    """In MLflow beside the first, elsewhere instead of it."""
    for seed in (0, 1):
        training = Training(dataclasses.replace(CONFIG, epochs=1, seed=seed))
        records = list(training.run(callbacks=[LOGGERS[kind](tmp_path, "mine")]))
    if kind == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{tmp_path / loggers.DATABASE}")
        newest, first = client.search_runs([client.get_experiment_by_name(loggers.PROJECT).experiment_id])
        assert (newest.data.params["seed"], first.data.params["seed"]) == ("1", "0")
        client.delete_run(first.info.run_id)
    numbers, settings = READERS[kind](tmp_path, "mine")
    assert settings["seed"] == "1"
    assert [value for _, value in numbers["bound/training"]] == pytest.approx([r.bound for r in records], rel=1e-6)


def test_a_run_without_a_log_writes_none(tmp_path):
    run = store.create(dataclasses.replace(CONFIG, epochs=1))
    assert run.logs is None and worker.work(run).phase == "finished"
    assert not store.logs_dir().exists()


@pytest.mark.parametrize("kind", LOGGERS)
def test_without_the_package_no_run_is_made_and_the_message_says_what_to_install(kind, monkeypatch, capsys):
    monkeypatch.setattr(optional, "find_spec", lambda name: None)
    assert main(["train", "--dataset", "digits", "--log", kind]) == 1
    needed = ", ".join(LOGGERS[kind].packages)
    file = f"requirements-{'extra' if kind == 'tensorboard' else 'loggers'}.txt"
    assert f"logging for {LOGGERS[kind].title} needs {needed}: pip install -r {file}\n" in capsys.readouterr().err
    assert store.list_runs() == [] and not store.logs_dir().exists()


@pytest.mark.parametrize(
    ("logger", "blocker"),
    [
        pytest.param(TensorBoard, "mine", marks=needs("tensorboard")),
        pytest.param(WandB, "mine", marks=needs("wandb")),
        pytest.param(MLflow, loggers.DATABASE, marks=needs("mlflow")),
    ],
)
def test_a_log_that_cannot_be_written_is_a_sentence(logger, blocker, tmp_path):
    (tmp_path / blocker).write_text("something else")
    training = Training(dataclasses.replace(CONFIG, epochs=1))
    with pytest.raises(loggers.LogError, match=f"the log for {logger.title} in .* cannot be written"):
        next(training.run(callbacks=[logger(tmp_path, "mine")]))
    assert training.step == 0 and (tmp_path / blocker).read_text() == "something else"


class Recorder(Callback):
    """Notes what is called; fails where ``fails`` says so."""

    def __init__(self, name: str, notes: list, fails: str | int = ""):
        self.name, self.notes, self.fails = name, notes, fails

    def note(self, what: str | int) -> None:
        self.notes.append((self.name, what))
        if what == self.fails:
            raise RuntimeError(f"{self.name} fails")

    def on_start(self, training):
        self.note("start")

    def on_record(self, record, training):
        assert training.step == record.step
        self.note(record.step)

    def on_end(self, training):
        self.note("end")


def test_callbacks_are_called_in_order_and_before_the_record_is_yielded():
    notes = []
    training = Training(dataclasses.replace(CONFIG, epochs=1))
    for record in training.run(callbacks=[Recorder("a", notes), Recorder("b", notes), Callback()]):
        notes.append(("loop", record.step))
    steps = [(name, step) for step in (5, 10, 13) for name in ("a", "b", "loop")]
    assert notes == [("a", "start"), ("b", "start"), *steps, ("b", "end"), ("a", "end")]


def test_who_stops_iterating_ends_the_callbacks():
    notes = []
    records = Training(CONFIG).run(callbacks=[Recorder("a", notes)])
    next(records)
    records.close()
    assert notes == [("a", "start"), ("a", 5), ("a", "end")]


def test_an_exception_of_a_callback_ends_the_run_which_can_be_continued_bit_for_bit():
    whole, notes = Training(CONFIG), []
    wanted = list(whole.run())
    training = Training(CONFIG)
    with pytest.raises(RuntimeError, match="b fails"):
        list(training.run(callbacks=[Recorder("a", notes), Recorder("b", notes, fails="start")]))
    assert notes == [("a", "start"), ("b", "start"), ("a", "end")] and training.step == 0
    notes.clear()
    with pytest.raises(RuntimeError, match="a fails"):
        list(training.run(callbacks=[Recorder("a", notes, fails=15), Recorder("b", notes)]))
    assert notes[-3:] == [("a", 15), ("b", "end"), ("a", "end")] and training.step == 15
    rest = list(training.run())
    assert [(r.step, r.bound) for r in rest] == [(r.step, r.bound) for r in wanted if r.step > 15]
    for mine, other in zip(training.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, other)


@needs("tensorboard")
def test_the_example_in_the_documents_runs(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "logging-and-sharing.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], {})
    *steps, best = capsys.readouterr().out.splitlines()
    numbers, _ = read_tensorboard(tmp_path / "logs", "my run")
    assert len(steps) == len(numbers["bound/training"])
    assert float(best) == pytest.approx(max(value for _, value in numbers["bound/validation"]), rel=1e-6)
