"""The latents of many images: closed forms, identities with the evaluation, and every file read by its own readers."""

import contextlib
import csv
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from iwae import adapters, checkpoints, cli
from iwae.__main__ import main
from iwae.analysis import encode, latent, ray_encode, umap_maps
from iwae.checkpoints import Card
from iwae.data import columns, datasets
from iwae.evaluation.metrics import evaluate
from iwae.export import latents
from iwae.inference.posterior import Posterior
from iwae.kernels.finite import NonFiniteError
from iwae.model import Model, ModelConfig
from iwae.system import optional
from iwae.system import ray_cluster as ray_cluster_module
from iwae.system.files import TargetError
from tests.linear_gaussian import LinearGaussian

TWO = ModelConfig(hidden=((12,), (8,)), latent=(5, 3), shape=(4, 6))
SAMPLES = 60


class Exact(LinearGaussian):
    """With what sampling many images asks of a model; q is the true posterior, but for a shift of its mean."""

    device, config = torch.device("cpu"), ModelConfig(hidden=((1,),), latent=(3,), shape=(1, 6))

    def __init__(self, shift: float = 0.0):
        super().__init__()
        self.encoder = [None]
        self.shift.data += shift


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (400, 4, 6), np.uint8)
    labels = random.integers(0, 2, 400)
    return datasets.Dataset.from_arrays(images, labels=labels, label_names=("a, b", "c\td"), name="noise")


@pytest.fixture(scope="module")
def model():
    made = Model(TWO, seed=4)
    with torch.no_grad():  # so that every unit says something
        for weight in made.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return made


@pytest.fixture(scope="module")
def found(model, data):
    return encode.join(encode.encode_split(model, data, "train", samples=SAMPLES, seed=3, draws=2))


@pytest.fixture
def checkpoint(model, data, tmp_path, monkeypatch):
    """The model in a file, and its data set where the commands find it."""
    monkeypatch.setenv("IWAE_DATA_DIR", str(tmp_path / "data"))
    path = tmp_path / "model.safetensors"
    checkpoints.save(path, model, Card(TWO, {"dataset": datasets.add(data), "objective": "iwae", "k": 5}))
    return path


def on_plane(latents):
    return encode.sample_map(latents.index, latents.mean[0], "pca").place(latents)


