"""The content of a page as a ZIP: settings, figures, the numbers behind them, and the commands that reproduce them.

README.md, view.json          what this is, how to reproduce it, every setting, seed and version
report.html                   all of it for people: one page with the figures, for any browser, without a network
NAME.csv, NAME.png            the numbers behind each figure and table of the page, and its large pictures
A/card.json, B/card.json      the models
image.csv                     where the page is about one image: the pixels that both models were given, and beside
                              each card: posterior.csv (draw, log-densities, weight); coordinates.csv (h of each draw);
                              curve.csv (L_k, nats); summary.json; reconstructions.png
"""

import io
import json
import math
import platform
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from iwae.catalog import AdapterEntry, Entry
from iwae.evaluation import stats
from iwae.export import web_page
from iwae.figures.base import Line, bound_curves, png, tile
from iwae.inference import pareto
from iwae.inference.posterior import Posterior, posterior, reconstruct
from iwae.training import commands

STAMP = (2020, 1, 1, 0, 0, 0)  # of every file inside, so that the same view gives the same bytes
CURVE_POINTS = 60
SIDE = 112  # pixels of a reconstruction
SAMPLES = 12  # pictures of draws
CURVE = "curve"  # the name of the figure of L_k against k, on pages that have it


class PageItem(NamedTuple):
    """A figure, a table or a picture of a page."""

    caption: str  # what it shows
    figure: go.Figure | None = None
    csv: Callable[[], str] | None = None  # its numbers
    picture: Callable[[], bytes] | None = None  # as a PNG file


class SampledImage(NamedTuple):
    """The image that a page is about, and the number and seed of its posterior samples."""

    x: Tensor  # [pixels]
    samples: int
    seed: int


class SampledModel(NamedTuple):
    """What a model says of the image."""

    name: str  # "A" or "B"
    entry: Entry
    drawn: Posterior
    ks: np.ndarray  # numbers of draws, and L_k of each
    curve: np.ndarray
    row: list[Tensor]  # the input, and reconstructions from the mean of q, by a plain and by a weighted average
    samples: Tensor  # [SAMPLES, pixels], the heaviest draws decoded


def build(
    pair: Sequence[tuple[str, Entry]],
    view: Mapping[str, Any],
    shown: Mapping[str, PageItem],
    draws: SampledImage | None = None,
) -> bytes:
    """The ZIP of a page under each named model, with what is ``shown`` on it by name.

    ``view``: the page, its address and settings, stored in view.json.
    Raises CheckpointError for a model that cannot be read, ValueError for an image of another shape.
    """
    sampled = _sampled(pair, draws)
    files: dict[str, str | bytes] = {f"{name}.csv": one.csv() for name, one in shown.items() if one.csv}
    files |= {f"{name}.png": one.picture() for name, one in shown.items() if one.picture}
    everything = dict(view) | {"models": {name: entry.key for name, entry in pair}, "versions": _versions()}
    for name, entry in pair:
        files[f"{name}/card.json"] = _json(vars(entry.card))
    if draws:
        files |= _of_one_image(draws.x, sampled)
        everything |= {"samples": draws.samples, "seed": draws.seed}
    files["report.html"] = _page(pair, view, shown, draws, sampled)
    files["view.json"] = _json(everything)
    files["README.md"] = _readme(pair, draws)
    return _zip(files)


def build_page(
    pair: Sequence[tuple[str, Entry]],
    view: Mapping[str, Any],
    shown: Mapping[str, PageItem],
    draws: SampledImage | None = None,
) -> bytes:
    """The same for people, as one HTML file below 3 MB: the link, the digit, what each model makes of it, the pictures
    and figures of the page, and the settings. Arguments and errors are those of ``build``."""
    return _page(pair, view, shown, draws, _sampled(pair, draws))


def _sampled(pair: Sequence[tuple[str, Entry]], draws: SampledImage | None) -> list[SampledModel]:
    found: list[SampledModel] = []
    if draws is None:
        return found
    for name, entry in pair:
        model = entry.load()
        drawn = posterior(model, draws.x, samples=draws.samples, seed=draws.seed)
        ks = np.unique(np.geomspace(1, draws.samples, CURVE_POINTS).round().astype(int))
        pictures = reconstruct(model, drawn)
        row = [draws.x, pictures.from_mean, pictures.average, pictures.weighted]
        heaviest = drawn.weights.argsort(descending=True)[:SAMPLES]
        with torch.no_grad():
            samples = model.decode(drawn.h[0][heaviest])
        found.append(SampledModel(name, entry, drawn, ks, drawn.curve(ks), row, samples))
    return found


