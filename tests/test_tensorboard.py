"""TensorBoard's log of a run holds what its records hold, each step once, whatever interrupts it."""

import dataclasses
import json
from collections import defaultdict

import pytest

from iwae.runs import store, worker
from iwae.system import optional
from iwae.training.config import TrainConfig

loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader", reason="requirements-extra.txt")

CONFIG = TrainConfig("digits", model="16:4/8:2", k=3, epochs=4, log_every=5)


pytestmark = pytest.mark.usefixtures("own_runs")


def events(folder) -> tuple[dict[str, list[tuple[int, float]]], dict[str, str]]:
    """(scalars by tag, texts by tag) of all files in a folder as they lie there, nothing purged."""
    numbers, texts = defaultdict(list), {}
    for path in sorted(folder.glob("events*")):
        for event in loader.EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                tensor = value.tensor
                if value.metadata.plugin_data.plugin_name == "scalars":
                    (number,) = tensor.float_val
                    numbers[value.tag].append((event.step, number))
                elif tensor.string_val:
                    texts[value.tag] = tensor.string_val[0].decode()
    return numbers, texts


def expected(records) -> dict[str, list[tuple[int, float]]]:
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
        by_step[f"by epoch/active units/layer {layer + 1}"] = [(int(r.epochs), r.active_units[layer]) for r in whole]
    by_step["by epoch/bound/training"] = [(int(r.epochs), r.bound) for r in whole]
    by_step["by epoch/bound/validation"] = [(int(r.epochs), r.valid_bound) for r in whole]
    return by_step


def test_a_log_holds_every_record_once_though_the_run_was_stopped_and_had_lost_some(tmp_path):
    run = store.create(CONFIG, log=tmp_path / "logs")
    assert run.tensorboard == tmp_path / "logs" / run.name

    def stop_in_the_third_pass(record, training):
        if record.step == 30:
            run.stop()

    assert worker.work(run, stop_in_the_third_pass).phase == "stopped"
    with (run.folder / "metrics.jsonl").open("a") as lines:  # as after a crash: logged, but not in the saved state
        lines.write(json.dumps(dataclasses.asdict(run.records()[-1]) | {"step": 35, "bound": 0.0}) + "\n")
    run.prepare()
    assert worker.work(run).phase == "finished"
    records = run.records()
    assert [r.step for r in records if r.valid_bound is not None] == [13, 26, 39, 52]
    numbers, texts = events(run.tensorboard)
    wanted = expected(records)
    assert set(numbers) == set(wanted)
    for tag, points in wanted.items():
        assert [step for step, _ in numbers[tag]] == [step for step, _ in points], tag
        assert [value for _, value in numbers[tag]] == pytest.approx([value for _, value in points], rel=1e-6), tag
    settings = json.loads(texts["config/text_summary"].removeprefix("```json\n").removesuffix("```"))
    assert TrainConfig.from_dict(settings) == CONFIG


def test_a_run_without_a_log_writes_none(tmp_path):
    run = store.create(dataclasses.replace(CONFIG, epochs=1))
    assert run.tensorboard is None and worker.work(run).phase == "finished"
    assert not list(tmp_path.rglob("events*"))


def test_without_the_package_no_run_is_made_and_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(optional, "find_spec", lambda name: None)
    with pytest.raises(optional.MissingError, match=r"needs tensorboard: pip install -r requirements-extra\.txt"):
        store.create(CONFIG, log=tmp_path / "logs")
    assert store.list_runs() == [] and not (tmp_path / "logs").exists()
