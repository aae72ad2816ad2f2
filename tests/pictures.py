"""Pictures as people upload them."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from iwae.data import datasets


def picture(number: int) -> bytes:
    """A scan of one of the digits of mnist-5k: dark on light, 400 × 400 pixels, PNG."""
    images = datasets.load("mnist-5k").test.images
    grey = images[number % len(images)].reshape(28, 28).numpy()
    scan = ImageOps.invert(Image.fromarray(grey)).resize((400, 400), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    scan.save(file, "PNG")
    return file.getvalue()


def save_shapes(folder: Path, each: int = 100, side: int = 16) -> None:
    """PNGs of bright discs and squares on black, in a folder for each of the two classes."""
    random = np.random.RandomState(0)
    rows, columns = np.mgrid[:side, :side]
    for name in ("discs", "squares"):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            (top, left), radius = random.randint(6, 10, 2), random.randint(3, 6)
            down, right = abs(rows - top), abs(columns - left)
            away = np.hypot(down, right) if name == "discs" else np.maximum(down, right)
            Image.fromarray(np.where(away <= radius, 255, 0).astype(np.uint8)).save(folder / name / f"{number:03}.png")


def zipped(pictures: Path | dict[str, bytes]) -> bytes:
    """A ZIP of files by their names, or of a folder's."""
    if isinstance(pictures, Path):
        found = sorted(path for path in pictures.rglob("*") if path.is_file())
        pictures = {path.relative_to(pictures).as_posix(): path.read_bytes() for path in found}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in pictures.items():
            archive.writestr(name, content)
    return file.getvalue()
