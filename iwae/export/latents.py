"""Latents as a file for other programs, by its suffix; docs/latents.md describes each.

.parquet, .csv   a row an image, a column a number (``Latents.columns``)
.npz             an array for each measure and layer
.h5ad            an AnnData: μ of h₁ is X, σ its layer "std", measures are columns of obs
.tsv             for TensorFlow's embedding projector: μ alone, and beside it NAME.metadata.tsv, NAME.sprite.png, and
                 projector_config.pbtxt, which TensorBoard reads

All but .npz and .h5ad are written part by part.
"""

import csv
import io
import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import iwae
from iwae.analysis.encode import MAPS, Latents, join
from iwae.system import files, optional

CONFIG = "projector_config.pbtxt"
LARGEST_SPRITE = 8192  # pixels of a side, the projector's limit
MEANINGS = {
    "index": "row of the image in its split, from 0",
    "label, class": "label of the image, and its name, where the data set has them",
    "log_p": "log p̂(x) = L_k of `samples` draws, nats",
    "ess": "effective sample size of these draws, (Σw)²/Σw²",
    "k_hat": "Pareto k̂ of their weights; up to 0.5 log_p has an error that holds",
    "map_x, map_y": "place on the map",
    "h1_mean_0, h1_std_0": "mean and standard deviation of unit 0 of layer 1 under q(h|x); above layer 1 of a mixture",
    "draw0_log_w, draw0_h1_0": "a draw h from q(h|x): its log-weight log p(x, h) − log q(h|x) in nats, and its units",
}

About = Mapping[str, Any]
Open = Callable[[Path], Path]  # the path of a file → where to write it; it appears when all are complete


def about(
    model: str, fingerprint: str, architecture: str, dataset: str, split: str, *, samples: int, seed: int,
    draws: int = 0, on_map: str = "",
) -> dict[str, Any]:  # fmt: skip
    """What the latents in a file are of, to be kept with them; ``fingerprint`` of the model's weights."""
    found = {
        "model": model, "weights_sha256": fingerprint, "architecture": architecture,
        "dataset": dataset, "split": split, "samples": samples, "seed": seed, "draws": draws, "map": on_map,
        "units": "nats per image", "columns": MEANINGS, "written_by": f"iwae {iwae.__version__}",
    }  # fmt: skip
    return {name: value for name, value in found.items() if value != ""}


