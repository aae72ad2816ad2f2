"""When snapshots are due, what they hold, and that a run is none the worse for them."""

import dataclasses

import numpy as np
import pytest
import torch

from iwae import checkpoints
from iwae.model import Model, ModelConfig
from iwae.runs import snapshots, store, worker
from iwae.runs.snapshots import SnapshotFolder, plan
from iwae.training.config import TrainConfig
from iwae.training.loop import Training

SMALL = Model(ModelConfig(hidden=((16,),), latent=(4,)))
CONFIG = TrainConfig("digits", model="16:4", k=5, epochs=6, ema=0.9, valid_images=50)  # 13 steps an epoch

pytestmark = pytest.mark.usefixtures("own_runs")


def test_the_plan_grows_and_is_bounded():
    assert plan(5, 24, SMALL) == [0, 1, 2, 3, 4, 5]
    long = plan(3280, 24, SMALL)
    assert len(long) <= 24 and long[:4] == [0, 1, 2, 3] and long[-1] == 3280
    ratios = np.divide(long[8:], long[7:-1])
    assert ratios.max() / ratios.min() < 1.2
    assert plan(1, 24, SMALL) == [0, 1]
    assert plan(10, 0, SMALL) == []


def test_large_models_keep_fewer_or_none():
    large = Model(ModelConfig(hidden=((2000,),)), seed=None)
    size = 4 * sum(weight.numel() for weight in large.parameters())
    assert len(plan(1000, 24, large)) * size <= snapshots.MAX_BYTES
    assert 1 < len(plan(1000, 24, large)) < 24
    assert plan(1000, 24, Model(ModelConfig(hidden=((3000, 3000),)), seed=None)) == []


def test_one_is_due_once_for_each_planned_pass(tmp_path):
    album, taken = SnapshotFolder(tmp_path), []
    for step in range(0, 13 * 20 + 1, 26):  # validations at every second epoch
        if album.due([0, 1, 3, 4, 10], step / 13, 13):
            checkpoints.save(tmp_path / f"{step:08}.safetensors", SMALL, checkpoints.Card(SMALL.config, {}))
            taken.append(step // 13)
    assert taken == [0, 2, 4, 10]
    album.truncate(13 * 4)
    assert list(album.paths()) == [0, 26, 52]
    assert album.due([0, 1, 3, 4, 10], 10, 13) and not album.due([0, 1, 3, 4, 10], 9, 13)


def test_a_run_keeps_its_model_at_validations_and_trains_as_without(tmp_path):
    run, without = store.create(CONFIG), store.create(CONFIG, max_snapshots=0)
    assert worker.work(run).phase == worker.work(without).phase == "finished"
    assert run.max_snapshots == snapshots.MAX_COUNT and not without.snapshots.paths()
    assert list(run.snapshots.paths()) == [13 * epochs for epochs in range(7)]
    assert not list(run.snapshots.folder.glob(".*"))  # nothing half-written
    for path, other in ((run.checkpoint, without.checkpoint), (run.snapshots.paths()[78], run.checkpoint)):
        assert same(path, other)
    training = Training(CONFIG)
    assert same_weights(training.model, checkpoints.load(run.snapshots.paths()[0])[0])
    for record in training.run():
        if record.valid_bound is not None:
            model, card = checkpoints.load(run.snapshots.paths()[record.step])
            assert same_weights(training.latest_model(), model)
            assert (card.progress["epochs"], card.progress["valid_bound"]) == (record.epochs, record.valid_bound)


def test_an_older_run_takes_none():
    run = store.create(CONFIG)
    settings = (run.folder / "config.json").read_text()
    (run.folder / "config.json").write_text(settings.replace(f'"snapshots": {snapshots.MAX_COUNT}', '"device": "cpu"'))
    assert store.get(run.name).max_snapshots == 0


def test_the_best_model_and_the_latest_are_told_apart():
    """Under early stopping the checkpoint is the best so far, a snapshot the model as it was."""
    run = store.create(dataclasses.replace(CONFIG, patience=1, learning_rate=0.2, ema=0.0, epochs=30))
    worker.work(run)
    last = run.records()[-1]
    assert checkpoints.read_card(run.snapshots.paths()[last.step]).progress["valid_bound"] == last.valid_bound
    assert checkpoints.read_card(run.checkpoint).progress["valid_bound"] > last.valid_bound
    assert not same(run.snapshots.paths()[last.step], run.checkpoint)


def same(first, second) -> bool:
    return same_weights(checkpoints.load(first)[0], checkpoints.load(second)[0])


def same_weights(first: Model, second: Model) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
