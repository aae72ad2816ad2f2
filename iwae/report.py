"""What a view of one image under two models holds, as one ZIP: settings, numbers, pictures, figures, commands.

README.md, view.json          what this is, how to make it again, every setting, seed and version
image.csv                     the pixels that both models were given
figures.html                  the curves, to open in any browser without a network
A/, B/                        card.json; posterior.csv (draw, log-densities, weight); coordinates.csv (h of each draw);
                              curve.csv (L_k, nats); summary.json; reconstructions.png
"""

import io
import json
import math
import platform
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iwae import checkpoints, commands
from iwae.catalog import Entry
from iwae.figures import Line, bound_curves, png, tile
from iwae.posterior import Posterior, posterior, reconstruct

STAMP = (2020, 1, 1, 0, 0, 0)  # of every file inside: the same view gives the same bytes
CURVE_POINTS = 60
SIDE = 112  # pixels of a reconstruction


def build(pair: Sequence[tuple[str, Entry]], x: Tensor, view: Mapping[str, Any], *, samples: int, seed: int) -> bytes:
    """The ZIP for image x [pixels] of zeros and ones under each named model, with ``samples`` draws from ``seed``.

    ``view`` says where the image comes from and whatever else the page holds; it is kept as it is, in view.json.
    Raises CheckpointError for a model that cannot be read, ValueError for another shape of x.
    """
    files: dict[str, str | bytes] = {"image.csv": _csv(["pixel", "value"], enumerate(x.int().tolist()))}
    lines = []
    for name, entry in pair:
        model, card = checkpoints.load(entry.path)
        drawn = posterior(model, x, samples=samples, seed=seed)
        ks = np.unique(np.geomspace(1, samples, CURVE_POINTS).round().astype(int))
        curve = drawn.curve(ks)
        lines.append(Line(f"{name} · {entry.short}", entry.kind, ks, curve, dashed=name == "B"))
        pictures = reconstruct(model, drawn)
        row = [x, pictures.from_mean, pictures.average, pictures.weighted]
        files |= {
            f"{name}/card.json": _json(vars(card)),
            f"{name}/posterior.csv": _csv(["draw", "log_px", "log_w", "weight"], _draws(drawn)),
            f"{name}/coordinates.csv": _coordinates(drawn),
            f"{name}/curve.csv": _csv(["k", "L_k in nats"], zip(ks.tolist(), curve.tolist(), strict=True)),
            f"{name}/summary.json": _json(_summary(drawn)),
            f"{name}/reconstructions.png": png(np.hstack([tile(part.numpy(), SIDE) for part in row])),
        }
    files["figures.html"] = bound_curves(lines).to_html(include_plotlyjs=True)
    everything = dict(view) | {"samples": samples, "seed": seed, "models": {name: entry.key for name, entry in pair}}
    files["view.json"] = _json(everything | {"versions": _versions()})
    files["README.md"] = _readme(pair, samples, seed)
    return _zip(files)


def _draws(drawn: Posterior) -> list[tuple[Any, ...]]:
    columns = (drawn.log_px.tolist(), drawn.log_w.tolist(), drawn.weights.tolist())
    return list(zip(range(drawn.samples), *columns, strict=True))


def _coordinates(drawn: Posterior) -> str:
    names = [f"h{layer}_{unit}" for layer, h in enumerate(drawn.h, 1) for unit in range(h.shape[1])]
    return _csv(["draw", *names], ((i, *row) for i, row in enumerate(torch.cat(drawn.h, 1).tolist())))


def _summary(drawn: Posterior) -> dict[str, Any]:
    return {
        "log_p_nats": drawn.log_p,
        "log_p_se_nats": drawn.log_p_se,
        "elbo_nats": drawn.elbo,
        "effective_samples": drawn.ess,
        "draws_that_carry_90_percent": drawn.carrying(0.9),
        "posterior_mean": drawn.mean.tolist(),
        "posterior_std": drawn.std.tolist(),
    }


def _readme(pair: Sequence[tuple[str, Entry]], samples: int, seed: int) -> str:
    shell = "\n".join(commands.train(entry.config, f"{name}.safetensors") for name, entry in pair)
    return f"""# A view of the IWAE explorer

One image under two models, {samples:,} draws from q(h|x) each, seed {seed}. Everything is in nats per image.
`view.json` holds the settings; `A` and `B` hold each model's card, draws, importance weights, bounds and pictures
(reconstructions: input, from the mean of q, plain average of the draws, average by importance weight).

The models again (the same weights on the same machine, versions and threads):

```sh
{shell}
```

The numbers again:

```python
import json, numpy as np, torch
from iwae import checkpoints
from iwae.posterior import posterior

x = torch.from_numpy(np.loadtxt("image.csv", delimiter=",", skiprows=1)[:, 1]).float()
for name in "AB":
    model, card = checkpoints.load(f"{{name}}.safetensors")
    drawn = posterior(model, x, samples={samples}, seed={seed})
    print(name, drawn.log_p, json.load(open(f"{{name}}/summary.json"))["log_p_nats"])
```
"""


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in ("torch", "numpy")}


def _csv(names: Sequence[str], rows: Any) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in ([*names], *rows))


def _json(values: Any) -> str:
    return json.dumps(_plain(values), indent=2, ensure_ascii=False, default=str) + "\n"


def _plain(value: Any) -> Any:
    """Without NaN and infinities, which JSON has not."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _zip(files: Mapping[str, str | bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, STAMP)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])
    return packed.getvalue()