def test_exact_where_q_is_the_posterior():
    model, x = Exact(), torch.randn(130, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = encode.encode(model, x, samples=SAMPLES)
    mean, log_std = model.encode_first(x)
    np.testing.assert_allclose(found.log_p, model.log_p(x).detach(), rtol=1e-12)
    np.testing.assert_allclose(found.ess, SAMPLES)
    np.testing.assert_allclose(found.mean[0], mean.detach(), rtol=1e-6)
    np.testing.assert_allclose(found.std[0], log_std.exp().detach(), rtol=1e-6)


def test_within_its_error_where_q_lies_beside_the_posterior():
    """Of 130 images, with errors by the delta method, which here holds: |z| > 4 for none (a false alarm in 120), and
    the mean of z² near 1."""
    model, x = Exact(shift=0.1), torch.randn(130, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = encode.encode(model, x, samples=2000)
    z = (found.log_p - model.log_p(x).detach().numpy()) / np.sqrt(1 / found.ess - 1 / 2000)
    assert np.abs(z).max() < 4 and abs((z**2).mean() - 1) < 4 * math.sqrt(2 / 130)


def test_the_numbers_are_those_of_the_evaluation_and_of_the_posterior_of_the_same_draws(model, data):
    x = data.binary("train")[:150]
    found = encode.encode(model, x, samples=SAMPLES, seed=3, draws=SAMPLES)
    measured = evaluate(model, x, samples=SAMPLES, seed=3, prune=False)
    np.testing.assert_array_equal(found.log_p, -measured.nll)
    np.testing.assert_array_equal(found.ess, measured.ess)
    for layer in (1, 2):
        moments = latent.encode(model, x, layer)
        np.testing.assert_allclose(found.mean[layer - 1], moments.mean, atol=1e-6)  # other rows in a product
        np.testing.assert_allclose(found.std[layer - 1], moments.std, atol=1e-6)
    for row in (0, 149):
        h = tuple(torch.from_numpy(layer[row]) for layer in found.draws)
        mean, std = (torch.from_numpy(part[0][row]) for part in (found.mean, found.std))
        drawn = Posterior(x[row], mean, std, h, torch.zeros(SAMPLES), torch.from_numpy(found.log_w[row]), 3)
        assert found.log_p[row] == pytest.approx(drawn.log_p, abs=1e-5)
        assert found.ess[row] == pytest.approx(drawn.ess, rel=1e-4) and found.k_hat[row] == drawn.k_hat
        log_joint = sum(model.log_joint(x[row : row + 1], tuple(part[:, None] for part in h)))[:, 0]
        log_w = log_joint - model.log_q(x[row : row + 1], tuple(part[:, None] for part in h))[:, 0]
        np.testing.assert_allclose(found.log_w[row], log_w.detach(), atol=1e-4)


def test_parts_are_the_whole(model, data, found, monkeypatch):
    monkeypatch.setattr(encode, "PART", 100)
    x, labels = data.binary("train"), data.train.labels.numpy()
    seen = []
    parts = encode.encode_split(
        model, data, "train", samples=SAMPLES, seed=3, progress=lambda done, total: seen.append((done, total))
    )
    parts = list(parts)
    assert [len(part) for part in parts] == [100, 100, 100, 20] and seen == [(n, 320) for n in (100, 200, 300, 320)]
    whole = encode.encode(model, x, samples=SAMPLES, seed=3)
    for one in (encode.join(parts), found):
        np.testing.assert_array_equal(one.log_p, whole.log_p)
        np.testing.assert_array_equal(one.k_hat, whole.k_hat)
        np.testing.assert_array_equal(one.mean[0], whole.mean[0])
        np.testing.assert_array_equal(one.std[1], whole.std[1])
        assert (one.index == np.arange(320)).all() and (one.labels == labels).all()
    chosen = latent.subset(320, 150)
    some = encode.join(encode.encode_split(model, data, "train", images=150, samples=SAMPLES))
    same = encode.encode(model, x[chosen], samples=SAMPLES)
    np.testing.assert_array_equal(some.log_p, same.log_p)
    assert (some.index == chosen).all() and (some.labels == labels[chosen]).all()


def test_places_on_a_map(model, data, found, monkeypatch):
    points = found.mean[0].astype(np.float64)
    plane = latent.pca(points).project(points)
    whole = encode.map_of_split(model, data, "train", "pca")
    np.testing.assert_array_equal(whole.place(found).places, plane)
    monkeypatch.setattr(encode, "MAP_IMAGES", 100)
    chosen = latent.subset(320, 100)
    others, of_sample = np.setdiff1d(np.arange(320), chosen), latent.pca(points[chosen]).project(points)
    np.testing.assert_allclose(
        encode.map_of_split(model, data, "train", "pca").place(found).places, of_sample, atol=1e-6
    )
    monkeypatch.setattr(umap_maps, "umap", lambda points, start, settings, report: start + 7)
    by_umap = encode.map_of_split(model, data, "train", "umap")
    places = by_umap.place(found).places
    np.testing.assert_allclose(places[chosen], of_sample[chosen] + 7, atol=1e-6)
    expected = latent.place_on_map(points[others], points[chosen], of_sample[chosen] + 7)
    np.testing.assert_allclose(places[others], expected, atol=1e-5)
    monkeypatch.setattr(encode, "PART", 100)
    parts = encode.encode_split(model, data, "train", samples=SAMPLES, seed=3, draws=2)
    np.testing.assert_allclose(encode.join(map(by_umap.place, parts)).places, places, atol=1e-5)
    with pytest.raises(ValueError, match="unknown map 'tsne'; there are pca, umap"):
        encode.map_of_split(model, data, "train", "tsne")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"samples": 0}, "samples must be at least 1, not 0"),
        ({"samples": 5, "draws": 6}, "draws must lie between 0 and the 5 samples, not 6"),
        ({"samples": 2000, "draws": 2000}, "draws must not be above 1,000, not 2,000"),
        ({"images": 321}, "images must lie between 1 and 320, all train images of noise@.*, not 321"),
        ({"split": "all"}, "unknown split 'all'"),
    ],
)
def test_what_cannot_be_is_refused_at_once(model, data, options, told):
    with pytest.raises(ValueError, match=told):
        encode.encode_split(model, data, **({"split": "train"} | options))


