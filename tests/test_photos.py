"""Hard photos of MNIST's test digits (`photos.py`) read by a classifier that was trained on MNIST."""

import functools
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from iwae.images import sheet
from iwae.images.digits import PictureError, prepare
from tests import photos

MNIST = Path(os.environ.get("IWAE_DATA_DIR", "")) / "mnist"
CASES = Path(__file__).parents[2] / "shared" / "cases" / "uploads"
needs_mnist = pytest.mark.skipif(not MNIST.joinpath("train-images-idx3-ubyte.gz").is_file(), reason="no MNIST")


def part(name: str) -> tuple[np.ndarray, np.ndarray]:
    def idx(kind: str, offset: int) -> np.ndarray:
        return np.frombuffer(gzip.open(MNIST / f"{name}-{kind}-ubyte.gz").read(), np.uint8, offset=offset)

    return idx("images-idx3", 16).reshape(-1, 28, 28), idx("labels-idx1", 8)


@pytest.fixture(scope="module")
def test_digits():
    return part("t10k")


@functools.cache
def reader(count: int):
    """PCA and an SVM, as in `test_digits.py`, trained on `count` training images."""
    images, labels = part("train")
    chosen = np.random.default_rng(20).choice(60_000, count, replace=False)
    found = make_pipeline(PCA(50, random_state=0), SVC(C=5, gamma=0.02))
    return found.fit(images[chosen].reshape(-1, 784) / 255, labels[chosen])


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """The largest cosine of two digits, blurred by a pixel, over shifts by one pixel."""
    one, other = (scipy.ndimage.gaussian_filter(image, 1) for image in (one, other))
    shifts = [np.roll(one, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return max(float((shifted * other).sum()) for shifted in shifts) / float(
        np.linalg.norm(one) * np.linalg.norm(other)
    )


def measured(kind: str, count: int, seed: int, test_digits, classifier) -> np.ndarray:
    """For each photo of a kind: is the original read, is the photo read, is it like the original, does it warn?"""
    images, labels = test_digits
    rng = np.random.default_rng([seed, list(photos.KINDS).index(kind)])
    rows = []
    for number in rng.choice(10_000, count, replace=False):
        data = photos.photo(images[number], photos.KINDS[kind], rng)
        original = images[number] / 255
        right = classifier.predict(original.reshape(1, -1))[0] == labels[number]
        try:
            digit = prepare(data)
        except PictureError:
            rows.append((right, False, False, True))
            continue
        read = classifier.predict(digit.image.reshape(1, -1))[0] == labels[number]
        rows.append((right, read, likeness(digit.image, original) > 0.55, digit.doubtful))
    return np.array(rows)


@needs_mnist
def test_hard_photos_are_read(test_digits):
    """Two of every kind: at most 3 of the 38 lost, where 0.98 of the originals' accuracy was measured on 1,140."""
    classifier = reader(10_000)
    found = np.concatenate([measured(kind, 2, 5, test_digits, classifier) for kind in photos.KINDS])
    assert found[:, 0].sum() - found[:, 1].sum() <= 3
    assert found[:, 2].sum() >= len(found) - 2


@pytest.mark.slow
@needs_mnist
def test_every_kind_of_photo_is_read_nearly_as_well_as_the_originals(test_digits):
    """The table in docs/experiments.md: 60 of every kind, seed 7."""
    classifier = reader(10_000)
    found = {kind: measured(kind, 60, 7, test_digits, classifier) for kind in photos.KINDS}
    for kind, rows in found.items():
        right, read, like, doubtful = rows.mean(axis=0)
        print(f"| {kind} | {len(rows)} | {right:.3f} | {read:.3f} | {read / right:.3f} |")
    right, read, like, doubtful = np.concatenate(list(found.values())).astype(bool).T
    good, lost = read & like, ~like
    print(f"all: {read.mean() / right.mean():.4f}; good {good.sum()}, warned {(good & doubtful).sum()}; ", end="")
    print(f"prepared wrongly {lost.sum()}, warned {(lost & doubtful).sum()}; ", end="")
    misread = right & ~read
    print(f"misread {misread.sum()}, warned {(misread & doubtful).sum()}")
    assert read.mean() >= 0.97 * right.mean()
    assert all(rows[:, 1].mean() >= 0.93 * rows[:, 0].mean() for rows in found.values())
    assert (good & doubtful).sum() <= 0.03 * good.sum()


def test_a_sheet_in_perspective_is_seen_from_above():
    """A sheet turned by up to 30°: its corners to 0.6 pixels of the thumbnail; a drawing on it keeps its place."""
    rng = np.random.default_rng(0)
    flat = np.full((600, 450, 3), 0.9)
    flat[250:350, 200:250] = 0.1
    for turn in (-30, -12, 0, 8, 29):
        spin = np.radians(turn)
        unit = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (160, 215) + rng.uniform(-15, 15, (4, 2))
        corners = unit @ np.array([(np.cos(spin), np.sin(spin)), (-np.sin(spin), np.cos(spin))]) + (320, 320)
        matrix = photos._homography(np.array([(0, 0), (450, 0), (450, 600), (0, 600)]), corners)
        paper, mask = photos._lay(flat, corners, np.linalg.inv(matrix), (640, 640))
        picture = (0.2 * (1 - mask) + paper * mask).astype(np.float32)
        found = sheet.find(picture)
        assert np.abs(found.corners - corners).max() < 0.6 * 640 / sheet.THUMBNAIL
        above, _ = found.flat(picture)
        rows, columns = np.nonzero(above.mean(axis=2) < 0.5)
        middle = np.array([rows.mean() / above.shape[0], columns.mean() / above.shape[1]])
        assert np.abs(middle - 0.5).max() < 0.02


def test_no_sheet_is_found_in_light_shadow_or_noise():
    y, x = np.mgrid[-1:1:480j, -1:1:640j]
    grain = np.random.default_rng(0).normal(0, 0.03, y.shape)
    for light in (
        0.8 + 0.15 * x,
        0.9 - 0.3 * (x * x + y * y) / 2,
        0.8 - 0.4 * (x + y > 0.3),
        0.8 - 0.4 * (x * x + y * y < 0.4),
    ):
        assert sheet.find((light + grain).astype(np.float32)) is None


@needs_mnist
def test_what_cannot_be_one_upright_digit_is_doubted(test_digits):
    """Two digits beside each other, apart or touching: 0.99 of them are told; one on its side where it is wide."""
    rng = np.random.default_rng(9)
    told = 0
    for _ in range(20):
        page, gap = np.full((400, 600), 235, np.uint8), int(rng.integers(150, 210))
        for number, left in zip(rng.integers(10_000, size=2), (60, 60 + gap), strict=True):
            ink = 200 * photos.strokes(test_digits[0][number], None)
            small = np.asarray(Image.fromarray(ink.astype(np.uint8)).resize((220, 220)))
            box = page[80:300, left : left + 220]
            box[:] = np.minimum(box, 235 - small)
        told += prepare(page).doubtful
    assert told >= 18
    bar = np.full((300, 400), 235, np.uint8)
    bar[140:165, 100:300] = 40
    assert "on its side" in prepare(bar).note


@pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases")
def test_the_pictures_that_were_read_wrongly():
    """What is found in each is ink with the digit's holes and no doubt, or a doubt is told."""
    for path in sorted(CASES.glob("*.jpg")):
        digit = prepare(path.read_bytes())
        if path.stem.startswith(("sideways", "two-digits")):
            assert digit.doubtful, path.name
        else:
            assert not digit.doubtful and digit.inverted, path.name
            _, count = scipy.ndimage.label(np.pad(digit.stages[-3].image < 0.5, 1, constant_values=True))
            holes = {"0": 1, "8": 2}.get(path.stem[-1], 0)  # a 4 and a 9 may be open
            assert count - 1 == holes, path.name


@needs_mnist
@pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases")
def test_the_classifier_reads_them():
    """All but the 9 whose original, MNIST's test image 3,985, it takes for a 4 too."""
    classifier = reader(10_000)
    for path in sorted(CASES.glob("*.jpg")):
        if not path.stem.startswith(("sideways", "two-digits", "blur-9")):
            assert classifier.predict(prepare(path.read_bytes()).image.reshape(1, -1))[0] == int(path.stem[-1]), (
                path.name
            )


def test_a_photo_is_read_in_its_own_light():
    """Half a page in hard shadow leaves the digit as it is: a seven on lit paper, on shaded, and across the edge."""
    page = np.full((480, 640), 0.9, np.float32)
    page[120:140, 200:320] = 0.15
    page[120:360, 300:320] = 0.15
    plain = prepare(page).image
    for edge in (100, 260, 330, 420):
        shaded = page.copy()
        shaded[:, edge:] *= 0.5
        assert np.abs(prepare(shaded).image - plain).mean() < 0.01
