from pathlib import Path

import pytest
import torch

from iwae import products, results
from iwae.catalog import Entry
from iwae.config import TrainConfig
from iwae.training import Training
from tests.steps import gradients


def test_bfloat16_rounds_the_factors_and_nothing_else():
    """The product of rounded factors, up to float32's rounding of the sum; float32 where a processor cannot."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(300, 300, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    rounded = a.bfloat16().double() @ b.bfloat16().double()
    with products.of("bfloat16"):
        product = a @ b
    error = min((product - exact).abs().max(), (product - rounded).abs().max())
    assert error < 2e-4  # the two differ by 0.2
    assert (a @ b - exact).abs().max() < 2e-4  # and afterwards everything is as before


def test_what_a_processor_makes_of_it_is_known_and_recorded():
    """As products of random numbers show it; in the card, and so in the table, whatever was asked for."""
    a, b = torch.randn(2, 300, 300, generator=torch.Generator().manual_seed(0))
    with products.of("bfloat16"):
        rounds = (a @ b - (a.double() @ b.double())).abs().max() > 1e-2
    expected = "bfloat16" if rounds else "float32"
    assert products.used("bfloat16") == expected and products.used("float32") == "float32"
    card = Training(TrainConfig(products="bfloat16")).card()
    assert card.progress["products"] == expected and card.training["products"] == "bfloat16"
    entry = Entry("m", Path("m"), card)
    assert results._measured(entry).gradient.endswith("bfloat16") == rounds


def test_products_are_restored_after_an_error():
    before = torch.backends.mkldnn.matmul.fp32_precision
    with pytest.raises(KeyError), products.of("bfloat16"):
        raise KeyError
    with pytest.raises(KeyError), products.of("float16"):
        pass
    assert torch.backends.mkldnn.matmul.fp32_precision == before


@pytest.mark.parametrize("resample", [0, 1])
def test_the_gradient_is_float32s_up_to_rounding(resample):
    """One step on the same noise: every weight's gradient points the same way (the cosine of a rounding of 2⁻⁹)."""
    found = {}
    for precision in products.PRODUCTS:
        config = TrainConfig(k=50, warm_k=0, resample=resample, passes=1, products=precision)
        training = Training(config)
        for _ in training.run(stop=lambda run=training: run.step >= 1):
            pass
        found[precision] = gradients(training)
    for exact, rounded in zip(*found.values(), strict=True):
        assert torch.cosine_similarity(exact, rounded, dim=0) > 0.99


def test_bfloat16_is_refused_where_it_is_not_for():
    with pytest.raises(ValueError, match="unknown products 'int8'; there are float32, bfloat16"):
        TrainConfig(products="int8")
    with pytest.raises(ValueError, match="products in bfloat16 are for a CPU; on cuda they are float32"):
        Training(TrainConfig(products="bfloat16"), device="cuda")
