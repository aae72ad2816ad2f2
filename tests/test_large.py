"""Large data sets: mapped, never copied whole, and with the numbers of those in memory."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from iwae.analysis import encode
from iwae.data import arrays, datasets, drawn, readers
from iwae.data.arrays import FoundImages, Options, Part, Rows
from iwae.data.datasets import Dataset
from iwae.evaluation import metrics
from iwae.model import Model, ModelConfig
from iwae.training.config import TrainConfig
from iwae.training.loop import Training

IMAGES = np.random.default_rng(3).integers(0, 256, (1000, 4, 6), np.uint8)
SMALL = ModelConfig(hidden=((12,),), latent=(3,), shape=(4, 6))

PEAK = """
import json, sys, threading, time
from pathlib import Path
from iwae import Training, TrainConfig
from iwae.analysis import encode
from iwae.data import datasets
from iwae.evaluation import metrics
from iwae.export import latents

def anonymous():  # resident bytes that no file backs, so those that the kernel cannot take back
    resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    return 4096 * (resident - shared)

def work(file):
    name = datasets.added("path:" + file)
    config = TrainConfig(dataset=name, model="8:2", k=1, batch_size=500, epochs=1, valid_images=100)
    training = Training(config, datasets.load(name))
    for record in training.run(stop=lambda: training.step >= 5):
        pass
    model, x = training.model, training.data.x("test", True)
    nll = metrics.evaluate(model, x, samples=1).nll
    parts = encode.encode_split(model, training.data, "train", images=2000, samples=1)
    place = encode.map_of_split(model, training.data, "train", "pca", 2000).place
    latents.write(Path(sys.argv[3]), map(place, parts), {})
    training.card()
    return nll.mean().item()

def watch():
    global peak
    while not done:
        peak = max(peak, anonymous())
        time.sleep(0.001)

peak, done = 0, False
thread = threading.Thread(target=watch)
thread.start()
try:
    work(sys.argv[1])
    of_few = peak
    nll = work(sys.argv[2])
finally:
    done = True
    thread.join()
print(json.dumps({"grown": peak - of_few, "nll": nll}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_large_file_is_never_in_memory_whole(tmp_path, monkeypatch):
    """Adding, training, evaluating and encoding 10⁵ images takes at its peak less than half of their bytes more than
    it takes of 5,000. Pages of mapped files, which the kernel can take back, are not counted."""
    monkeypatch.setenv("IWAE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tile = np.random.default_rng(0).integers(0, 256, (1000, 28, 28), np.uint8)
    np.save(tmp_path / "large.npy", np.concatenate([tile + np.uint8(turn) for turn in range(100)]))
    np.save(tmp_path / "small.npy", np.concatenate([tile] * 5))
    paths = [str(tmp_path / name) for name in ("small.npy", "large.npy", "latents.parquet")]
    done = subprocess.run([sys.executable, "-c", PEAK, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["grown"] < 100_000 * 784 / 2 and np.isfinite(found["nll"])


@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize("binary", [True, False])
def test_images_that_are_made_when_asked_for_are_those_of_the_whole(threshold, binary, monkeypatch):
    data = Dataset.from_arrays(IMAGES, options=Options(threshold=threshold))
    whole = data.binary("train") if binary else data.train.images.float() / 255
    monkeypatch.setattr(drawn, "AT_ONCE", 70)
    x = data.x("train", binary)
    assert len(x) == 800 and torch.equal(torch.cat(list(x.split(90))), whole)
    numbers = np.array([5, 799, 5, 71])
    for index in (7, -1, slice(65, 75), numbers, torch.from_numpy(numbers), numbers.tolist(), torch.arange(800) < 9):
        assert torch.equal(x[index], whole[index]), index


def test_a_mapped_set_gives_the_numbers_of_one_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(arrays, "AT_ONCE", 70)
    np.save(tmp_path / "noise.npy", IMAGES)
    inside = Dataset.from_arrays(IMAGES, name="noise")
    mapped = datasets.load(datasets.add_path(tmp_path / "noise.npy"))
    assert mapped.name == inside.name and mapped.identity == inside.identity
    assert torch.equal(mapped.pixel_mean, inside.pixel_mean)
    ends = []
    for data in (inside, mapped):
        training = Training(TrainConfig(dataset=data.name, model=str(SMALL), k=3, epochs=2), data)
        list(training.run())
        ends.append(training.optimizer.flat)
    assert torch.equal(*ends)
    model, x = Model(SMALL, seed=4), inside.binary("test")
    for ours, theirs in zip(
        metrics.evaluate(model, mapped.x("test", True), samples=20).summary().items(),
        metrics.evaluate(model, x, samples=20).summary().items(),
        strict=True,
    ):
        assert ours == theirs
    found = encode.join(encode.encode_split(model, mapped, samples=20))
    whole = encode.encode(model, x, samples=20)
    np.testing.assert_array_equal(found.log_p, whole.log_p)
    np.testing.assert_array_equal(found.mean[0], whole.mean[0])


def test_a_file_is_mapped_and_its_rows_are_taken_in_any_order(tmp_path):
    for order in "CF":
        np.save(tmp_path / "a.npy", np.asarray(IMAGES, order=order))
        images = readers.read(tmp_path / "a.npy", Options()).parts["train"].images
        base = images
        while not isinstance(base, np.memmap):
            base = base.base
        assert not images.flags.owndata and np.array_equal(images, IMAGES)
    order = np.array([3, 999, 0])
    rows = Rows([(IMAGES, order), (IMAGES[:2], None)], threshold=0.5)
    expected = np.where(np.concatenate([IMAGES[order], IMAGES[:2]]) >= 127.5, 255, 0).reshape(5, 24)
    assert np.array_equal(rows.whole(), expected) and [len(part) for part in rows.parts(2)] == [2, 1, 2]
    assert np.array_equal(rows.take(np.array([4, 1])), expected[[4, 1]])


def test_a_truncated_file_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    content = (tmp_path / "a.npy").read_bytes()
    for size in (len(content) - 1, 128):
        (tmp_path / "a.npy").write_bytes(content[:size])
        with pytest.raises(datasets.ArrayError, match=r"a\.npy is damaged.*it ends too early"):
            readers.read(tmp_path / "a.npy", Options())


def test_arrays_of_other_types_become_grey_levels_part_by_part(monkeypatch):
    monkeypatch.setattr(arrays, "AT_ONCE", 70)
    colours = np.random.default_rng(0).integers(0, 256, (200, 4, 6, 3), np.uint8)
    assert np.array_equal(arrays.grey(IMAGES / 255), IMAGES)
    assert np.array_equal(arrays.grey(colours), np.rint(colours @ np.array(arrays.LUMA)).astype(np.uint8))
    made = arrays.splits(FoundImages({"train": Part(arrays.prepared(IMAGES, Options(invert=True)))}), Options())
    assert np.array_equal(np.sort(made.images.whole(), 0), np.sort(255 - IMAGES.reshape(1000, -1), 0))
    with pytest.raises(datasets.ArrayError, match="nan among the values"):
        arrays.grey(np.where(np.arange(200)[:, None] == 180, np.nan, np.zeros((200, 16))))
