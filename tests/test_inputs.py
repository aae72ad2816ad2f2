"""What a model accepts as images: the same numbers from every form of zeros and ones, else a sentence."""

import numpy as np
import pytest
import torch

from iwae.analysis import generation, latent, reconstruction, timeline, units
from iwae.bounds import Bound
from iwae.evaluation import activity, metrics
from iwae.gradients import Estimator
from iwae.inference.posterior import posterior
from iwae.inputs import binary_images
from iwae.kernels import bernoulli
from iwae.model import Model, ModelConfig

SIDE = 4
CONFIG = ModelConfig(hidden=((8,), (6,)), latent=(4, 2), shape=(SIDE, SIDE))


@pytest.fixture(scope="module")
def model():
    return Model(CONFIG, seed=1)


def zeros_and_ones(n: int) -> torch.Tensor:
    return torch.randint(0, 2, (n, SIDE * SIDE), generator=torch.Generator().manual_seed(0)).float()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


# Every public function that is given several images, and one number for each of them.
ENTRIES = {
    "evaluate": lambda model, x: metrics.evaluate(model, x, samples=5).nll,
    "mean_bound": lambda model, x: metrics.mean_bound(model, x, Bound("iwae"), 3),
    "log_evidence": lambda model, x: metrics.log_evidence(model, x, samples=5),
    "active_units": lambda model, x: activity.active_units(model, x)[1].mean,
    "unit_means": lambda model, x: activity.unit_means(model, x)[1][0],
    "unit_kl": lambda model, x: units.unit_kl(model, x)[0],
    "encode": lambda model, x: torch.from_numpy(latent.encode(model, x).mean),
    "reconstruct": lambda model, x: reconstruction.reconstructions(model, x, samples=3).losses["draw"],
    "reconstructions": generation.reconstructions,
    "look": lambda model, x: timeline.describe_model(model, x, x).pictures,
    "sample": lambda model, x: model.sample(x, 3, generator=seeded()).log_w,
    "log_likelihood": lambda model, x: model.log_likelihood(x, torch.ones(2, len(x), 4)),
    "log_joint": lambda model, x: model.log_joint(x, (torch.ones(2, len(x), 4), torch.ones(2, len(x), 2)))[0],
    "estimator": lambda model, x: Estimator(Bound("iwae"), 3)(model, x, seeded())[1],
}

FORMS = {
    "uint8": lambda x: x.byte(),
    "bool": lambda x: x.bool(),
    "int64": lambda x: x.long(),
    "float64": lambda x: x.double(),
    "bfloat16": lambda x: x.bfloat16(),
    "square": lambda x: x.view(-1, SIDE, SIDE),
    "with a channel": lambda x: x.view(-1, 1, SIDE, SIDE),
    "transposed in memory": lambda x: x.T.contiguous().T,
    "NumPy": lambda x: x.numpy(),
    "NumPy bool": lambda x: x.numpy().astype(bool),
    "NumPy uint16": lambda x: x.numpy().astype(np.uint16),
    "NumPy, big-endian": lambda x: x.numpy().astype(">f8").reshape(-1, 1, SIDE, SIDE),
    "NumPy, read-only and backwards": lambda x: np.broadcast_to(x.numpy()[::-1], x.shape)[::-1],
}

