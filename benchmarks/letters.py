"""How well surprise tells what is no digit from digits: python -m benchmarks.letters FONT.ttf FONT.ttf …

The score of an image is its −L_S under a model. Compared with test images of MNIST are capital letters and, as a
control, digits in the same fonts, both read as an upload is, and characters of OMNIGLOT's test images, as they are and
read as a drawing is. The AUC is the probability that one of them surprises the model more than a digit of MNIST. Its
standard error is that of a bootstrap that draws MNIST's digits one by one and the others by whole clusters: all images
of a letter, digit or alphabet.
"""

import sys
from pathlib import Path
from string import ascii_uppercase, digits

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.report import table
from iwae import checkpoints
from iwae.catalog import SHIPPED
from iwae.data import datasets
from iwae.evaluation import metrics, surprise
from iwae.images.digits import Digit, from_canvas, prepare
from iwae.results import comparison

MODELS = ("mnist-1layer-vae-k1", "mnist-1layer-iwae-k50", "mnist-5k-1layer-vae-k1", "mnist-5k-1layer-iwae-k50")
IMAGES = 1_000  # of MNIST, and of OMNIGLOT
SIDE, HEIGHT = 300, 200  # px of a page, and of the letters on it
BOOTSTRAPS, SEED = 1_000, 0


def printed(text: str, font: Path) -> Tensor:
    """A character, dark on light, read as an upload is, and binarized: [784]."""
    page = Image.new("L", (SIDE, SIDE), 235)
    face = ImageFont.truetype(font, HEIGHT)
    ImageDraw.Draw(page).text((SIDE / 2, SIDE / 2), text, fill=30, font=face, anchor="mm")
    return binarized(prepare(page))


def binarized(digit: Digit) -> Tensor:
    """As the digit in hand is: [784]."""
    grey = torch.from_numpy((255 * digit.image).round().astype(np.uint8)).reshape(-1)
    return datasets.binarize(grey, torch.Generator().manual_seed(SEED))


def auc(digit: np.ndarray, other: np.ndarray, cluster: np.ndarray) -> tuple[float, float]:
    """P(a score of ``other`` exceeds one of ``digit``), ties counted half, and its standard error by the bootstrap."""

    def area(one: np.ndarray, two: np.ndarray) -> float:
        truth = np.concatenate([np.zeros(len(one)), np.ones(len(two))])
        return float(roc_auc_score(truth, np.concatenate([one, two])))

    random, parts = np.random.default_rng(SEED), [other[cluster == name] for name in np.unique(cluster)]

    def again() -> float:
        drawn = [parts[place] for place in random.integers(len(parts), size=len(parts))]
        return area(random.choice(digit, len(digit)), np.concatenate(drawn))

    return area(digit, other), float(np.std([again() for _ in range(BOOTSTRAPS)], ddof=1))


def _above(kept: surprise.Quantiles, scores: np.ndarray) -> str:
    return f"{np.mean([kept.share_below(score) >= 0.99 for score in scores]):.1%}"


def main(fonts: list[Path]) -> None:
    """Print the table."""
    mnist = comparison.choose(datasets.load("mnist").binary("test"), IMAGES, SEED + 1)
    omniglot = datasets.load("omniglot")
    chosen = comparison.choose(torch.arange(len(omniglot.test)), IMAGES, SEED)
    kinds = {
        f"{title} in {len(fonts)} fonts": (
            torch.stack([printed(text, font) for text in texts for font in fonts]), np.repeat(list(texts), len(fonts))
        )
        for title, texts in (("letters A–Z", ascii_uppercase), ("digits 0–9", digits))
    }  # fmt: skip
    alphabets, pixels = omniglot.test.labels[chosen].numpy(), omniglot.test.images[chosen].numpy()
    kinds["OMNIGLOT, read as drawings"] = torch.stack([binarized(from_canvas(each)) for each in pixels]), alphabets
    kinds["OMNIGLOT as it is"] = omniglot.binary("test")[chosen], alphabets
    rows = []
    for name in MODELS:
        model, card = checkpoints.load(SHIPPED / f"{name}{checkpoints.SUFFIX}")
        kept = surprise.from_card(card.metrics)
        assert kept is not None  # every shipped model has them
        digit = -metrics.log_evidence(model, mnist, samples=kept.samples, seed=SEED + 1).numpy()
        rows.append([name, "MNIST's own", f"{len(digit):,}", "–", _above(kept, digit)])
        for title, (x, cluster) in kinds.items():
            other = -metrics.log_evidence(model, x, samples=kept.samples, seed=SEED + 1).numpy()
            area, error = auc(digit, other, cluster)
            rows.append([name, title, f"{len(other):,}", f"{area:.3f} ± {error:.3f}", _above(kept, other)])
    print(table(["model", "against MNIST's digits", "images", "AUC ± s.e.", "above 99% of test digits"], rows))


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