def check(path: Path) -> None:
    """To be called before hours of work. Raises ValueError for a suffix that is unknown, or whose files would replace
    others than their own, MissingError where its package is not installed, and TargetError where it cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise ValueError(f"{path} ends in none of {', '.join(WRITERS)}")
    for package, extra in PACKAGES.get(suffix, ()):
        optional.require(f"a {suffix} file", package, extra=extra)
    for target in (path, *_beside(path)):
        files.check_target(target)
    config = path.with_name(CONFIG)
    if (
        suffix == ".tsv"
        and config.is_file()
        and _quoted(path.name) not in config.read_text(encoding="utf-8", errors="replace")
    ):
        raise ValueError(f"{config} belongs to other vectors than {path.name}: choose another folder")


def is_whole(path: Path) -> bool:
    """Whether ``write`` needs all parts at once for this file."""
    return path.suffix.lower() in (".npz", ".h5ad")


def has_sprite(path: Path, images: int, shape: tuple[int, ...]) -> bool:
    """Whether ``write`` makes a sheet of so many pictures of this shape for this file: for .tsv, where the projector
    takes one so large."""
    return path.suffix.lower() == ".tsv" and (math.isqrt(images - 1) + 1) * max(shape) <= LARGEST_SPRITE


def write(path: Path, parts: Iterable[Latents], described: About, pictures: np.ndarray | None = None) -> list[Path]:
    """Write the file, and those beside it, whole or not at all.

    Args:
        path: .parquet, .npz, .csv, .tsv or .h5ad.
        parts: consecutive parts, one at least.
        described: ``about``.
        pictures: uint8 [n, h, w] of all images, where the file ``has_sprite``.

    Returns the files. Raises as ``check``.
    """
    check(path)
    written = []
    with ExitStack() as stack:

        def opened(target: Path) -> Path:
            written.append(target)
            return stack.enter_context(files.atomic_write(target))

        WRITERS[path.suffix.lower()](path, opened, iter(parts), described, pictures)
    return written


def package(suffix: str, name: str, latents: Latents, described: About, pictures: np.ndarray) -> tuple[str, bytes]:
    """(file name, content) of latents to download: a ZIP where there are several files. Raises as ``check``."""
    with tempfile.TemporaryDirectory() as folder:
        written = write(Path(folder) / f"{name}{suffix}", [latents], described, pictures)
        if len(written) == 1:
            return written[0].name, written[0].read_bytes()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(written):
                archive.write(path, path.name)
        return f"{name}{suffix}.zip", packed.getvalue()


def _parquet(path: Path, opened: Open, parts: Iterator[Latents], described: About, _: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def table(part: Latents) -> Any:
        return pa.table(part.columns()).replace_schema_metadata({"iwae": _json(described)})

    first = table(next(parts))
    with pq.ParquetWriter(opened(path), first.schema) as writer:
        for each in chain([first], map(table, parts)):
            writer.write_table(each)


def _csv(path: Path, opened: Open, parts: Iterator[Latents], described: About, _: Any) -> None:
    with opened(path).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        for number, part in enumerate(parts):
            columns = part.columns()
            if not number:
                writer.writerow(columns)
            writer.writerows(_rows(columns.values()))
    opened(_about_file(path)).write_text(_json(described), encoding="utf-8")


def _npz(path: Path, opened: Open, parts: Iterator[Latents], described: About, _: Any) -> None:
    whole = join(parts)
    arrays = {name: getattr(whole, name) for name in ("index", "log_p", "ess", "k_hat")}
    if whole.labels is not None:
        arrays |= {"label": whole.labels, "label_names": np.array(whole.label_names, dtype=str)}
    if whole.places is not None:
        arrays["map"] = whole.places
    for layer, (mean, std, h) in enumerate(zip(whole.mean, whole.std, whole.draws, strict=True), 1):
        arrays |= {f"h{layer}_mean": mean, f"h{layer}_std": std} | ({f"h{layer}_draws": h} if h.size else {})
    arrays |= {"draws_log_w": whole.log_w} if whole.log_w.size else {}
    with opened(path).open("wb") as stream:
        np.savez(stream, **arrays, about=np.array(_json(described)))


def _h5ad(path: Path, opened: Open, parts: Iterator[Latents], described: About, _: Any) -> None:
    import anndata  # pyright: ignore[reportMissingImports]
    import pandas as pd

    whole = join(parts)
    measures: dict[str, Any] = dict(_measures(whole))
    if "class" in measures:
        measures["class"] = pd.Categorical.from_codes(whole.labels, list(whole.label_names))
    obs = pd.DataFrame(measures, index=whole.index.astype(str))
    units = pd.DataFrame(index=[f"h1_{unit}" for unit in range(whole.mean[0].shape[1])])
    more = {}
    for layer, (mean, std, h) in enumerate(zip(whole.mean, whole.std, whole.draws, strict=True), 1):
        more |= {f"h{layer}_mean": mean, f"h{layer}_std": std} if layer > 1 else {}
        more |= {f"h{layer}_draws": h} if h.size else {}
    more |= {"draws_log_w": whole.log_w} if whole.log_w.size else {}
    if whole.places is not None:
        on_map = described.get("map")
        more[f"X_{on_map}" if on_map in MAPS else "X_map"] = whole.places  # as scanpy calls it
    made = anndata.AnnData(
        whole.mean[0], obs, units, uns={"iwae": dict(described)}, obsm=more, layers={"std": whole.std[0]}
    )
    made.write_h5ad(opened(path))


def _tsv(path: Path, opened: Open, parts: Iterator[Latents], described: About, pictures: np.ndarray | None) -> None:
    metadata, sprite, count = path.with_suffix(".metadata.tsv"), path.with_suffix(".sprite.png"), 0
    first = next(parts)
    tensors = [path, *(path.with_suffix(f".h{layer}.tsv") for layer in range(2, len(first.mean) + 1))]
    with ExitStack() as stack:
        lines, *vectors = (
            stack.enter_context(opened(target).open("w", encoding="utf-8", newline="\n"))
            for target in (metadata, *tensors)
        )
        for part in chain([first], parts):
            for stream, mean in zip(vectors, part.mean, strict=True):
                stream.writelines("\t".join(row) + "\n" for row in mean.astype(str))
            measures = _measures(part)
            if not count:
                lines.write("\t".join(measures) + "\n")
            lines.writelines("\t".join(map(_cell, row)) + "\n" for row in _rows(measures.values()))
            count += len(part)
    picture = ""
    if pictures is not None and has_sprite(path, count, pictures.shape[1:]):
        _sprite(pictures).save(opened(sprite), "PNG")
        _, height, width = pictures.shape
        sizes = f"single_image_dim: {width} single_image_dim: {height}"
        picture = f"  sprite {{ image_path: {_quoted(sprite.name)} {sizes} }}\n"
    config = ""
    for layer, tensor in enumerate(tensors, 1):
        config += f"embeddings {{\n  tensor_name: {_quoted(f'mean of h{layer}')}\n"
        config += f"  tensor_path: {_quoted(tensor.name)}\n  metadata_path: {_quoted(metadata.name)}\n{picture}}}\n"
    opened(path.with_name(CONFIG)).write_text(config, encoding="utf-8")
    opened(_about_file(path)).write_text(_json(described), encoding="utf-8")


def _sprite(pictures: np.ndarray) -> Image.Image:
    """A square sheet of as many rows as columns, row by row, as the projector wants it."""
    count, height, width = pictures.shape
    columns = math.isqrt(count - 1) + 1
    sheet = np.zeros((columns**2, height, width), np.uint8)
    sheet[:count] = pictures
    rows = sheet.reshape(columns, columns, height, width).swapaxes(1, 2)
    return Image.fromarray(rows.reshape(columns * height, columns * width))


def _measures(part: Latents) -> dict[str, np.ndarray]:
    """The columns that are no units."""
    names = ("index", "label", "class", "log_p", "ess", "k_hat", "map_x", "map_y")
    columns = part.columns()
    return {name: columns[name] for name in names if name in columns}


def _beside(path: Path) -> list[Path]:
    """Files that are written with this one, but for the means of higher layers."""
    if path.suffix.lower() == ".csv":
        return [_about_file(path)]
    if path.suffix.lower() == ".tsv":
        names = (path.with_suffix(f".{end}") for end in ("metadata.tsv", "sprite.png"))
        return [path.with_name(CONFIG), _about_file(path), *names]
    return []


def _about_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _rows(columns: Iterable[np.ndarray]) -> Iterator[tuple[str, ...]]:
    """Row by row, each number with the digits that tell it from all others of its type."""
    return zip(*(column.astype(str).tolist() for column in columns), strict=True)


def _cell(text: str) -> str:
    return " ".join(text.split())  # a name may hold a tab


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _json(described: About) -> str:
    return json.dumps(dict(described), indent=2, ensure_ascii=False) + "\n"


WRITERS = {".parquet": _parquet, ".npz": _npz, ".csv": _csv, ".tsv": _tsv, ".h5ad": _h5ad}
PACKAGES = {".parquet": [("pyarrow", "app")], ".h5ad": [("anndata", "extra"), ("pandas", "app")]}
