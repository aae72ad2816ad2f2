"""The published files, decoded: bytes → arrays. Nothing here touches the disk or the network.

Every decoder raises ValueError where the bytes are not what it reads. Grey levels are uint8, 0 = paper, 255 = ink.
"""

import bz2
import gzip
import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]

SIDE = 28
PIXELS = SIDE * SIDE
SCAN = 105  # px of a side of Lake's OMNIGLOT scans
MAX_PNG = 2**16  # bytes of one of them; they have a few hundred


def idx(content: bytes) -> Bytes:
    """LeCun's IDX: 0, 0, 8 (unsigned bytes), the number of axes, their lengths as big-endian int32, the values."""
    if content[:3] != b"\0\0\x08" or len(content) < 4:
        raise ValueError("not an IDX file of unsigned bytes")
    axes = content[3]
    shape = np.frombuffer(content, ">i4", count=axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def amat(content: bytes) -> Bytes:
    """Larochelle's text, `0 1 … 0\\n` with 784 digits a line → [n, 784 / 8], eight pixels a byte (np.packbits)."""
    text = np.frombuffer(content, np.uint8).reshape(-1, 2 * PIXELS)  # digits at even places, blanks at odd ones
    digits = text[:, ::2] - ord("0")
    if digits.size and digits.max() > 1:
        raise ValueError("not a text of zeros and ones")
    return np.packbits(digits, axis=1)


def pixels_and_label(content: bytes) -> Bytes:
    """Text with an image a line: 784 grey levels and the label, separated by commas → [n, 785]."""
    rows = np.loadtxt(io.BytesIO(content), np.uint8, delimiter=",", ndmin=2)
    if rows.shape[1] != PIXELS + 1:
        raise ValueError(f"lines of {rows.shape[1]} numbers, not of {PIXELS + 1}")
    return rows


@dataclass(frozen=True, eq=False)
class Scans:
    """One of Lake's archives, members in sorted order: `rows` uint8 [n, 105, 14] holds 8 pixels a byte, ink = 0."""

    members: tuple[str, ...]
    rows: Bytes

    @property
    def alphabets(self) -> list[str]:
        """The alphabet of every image: `images_background/Japanese_(katakana)/…` → "Japanese (katakana)"."""
        return [PurePosixPath(member).parts[1].replace("_", " ") for member in self.members]

    def canonical(self) -> bytes:
        """The same bytes for the same images under the same names, however the PNGs are encoded."""
        return "\n".join(self.members).encode() + self.rows.tobytes()

    def grey(self) -> Bytes:
        """[n, 784]: each grey level is the share of its cell (3.75 × 3.75 px of the scan) that ink covers."""
        edges = np.arange(SIDE + 1) * (SCAN / SIDE)
        pixel = np.arange(SCAN)
        overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
        weight = (overlap.clip(0) * (SIDE / SCAN)).astype(np.float32)  # [28, 105], each row sums to 1
        grey = np.empty((len(self.rows), PIXELS), np.uint8)
        for start in range(0, len(grey), 512):  # 512 scans are 23 MB as float32
            rows = self.rows[start : start + 512]
            ink = 1 - np.unpackbits(rows, axis=-1, count=SCAN).astype(np.float32)  # [batch, 105, 105]
            cells = weight @ (ink @ weight.T)
            grey[start : start + 512] = np.rint(255 * cells).reshape(-1, PIXELS)
        return grey


def scans(content: bytes) -> Scans:
    """Lake's OMNIGLOT archives: 105×105 black-and-white PNGs at `…/ALPHABET/characterNN/NNNN_NN.png`."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = sorted(
                name for name in archive.namelist() if name.endswith(".png") and not name.startswith("__MACOSX")
            )
            rows = [_scan(archive.open(member).read(MAX_PNG)) for member in members]
    except Exception as error:  # decoders raise nearly every type on damaged bytes
        raise ValueError(f"not a sound archive of PNGs ({error})") from error
    return Scans(tuple(members), np.stack(rows).reshape(len(rows), SCAN, -1))


def _scan(png: bytes) -> Bytes:
    image = Image.open(io.BytesIO(png), formats=["PNG"])
    if image.size != (SCAN, SCAN):
        raise ValueError(f"a scan of {image.size[0]}×{image.size[1]} px instead of {SCAN}×{SCAN}")
    return np.frombuffer(image.convert("1").tobytes(), np.uint8)


def emnist(content: bytes) -> dict[str, Bytes]:
    """The IDX files of EMNIST's archive that are used here, by name: ``letters-train-images`` … Images lie on their
    side in them, [n, columns, rows], and come out upright, [n, 784]."""
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for split in ("letters", "balanced"):
                for part in ("train", "test"):
                    for kind, end in (("images", "idx3"), ("labels", "idx1")):
                        packed = archive.read(f"gzip/emnist-{split}-{part}-{kind}-{end}-ubyte.gz")
                        values = idx(gzip.decompress(packed))
                        if kind == "images":
                            values = values.transpose(0, 2, 1).reshape(-1, PIXELS)
                        found[f"{split}-{part}-{kind}"] = values
    except (KeyError, zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"not EMNIST's archive ({error})") from error
    return found


def usps(content: bytes) -> Bytes:
    """USPS as LIBSVM keeps it, bz2: lines ``label 1:value … 256:value``, labels 1 to 10, values from −1 to 1, of which
    zeros may be left out → [n, 257], 256 grey levels and the digit."""
    try:
        lines = bz2.decompress(content).decode("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"not a bz2 text ({error})") from error
    rows = np.full((len(lines), 257), 128, np.uint8)
    for row, line in zip(rows, lines, strict=True):
        label, *pairs = line.split()
        places, values = zip(*(pair.split(":") for pair in pairs), strict=True)
        row[np.array(places, np.int64) - 1] = np.rint((np.array(values, np.float64) + 1) * 127.5)
        row[256] = int(label) - 1
    return rows


def chardata(content: bytes) -> dict[str, NDArray]:
    """Burda's OMNIGLOT: `data`, `testdata` → uint8 [n, 784] upright; `target`, `testtarget` → int64 [n], if there.

    The file holds probabilities, one image a column, each stored column by column; targets are one-hot columns.
    """
    from scipy.io import loadmat  # slow to import, and only this format needs it

    raw = loadmat(io.BytesIO(content))
    decoded = {}
    for part in ("", "test"):
        if f"{part}data" not in raw:
            raise ValueError(f"no {part}data in the MATLAB file")
        images = raw[f"{part}data"].T.reshape(-1, SIDE, SIDE).transpose(0, 2, 1)
        decoded[f"{part}data"] = np.rint(255 * images).astype(np.uint8).reshape(-1, PIXELS)
        if f"{part}target" in raw:
            decoded[f"{part}target"] = raw[f"{part}target"].argmax(axis=0).astype(np.int64)
    return decoded


def digits() -> tuple[Bytes, NDArray[np.int64]]:
    """scikit-learn's 1,797 digits made as MNIST was: 8×8 → 20×20, then moved until their mass centres at (14, 14)."""
    from sklearn.datasets import load_digits

    source: Any = load_digits()
    small = np.rint(source.images * (255 / 16)).astype(np.uint8)
    large = [Image.fromarray(digit).resize((20, 20), Image.Resampling.BICUBIC) for digit in small]
    images = np.zeros((len(large), SIDE, SIDE), np.uint8)
    for image, digit in zip(images, map(np.asarray, large), strict=True):
        top, left = (_margin(digit.sum(axis)) for axis in (1, 0))
        image[top : top + 20, left : left + 20] = digit
    return images.reshape(-1, PIXELS), source.target.astype(np.int64)


def _margin(mass: NDArray) -> int:
    """Empty pixels before a profile of 20 so that its centre of mass comes nearest to pixel 14 of 28."""
    centre = mass @ np.arange(mass.size) / mass.sum()
    return int(np.clip(np.rint(SIDE / 2 - centre), 0, SIDE - mass.size))