def test_draws_that_have_no_room_are_refused(model, monkeypatch):
    monkeypatch.setattr(encode, "LARGEST", 2**20)
    units = sum(model.config.latent)
    most = 2**20 // (4 * 1000 * (1 + units))
    encode.check_draws(model.config, 1000, most)
    with pytest.raises(ValueError, match=rf"draws: {most + 1} of each of 1,000 images are 0\.0 GB of memory"):
        encode.check_draws(model.config, 1000, most + 1)


def test_a_full_disk_is_a_sentence_that_names_the_file(found, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(TargetError, match=r"latents\.npz cannot be written \(No space left on device\)"):
        latents.write(tmp_path / "latents.npz", [found], {})
    assert not list(tmp_path.iterdir())


def test_a_model_from_elsewhere_is_encoded(data):
    torch.manual_seed(0)
    network = torch.nn.Linear(24, 6)
    foreign = adapters.wrap(
        torch.nn.Sequential(network, Halves()), torch.nn.Linear(3, 24), latent=3, shape=(4, 6), log_var=True
    )
    x = data.binary("test")
    found = encode.encode(foreign, x, samples=SAMPLES)
    mean, log_var = network(x).chunk(2, -1)
    np.testing.assert_allclose(found.mean[0], mean.detach(), atol=1e-6)
    np.testing.assert_allclose(found.std[0], (log_var / 2).exp().detach(), rtol=1e-5)
    np.testing.assert_array_equal(found.log_p, -evaluate(foreign, x, samples=SAMPLES, prune=False).nll)


class Halves(torch.nn.Module):
    def forward(self, x):
        return x.chunk(2, -1)


def test_few_draws_have_no_k_hat(model, data):
    assert np.isnan(encode.encode(model, data.binary("test"), samples=20).k_hat).all()


# ---- files ------------------------------------------------------------------------------------------------------


def about(samples: int = SAMPLES) -> dict:
    return {"model": "m", "dataset": "noise", "samples": samples, "map": "pca", "units": "nats per image"}


def test_a_table(found, tmp_path):
    """Parquet with its schema's metadata, and the same as .csv with a .json beside it."""
    pd, pq = pytest.importorskip("pandas"), pytest.importorskip("pyarrow.parquet")
    placed = on_plane(found)
    halves = [encode.join([placed]), encode.join([placed])]
    (path,) = latents.write(tmp_path / "l.parquet", halves, about())
    table = pd.read_parquet(path)
    assert len(table) == 640 and json.loads(pq.read_schema(path).metadata[b"iwae"]) == about()
    table = table[:320]
    expected = pd.DataFrame(placed.columns())
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    assert list(table)[:8] == ["index", "label", "class", "log_p", "ess", "k_hat", "map_x", "map_y"]
    assert len(list(table)) == 8 + 2 * (5 + 3) + 2 * (1 + 5 + 3)
    np.testing.assert_array_equal(table["h2_std_1"], found.std[1][:, 1])
    np.testing.assert_array_equal(table["draw1_h1_4"], found.draws[0][:, 1, 4])
    np.testing.assert_array_equal(table["draw0_log_w"], found.log_w[:, 0])
    text, beside = latents.write(tmp_path / "l.csv", [placed], about())
    assert beside.name == "l.csv.json" and json.loads(beside.read_text(encoding="utf-8")) == about()
    read = pd.read_csv(text).astype({"h1_mean_0": np.float32, "h2_std_1": np.float32})
    for name in ("class", "log_p", "k_hat", "map_y", "h1_mean_0", "h2_std_1"):
        assert (read[name] == table[name]).all(), name
    back = columns.read(text.read_bytes(), text.name, 320)  # as the explorer takes it to colour by
    np.testing.assert_array_equal(back["log_p"].values, found.log_p)
    assert columns.as_text(back["class"], np.arange(320)) == table["class"].str.replace("\t", "�").tolist()


def test_npz(found, tmp_path):
    latents.write(tmp_path / "l.npz", [found], about())
    with np.load(tmp_path / "l.npz", allow_pickle=False) as file:
        read = dict(file)
    assert json.loads(str(read.pop("about"))) == about() and list(read["label_names"]) == ["a, b", "c d"]
    for name, expected in (("h1_mean", found.mean[0]), ("h2_draws", found.draws[1]), ("draws_log_w", found.log_w)):
        np.testing.assert_array_equal(read[name], expected)
    assert set(read) == {
        "index", "label", "label_names", "log_p", "ess", "k_hat", "draws_log_w",
        *(f"h{layer}_{what}" for layer in (1, 2) for what in ("mean", "std", "draws")),
    }  # fmt: skip


def test_h5ad(found, tmp_path):
    anndata = pytest.importorskip("anndata", reason="requirements-extra.txt")
    latents.write(tmp_path / "l.h5ad", [on_plane(found)], about())
    read = anndata.read_h5ad(tmp_path / "l.h5ad")
    np.testing.assert_array_equal(read.X, found.mean[0])
    np.testing.assert_array_equal(read.layers["std"], found.std[0])
    np.testing.assert_array_equal(read.obsm["h2_mean"], found.mean[1])
    np.testing.assert_array_equal(read.obsm["h1_draws"], found.draws[0])
    np.testing.assert_array_equal(read.obs["log_p"], found.log_p)
    assert read.obsm["X_pca"].shape == (320, 2) and list(read.var_names)[-1] == "h1_4"
    assert list(read.obs["class"]) == [found.label_names[label] for label in found.labels]
    assert read.uns["iwae"]["units"] == "nats per image" and read.uns["iwae"]["samples"] == SAMPLES


def test_the_projector_s_files(found, data, tmp_path):
    """Vectors of every layer, metadata with a header, a square sprite in order, and a config that TensorBoard reads."""
    pictures = data.train.images.view(-1, 4, 6).numpy()
    written = latents.write(tmp_path / "l.tsv", [found], about(), pictures)
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()} == {
        "l.tsv", "l.h2.tsv", "l.metadata.tsv", "l.sprite.png", "l.tsv.json", "projector_config.pbtxt"
    }  # fmt: skip
    for name, mean in (("l.tsv", found.mean[0]), ("l.h2.tsv", found.mean[1])):
        np.testing.assert_array_equal(np.loadtxt(tmp_path / name, np.float32, delimiter="\t"), mean)
    rows = list(csv.DictReader((tmp_path / "l.metadata.tsv").open(encoding="utf-8"), delimiter="\t"))
    assert len(rows) == 320 and list(rows[0]) == ["index", "label", "class", "log_p", "ess", "k_hat"]
    assert {row["class"] for row in rows} == {"a, b", "c d"} and float(rows[9]["log_p"]) == found.log_p[9]
    sheet = np.asarray(Image.open(tmp_path / "l.sprite.png"))
    assert sheet.shape == (18 * 4, 18 * 6)
    np.testing.assert_array_equal(sheet[4:8, 12:18], pictures[18 + 2])
    config = pytest.importorskip("tensorboard.plugins.projector.projector_config_pb2", reason="requirements-extra.txt")
    from google.protobuf import text_format

    text = (tmp_path / "projector_config.pbtxt").read_text(encoding="utf-8")
    one, two = text_format.Parse(text, config.ProjectorConfig()).embeddings
    assert (one.tensor_path, two.tensor_path, one.metadata_path) == ("l.tsv", "l.h2.tsv", "l.metadata.tsv")
    assert two.sprite.image_path == "l.sprite.png" and list(one.sprite.single_image_dim) == [6, 4]
    latents.write(tmp_path / "l.tsv", [found], about())  # its own files are replaced
    with pytest.raises(ValueError, match=r"projector_config.pbtxt belongs to other vectors than other.tsv"):
        latents.check(tmp_path / "other.tsv")


