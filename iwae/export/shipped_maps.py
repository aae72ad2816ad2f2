"""UMAP maps of the models that ship, in a file beside them: a visitor need not wait for them.

``python -m iwae.export.shipped_maps`` recomputes them, in about a minute, and writes ``checkpoints/umap.npz``. A map
has the name that the explorer looks for, a hash of weights, images and settings, so one that is out of date is never
shown. Places are rounded to float16: by less than 0.01 of a map 20 wide.
"""

import io

import numpy as np

from iwae import catalog, checkpoints
from iwae.analysis import latent, umap_maps
from iwae.analysis.umap_maps import SHIPPED, UmapSettings
from iwae.data import datasets
from iwae.system import files

IMAGES = 2_000  # at most, as many as the page first shows
PAIRS = (  # (A, B, data set)
    *((a, b, "mnist-5k") for title, (a, b) in catalog.FAVOURITES.items() if title != "2-D"),  # which need no map
    ("mnist-5k-1layer-vae-k1", "mnist-5k-1layer-iwae-k50", "mnist-5k"),
    ("mnist-2layer-vae-k1", "mnist-2layer-iwae-k50", "mnist-5k"),
    ("mnist-fixed-1layer-vae-k1", "mnist-fixed-1layer-iwae-k50", "mnist-5k"),
    (*catalog.DEFAULT_PAIR, "mnist"),
)


def pair_of_maps(a: str, b: str, dataset: str) -> tuple[umap_maps.Map, umap_maps.Map]:
    """The maps of a pair of models that ship, by their keys in the catalogue."""
    paths = [catalog.SHIPPED / f"{key}{checkpoints.SUFFIX}" for key in (a, b)]
    count = min(IMAGES, len(datasets.load(dataset, only_test=True).test))
    models = [(umap_maps.fingerprint(path), str(checkpoints.read_card(path).model)) for path in paths]
    return umap_maps.pair_of_maps(UmapSettings(), models, dataset, count)


def compute(a: str, b: str, dataset: str) -> dict[str, np.ndarray]:
    """Both maps of a pair [n, 2] by their names."""
    x = datasets.load(dataset, only_test=True).binary("test")
    chosen = latent.subset(len(x), IMAGES)
    means = [
        latent.encode(checkpoints.load(catalog.SHIPPED / f"{key}{checkpoints.SUFFIX}")[0], x).mean for key in (a, b)
    ]
    found, start = {}, latent.pca(means[0][chosen]).project(means[0][chosen])
    for one, mean in zip(pair_of_maps(a, b, dataset), means, strict=True):
        start = umap_maps.umap(mean[chosen], start, UmapSettings(), lambda message, share: None)
        found[one.folder.name] = start
    return found


def main() -> None:
    """Compute all of them and replace the file."""
    found = {}
    for a, b, dataset in PAIRS:
        print(f"{a} and {b} on {dataset} …", flush=True)
        found |= compute(a, b, dataset)
    content = io.BytesIO()
    np.savez_compressed(content, **{name: places.astype(np.float16) for name, places in found.items()})
    files.write(SHIPPED, content.getvalue())
    print(f"{len(found)} maps, {len(content.getvalue()) / 1e3:.0f} kB: {SHIPPED}")


if __name__ == "__main__":
    main()