def _of_one_image(x: Tensor, sampled: Sequence[SampledModel]) -> dict[str, str | bytes]:
    """Files of the draws for one image."""
    shape = sampled[0].entry.card.model.shape
    pixels = (f"{value:.9g}" for value in x.tolist())
    files: dict[str, str | bytes] = {"image.csv": _csv(["pixel", "value"], enumerate(pixels))}
    for name, _, drawn, ks, curve, row, _ in sampled:
        files |= {
            f"{name}/posterior.csv": _csv(["draw", "log_px", "log_w", "weight"], _weight_rows(drawn)),
            f"{name}/coordinates.csv": _coordinates(drawn),
            f"{name}/curve.csv": _csv(["k", "L_k in nats"], zip(ks.tolist(), curve.tolist(), strict=True)),
            f"{name}/summary.json": _json(_summary(drawn)),
            f"{name}/reconstructions.png": png(_tiles(row, shape, SIDE)),
        }
    return files


def _page(
    pair: Sequence[tuple[str, Entry]],
    view: Mapping[str, Any],
    shown: Mapping[str, PageItem],
    draws: SampledImage | None,
    sampled: Sequence[SampledModel],
) -> bytes:
    """The HTML file."""
    link = web_page.text(view.get("link", ""))
    parts = []
    if link:
        parts.append(f'<p>This view again, where the explorer runs with these models: <a href="{link}">{link}</a></p>')
    parts.append(web_page.table(_rows_of_models(sampled, pair), ["", *(name for name, _ in pair)]))
    if draws:
        parts.append("<h2>One digit under both models</h2>")
        parts.append(
            web_page.picture(
                png(_tiles([draws.x], pair[0][1].card.model.shape, SIDE)), "The digit, as the models see it.", SIDE
            )
        )
    for one in sampled:
        shape = one.entry.card.model.shape
        title = f"{one.name} · {one.entry.short}"
        parts += [
            f"<h2>{web_page.text(title)}</h2>",
            web_page.picture(
                png(_tiles(one.row[1:], shape, SIDE)),
                f"Reconstructions by {title}: from the mean of q, the plain average of all draws, and their average by "
                "importance weight.",
            ),
            web_page.picture(
                png(_tiles(one.samples, shape, SIDE // 2)),
                f"The {len(one.samples)} heaviest of {one.drawn.samples:,} samples from q(h|x) of {title}, decoded.",
            ),
        ]
    pictures = [web_page.picture(one.picture(), one.caption) for one in shown.values() if one.picture]
    figures = {name: (one.figure, one.caption) for name, one in shown.items() if one.figure is not None}
    if sampled and CURVE not in figures:
        lines = [
            Line(f"{one.name} · {one.entry.short}", one.entry.kind, one.ks, one.curve, dashed=one.name == "B")
            for one in sampled
        ]
        figures[CURVE] = bound_curves(lines), "L_k of this digit in nats against k. Dotted: log p̂(x)."
    settings = {name: value for name, value in view.items() if name != "link"} | _versions()
    if draws:
        settings |= {"samples": draws.samples, "seed": draws.seed}
    parts.append(f"<details><summary>Settings</summary>{web_page.table(list(settings.items()))}</details>")
    if pictures or figures:
        parts += ["<h2>What the page shows</h2>", *pictures]
    models = " and ".join(f"{name}: {entry.short}" for name, entry in pair)
    return web_page.page(f"{view.get('title', 'A view of the IWAE explorer')} · {models}", parts, figures)


def _tiles(images: Iterable[Tensor], shape: tuple[int, int], side: int) -> np.ndarray:
    """Images [pixels] beside each other."""
    return np.hstack([tile(image.view(shape).numpy(), side) for image in images])


def _rows_of_models(sampled: Sequence[SampledModel], pair: Sequence[tuple[str, Entry]]) -> list[list[str]]:
    """What is known of both models, a measure a row."""
    entries = [entry for _, entry in pair]
    rows = [
        ["model", *(entry.short for entry in entries)],
        ["trained on", *(entry.dataset or "not known" for entry in entries)],
        ["architecture", *(entry.layers for entry in entries)],
        ["epochs", *(f"{entry.epochs:.4g}" if entry.epochs else "not known" for entry in entries)],
        ["test set", *(entry.nll for entry in entries)],
    ]
    if sampled:
        found = [one.drawn for one in sampled]
        rows += [
            ["log p̂(x) of this digit, nats", *map(_log_p, found)],
            ["ELBO of this digit, nats", *(stats.decimal(drawn.elbo) for drawn in found)],
            ["effective samples", *(f"{drawn.ess:,.1f} of {drawn.samples:,}" for drawn in found)],
        ]
    return rows


def _log_p(drawn: Posterior) -> str:
    """With its standard error, or as the lower bound that it is where that does not hold."""
    if drawn.log_p_se is None:
        return f"at least {stats.decimal(drawn.log_p)}"
    return stats.plus_minus(drawn.log_p, drawn.log_p_se)


def _weight_rows(drawn: Posterior) -> list[tuple[Any, ...]]:
    columns = (drawn.log_px.tolist(), drawn.log_w.tolist(), drawn.weights.tolist())
    return list(zip(range(drawn.samples), *columns, strict=True))


def _coordinates(drawn: Posterior) -> str:
    names = [f"h{layer}_{unit}" for layer, h in enumerate(drawn.h, 1) for unit in range(h.shape[1])]
    return _csv(["draw", *names], ((i, *row.tolist()) for i, row in enumerate(torch.cat(drawn.h, 1))))


def _summary(drawn: Posterior) -> dict[str, Any]:
    return {
        "log_p_nats": drawn.log_p,
        "log_p_se_nats": drawn.log_p_se,  # null: a lower bound, whose weights may have no variance
        "pareto_k": drawn.k_hat if drawn.samples >= pareto.FEWEST_SAMPLES else None,
        "elbo_nats": drawn.elbo,
        "effective_samples": drawn.ess,
        "draws_that_carry_90_percent": drawn.carrying(0.9),
        "posterior_mean": drawn.mean.tolist(),
        "posterior_std": drawn.std.tolist(),
    }


def _readme(pair: Sequence[tuple[str, Entry]], draws: SampledImage | None) -> str:
    shell = "\n".join(
        f"# {name}: {entry.short}, a model that IWAE_ADAPTERS names" if isinstance(entry, AdapterEntry)
        else commands.train(entry.config, f"{name}.safetensors")
        for name, entry in pair
    )  # fmt: skip
    text = f"""# A view of the IWAE explorer

What one page showed of two models: its content in `report.html`, the numbers behind each in a file of its own, the
settings in `view.json`, each model's card in `A` and `B`. Everything is in nats per image unless a column says
otherwise. The page itself again: `streamlit run app.py`, then the address in `view.json`, with these models.

The models again (the same weights on the same machine, versions and threads):

```sh
{shell}
```
"""
    if draws is None:
        return text
    return text + _readme_of_one_image(draws, "".join(name for name, one in pair if not isinstance(one, AdapterEntry)))


def _readme_of_one_image(draws: SampledImage, names: str) -> str:
    """``names`` of the models that a command above trains."""
    return f"""
The page is about one image, `image.csv`: {draws.samples:,} draws from q(h|x) under each model, seed {draws.seed}. `A`
and `B` hold the draws, importance weights, bounds and pictures (reconstructions: input, from the mean of q, plain
average of the draws, average by importance weight). These numbers again:

```python
import json, numpy as np, torch
from iwae import checkpoints
from iwae.inference.posterior import posterior

x = torch.from_numpy(np.loadtxt("image.csv", delimiter=",", skiprows=1)[:, 1]).float()
for name in "{names}":
    model, card = checkpoints.load(f"{{name}}.safetensors")
    drawn = posterior(model, x, samples={draws.samples}, seed={draws.seed})
    print(name, drawn.log_p, json.load(open(f"{{name}}/summary.json"))["log_p_nats"])
```
"""


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in ("torch", "numpy")}


def _csv(names: Sequence[str], rows: Any) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in ([*names], *rows))


def _json(values: Any) -> str:
    return json.dumps(_without_nan(values), indent=2, ensure_ascii=False, default=str) + "\n"


def _without_nan(value: Any) -> Any:
    """Replace NaN and infinities, which JSON lacks, by None."""
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _zip(files: Mapping[str, str | bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, STAMP)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])
    return packed.getvalue()