def test_a_sprite_too_large_for_the_projector_is_left_out(found, data, tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "LARGEST_SPRITE", 18 * 6 - 1)
    written = latents.write(tmp_path / "l.tsv", [found], about(), data.train.images.view(-1, 4, 6).numpy())
    assert not any("sprite" in path.name for path in written)
    assert "sprite" not in (tmp_path / "projector_config.pbtxt").read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".csv", ".tsv"])
def test_no_file_is_left_by_a_part_that_fails(found, tmp_path, suffix):
    def parts():
        yield found
        raise NonFiniteError("log p̂(x) is not finite")

    with pytest.raises(NonFiniteError):
        latents.write(tmp_path / f"l{suffix}", parts(), about())
    assert not list(tmp_path.iterdir())


# ---- the command ------------------------------------------------------------------------------------------------


def test_the_command_writes_what_the_functions_give(checkpoint, data, model, tmp_path, capsys):
    out = tmp_path / "out" / "l.npz"
    words = ["--split", "train", "--samples", "60", "--seed", "3", "--draws", "2", "--map", "pca", "--out", str(out)]
    assert main(["encode", str(checkpoint), *words]) == 0
    assert f"320 train images of {data.name}, 60 draws each, seed 3" in capsys.readouterr().out
    expected = encode.encode(model, data.binary("train"), samples=60, seed=3)
    with np.load(out) as file:
        np.testing.assert_array_equal(file["log_p"], expected.log_p)
        assert file["map"].shape == (320, 2) and file["h2_draws"].shape == (320, 2, 3)
        kept = json.loads(str(file["about"]))
    settings = {"samples": 60, "seed": 3, "draws": 2, "map": "pca", "split": "train", "dataset": data.name}
    assert kept.items() >= settings.items() and kept["model"] == "model" and "nats" in kept["units"]
    assert main(["encode", str(checkpoint), "--images", "30", "--samples", "5", "--out", str(tmp_path / "l.csv")]) == 0
    with (tmp_path / "l.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["index"]) for row in rows] == list(latent.subset(40, 30)) and rows[0]["k_hat"] == "nan"


def test_a_missing_anndata_says_what_brings_it_on_this_python(checkpoint, tmp_path, capsys, monkeypatch):
    """On Python 3.11 requirements-extra.txt has none."""
    monkeypatch.setattr(optional, "find_spec", lambda package: None)
    assert main(["encode", str(checkpoint), "--out", str(tmp_path / "l.h5ad")]) == 1
    brings = 'anndata "pandas<3"' if sys.version_info < (3, 12) else "-r requirements-extra.txt"
    assert f"a .h5ad file needs anndata: pip install {brings}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "l.xlsx"], "--out: l.xlsx ends in none of .parquet, .npz, .csv, .tsv, .h5ad"),
        (["--out", "l.csv", "--draws", "9", "--samples", "8"], "--draws must lie between 0 and the 8 --samples, not 9"),
        (["--out", "l.tsv", "--draws", "9"], "--draws: the projector's .tsv has no place for draws"),
        (["--out", "l.csv", "--images", "41"], "--images must lie between 1 and 40, all test images of noise@"),
        (["--out", "l.csv", "--images", "15", "--map", "umap"], "--map umap needs at least 16 images, not 15"),
        (["--out", "l.csv", "--images", "1", "--map", "pca"], "--map pca needs at least 2 images, not 1"),
        (["--out", "l.npz", "--samples", "2000", "--draws", "1001"], "--draws must not be above 1,000, not 1,001"),
        (["--out", "l.csv", "--dataset", "digits"], "is for images of 4×6 pixels; those of digits have 28×28"),
        (["--out", "l.csv", "--split", "other"], "--split"),
    ],
)
def test_the_command_refuses_in_one_line(checkpoint, tmp_path, capsys, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main(["encode", str(checkpoint), *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and told in err and err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_threads_change_no_bit(model, data, found, threads_as_before):
    """A part of one block, too, which several threads would otherwise share."""
    torch.set_num_threads(2)
    part = encode.join(encode.encode_split(model, data, "train", samples=SAMPLES, seed=3, draws=2))
    alone = encode.encode(model, data.binary("train")[:90], samples=SAMPLES, seed=3)
    torch.set_num_threads(1)
    np.testing.assert_array_equal(
        alone.log_p, encode.encode(model, data.binary("train")[:90], samples=SAMPLES, seed=3).log_p
    )
    for name, column in part.columns().items():
        np.testing.assert_array_equal(column, found.columns()[name])


# ---- on a Ray cluster -------------------------------------------------------------------------------------------


class Deadly(Model):
    """Kills the process that encodes with it."""

    def encode_first(self, x):
        os.kill(os.getpid(), signal.SIGKILL)


class Broken(Model):
    """As a model whose weights are not finite."""

    def encode_first(self, x):
        mean, log_std = super().encode_first(x)
        return mean / 0, log_std


def test_a_missing_ray_says_what_to_install(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["encode", str(checkpoint), "--ray", "auto", "--out", str(tmp_path / "l.csv")]) == 1
    assert "pip install -r requirements-cluster.txt" in capsys.readouterr().err
    assert not (tmp_path / "l.csv").exists()


def wait_for_cores(ray, free: int) -> None:
    """Until so many cores of the cluster are free."""
    end = time.monotonic() + 120
    while ray.available_resources().get("CPU", 0) != free:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_a_ray_cluster_loses_a_node_and_the_file_is_that_of_one_machine(ray_cluster, checkpoint, tmp_path, monkeypatch):
    """The node is killed while both encode, after the first part has come: the same bytes."""
    import ray

    made, node = ray_cluster
    monkeypatch.setattr(ray_encode, "PART", 100)
    monkeypatch.setattr(encode, "PART", 200)
    parts = []

    def kill(done, total):
        parts.append(done)
        if len(parts) == 1:
            wait_for_cores(ray, 0)
            made.remove_node(node, allow_graceful=False)

    words = ["encode", str(checkpoint), "--split", "train", "--samples", "20000", "--draws", "2", "--out"]
    monkeypatch.setattr(cli, "image_bar", lambda: contextlib.nullcontext(kill))
    assert main([*words, str(tmp_path / "far.parquet"), "--ray", made.address]) == 0
    assert parts == [100, 200, 300, 320]
    monkeypatch.undo()
    monkeypatch.setenv("IWAE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(encode, "PART", 200)
    assert main([*words, str(tmp_path / "near.parquet")]) == 0
    assert (tmp_path / "far.parquet").read_bytes() == (tmp_path / "near.parquet").read_bytes()


@pytest.mark.slow
def test_what_a_ray_cluster_cannot_do_is_a_sentence_and_leaves_nothing(
    ray_cluster, checkpoint, data, tmp_path, monkeypatch, capsys
):
    import ray

    made, _ = ray_cluster
    out = tmp_path / "out"
    words = ["encode", str(checkpoint), "--split", "train", "--out", str(out / "l.csv"), "--ray"]
    assert main([*words, "127.0.0.1:9"]) == 1
    assert "no Ray cluster at 127.0.0.1:9 could be joined" in capsys.readouterr().err

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(ray_cluster_module, "RETRIES", 1)
    for kind, told in (
        (Broken, "error: the mean of q(h₁|x) of image 0 is -inf, not a finite number"),
        (Deadly, "lost 2 workers one after the other"),
    ):
        monkeypatch.setattr(
            checkpoints, "load", lambda path, device, kind=kind: (kind(TWO), checkpoints.read_card(path))
        )
        assert main([*words, made.address]) == 1
        assert told in capsys.readouterr().err
        assert not list(out.iterdir())


@pytest.mark.slow
def test_ctrl_c_leaves_neither_a_file_nor_work_on_the_cluster(ray_cluster, checkpoint, tmp_path):
    import ray

    made, _ = ray_cluster
    out = tmp_path / "out"
    options = ["--split", "train", "--samples", "1000000", "--out", str(out / "l.csv"), "--ray", made.address]
    command = [sys.executable, "-m", "iwae", "encode", str(checkpoint), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ray.init(made.address, log_to_driver=False)
    try:
        wait_for_cores(ray, 1)  # all images are one part
        process.send_signal(signal.SIGINT)
        said, err = process.communicate(timeout=60)
        assert process.returncode == 130 and said == "" and err.endswith("error: interrupted\n")
        assert not list(out.iterdir())
        wait_for_cores(ray, 2)
    finally:
        process.kill()
        ray.shutdown()