WRONG = {
    "grey": (
        lambda x: 0.5 * x,
        r"zeros and ones, but \d+ of the 80 pixels are something else: pixel \d+ of image \d is 0.5",
    ),
    "grey of 0 to 255": (lambda x: 255 * x.byte(), "is 255. Grey levels have to be binarized"),
    "−1 and 1": (lambda x: 2 * x - 1, "is -1"),
    "nearly one": (lambda x: x.double() * (1 - 1e-12), "are something else"),
    "NaN": (lambda x: x.masked_fill(x > 0, torch.nan), "is nan"),
    "infinite": (lambda x: x.masked_fill(x > 0, torch.inf), "is inf"),
    "another size": (
        lambda x: x[:, 1:],
        r"shape \[5, 15\]; this model's images have 4×4 pixels, so x must be \[n",
    ),
    "three channels": (lambda x: x.view(-1, 1, SIDE, SIDE).repeat(1, 3, 1, 1), r"\[5, 3, 4, 4\].*\[n, 1, 4, 4\]"),
    "oblong": (lambda x: x.view(-1, 2, 8), r"the shape \[5, 2, 8\]"),
    "flat": (lambda x: x.flatten(), r"the shape \[80\]"),
    "a number": (lambda x: x[0, 0], r"the shape \[\]"),
    "none": (lambda x: x[:0], r"there is no image: x has the shape \[0, 16\]"),
    "a list": (lambda x: x.tolist(), "numpy array or torch tensor of real numbers or booleans, not a list"),
    "None": (lambda x: None, "not a NoneType"),
    "complex": (lambda x: x.cfloat(), "not a Tensor of torch.complex64"),
    "sparse": (lambda x: x.to_sparse(), "dense"),
    "text": (lambda x: x.numpy().astype(str), "not a ndarray of <U"),
    "masked": (lambda x: np.ma.masked_equal(x.numpy(), 0), "not a MaskedArray"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_zeros_and_ones_gives_the_same_numbers(model, form):
    x = zeros_and_ones(5)
    given = FORMS[form](x)
    assert torch.equal(binary_images(given, (SIDE, SIDE), torch.zeros(1)), x)
    assert torch.equal(ENTRIES["evaluate"](model, given), ENTRIES["evaluate"](model, x))
    one = given[0]
    assert torch.equal(posterior(model, one, samples=5).log_w, posterior(model, x[0], samples=5).log_w)
    assert torch.equal(ENTRIES["sample"](model, one), ENTRIES["sample"](model, x[:1]))


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_takes_other_forms(model, entry):
    x = zeros_and_ones(5)
    found = ENTRIES[entry](model, x.byte().numpy().reshape(-1, 1, SIDE, SIDE))
    assert torch.equal(found, ENTRIES[entry](model, x))


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("wrong", ["grey", "NaN", "another size", "none"])
def test_every_entry_refuses_what_is_not_zeros_and_ones(model, entry, wrong):
    make, says = WRONG[wrong]
    with pytest.raises(ValueError, match=says):
        ENTRIES[entry](model, make(zeros_and_ones(5)))


@pytest.mark.parametrize("wrong", WRONG)
def test_refusals_say_what_was_found_and_what_is_allowed(model, wrong):
    make, says = WRONG[wrong]
    with pytest.raises(ValueError, match=says):
        metrics.evaluate(model, make(zeros_and_ones(5)), samples=2)
    with pytest.raises(ValueError):
        posterior(model, make(zeros_and_ones(1).repeat(5, 1)), samples=2)


def test_a_number_of_images_that_is_wrong_is_named(model):
    with pytest.raises(ValueError, match=r"x must hold 1 image, not 5: its shape is \[5, 16\]"):
        posterior(model, zeros_and_ones(5))
    with pytest.raises(ValueError, match="x must hold 2 images, not 1"):
        generation.interpolate(model, zeros_and_ones(1))


def test_images_need_not_be_square():
    x = (torch.arange(18) % 2).float().view(3, 6)
    for given in (x, x.view(3, 2, 3), x.view(3, 1, 2, 3)):
        assert torch.equal(binary_images(given, (2, 3), x), x)
    for given in (x[0], x[0].view(2, 3)):
        assert torch.equal(binary_images(given, (2, 3), x), x[:1])
    says = r"2×3 pixels, so x must be \[n, 6\], \[n, 2, 3\], \[n, 1, 2, 3\], or for one image \[6\] or \[2, 3\]"
    for given in (x.view(3, 3, 2), x.view(3, 2, 1, 3)):
        with pytest.raises(ValueError, match=says):
            binary_images(given, (2, 3), x)


def test_a_model_in_float64_gets_float64(model):
    x = zeros_and_ones(3)
    double = Model(CONFIG, seed=1).double()
    assert double.check_images(x.byte()).dtype == torch.float64
    h = torch.randn(2, 3, 4, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(double.log_likelihood(x, h), bernoulli.log_likelihood(x.double(), double.logits(h)))
