from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from iwae import gradients as estimators
from iwae.catalog import Entry
from iwae.kernels import bernoulli
from iwae.kernels import precision as products
from iwae.model import Model, ModelConfig
from iwae.results import rows as results
from iwae.training.config import TrainConfig
from iwae.training.loop import Training
from tests.steps import gradients


@pytest.fixture
def everywhere(monkeypatch):
    """bfloat16 on processors without instructions for it, too, and for few rows: slower, and the same numbers."""
    monkeypatch.setattr(products, "used", lambda precision: precision)
    monkeypatch.setattr(products, "FEW", 1)


@pytest.mark.parametrize(
    ("processor", "mkl"),
    [
        ({"cpu_name": "Intel(R) Xeon(R) Processor", "avx512_f": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_f": True}, False),
        ({"cpu_name": "AMD EPYC", "avx512_f": False}, True),
        ({"architecture": "aarch64"}, False),
    ],
    ids=["Intel", "AMD with AVX-512", "AMD without", "Arm"],
)
def test_mkl_where_onednn_has_no_wider_instructions(processor, mkl, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    assert products._mkl_is_faster.__wrapped__() is mkl


@pytest.mark.parametrize("mkl", [True, False])
@pytest.mark.parametrize("rows", [3, 600])
def test_either_library_multiplies(mkl, rows, monkeypatch):
    monkeypatch.setattr(products, "_mkl_is_faster", lambda: mkl)
    assert products.by_onednn(torch.float32) <= (not mkl) and not products.by_onednn(torch.float64)
    a, b, bias = (
        torch.randn(*size, generator=torch.Generator().manual_seed(3)) for size in ((40, rows), (40, 50), (50,))
    )
    plain = a.T.double() @ b.double()
    for found, expected in (
        (products.product(a.T, b), plain),
        (products.product(a.T, b, bias), plain + bias),
        (products.product(a.T, b, bias, tanh=True), (plain + bias).tanh()),
    ):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_a_layer_rounds_factors_and_products_and_nothing_else(everywhere):
    """Value and gradients are those of the rounded factors, each rounded once to eight digits; the bias is exact."""
    layer = products.Linear(300, 40)
    below = torch.randn(7, 5, 300, generator=torch.Generator().manual_seed(0), requires_grad=True)
    g_out = torch.randn(7, 5, 40, generator=torch.Generator().manual_seed(1))
    wanted, before = (below, layer.weight, layer.bias), layer(below)
    torch.testing.assert_close(before, F.linear(below, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)
    with products.of("bfloat16"):
        out = layer(below)
        found = torch.autograd.grad(out, wanted, g_out)
    a, w, g = (tensor.detach().bfloat16().double() for tensor in (below, layer.weight, g_out))
    expected = g @ w, g.flatten(0, 1).T @ a.flatten(0, 1), g_out.double().sum((0, 1))
    for rounded, exact in zip((out - layer.bias, *found), (a @ w.T, *expected), strict=True):
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded.double(), exact, rtol=2**-8, atol=1e-4)
    torch.testing.assert_close(found[2].double(), expected[2], rtol=1e-6, atol=1e-6)
    assert torch.equal(layer(below), before)  # and afterwards all is as before


@pytest.mark.parametrize("scale", [1, 100], ids=["", "logits that underflow"])
def test_the_likelihood_is_the_plain_formula_up_to_rounding(everywhere, scale, monkeypatch):
    """log p(x|h) to a hundredth, over several blocks, and gradients that point the same way."""
    monkeypatch.setattr(bernoulli, "ROWS", 30)
    model = Model(ModelConfig(((20, 30),), (5,), (1, 64)), seed=1)
    with torch.no_grad():
        model.pixel_logits.weight.mul_(scale)
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(9, 7, 5, generator=generator, requires_grad=True)
    x = (torch.rand(7, 64, generator=generator) < 0.3).float()
    plain = bernoulli.log_likelihood(x, model.logits(h))
    with products.of("bfloat16"):
        fast = model.log_likelihood(x, h)
        with torch.no_grad():
            assert torch.equal(model.log_likelihood(x, h), fast)
        wanted = h, *model.pixel_hidden.parameters(), *model.pixel_logits.parameters()
        weights = torch.rand(9, 7, generator=generator)
        found = torch.autograd.grad((fast * weights).sum(), wanted)
    torch.testing.assert_close(fast, plain, rtol=0.01, atol=0)
    for a, b in zip(found, torch.autograd.grad((plain * weights).sum(), wanted), strict=True):
        assert torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.999


def forget_the_processor() -> None:
    for known in (products.used, products._has_bfloat16):
        known.cache_clear()


@pytest.mark.parametrize("instructions", ["avx512_bf16", "amx_bf16", None])
def test_what_a_processor_makes_of_it_is_known_and_recorded(instructions, monkeypatch):
    """In the card, and so in the table, whatever was asked for."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True, "avx512_f": True})
    forget_the_processor()
    expected = "bfloat16" if instructions else "float32"
    try:
        assert products.used("bfloat16") == expected and products.used("float32") == "float32"
        with products.of("bfloat16"):
            assert products.rounds(1000) == (expected == "bfloat16") and not products.rounds(products.FEW - 1)
        with pytest.raises(KeyError), products.of("float16"):
            pass
        card = Training(TrainConfig(precision="bfloat16")).card()
    finally:
        forget_the_processor()
    assert card.progress["precision"] == expected and card.training["precision"] == "bfloat16"
    entry = Entry("m", Path("m"), card)
    assert results._measured(entry).gradient.endswith("bfloat16") == (instructions is not None)


def test_few_rows_are_not_rounded(monkeypatch):
    monkeypatch.setattr(products, "used", lambda precision: precision)
    layer, rows = products.Linear(30, 20), torch.randn(products.FEW, 30, generator=torch.Generator().manual_seed(0))
    plain = layer(rows)
    with products.of("bfloat16"):
        few, enough = (layer(rows[1:]) - plain[1:]).abs().max(), (layer(rows) - plain).abs().max()
    assert few < 1e-5 < 1e-4 < enough


def test_products_are_restored_after_an_error(everywhere):
    with pytest.raises(KeyError), products.of("bfloat16"):
        raise KeyError
    assert not products.rounds(1000)


@pytest.mark.parametrize("resample", [0, 1])
def test_the_gradient_is_float32s_up_to_rounding(resample, everywhere, monkeypatch):
    """One step on the same noise: every weight's gradient points the same way (the cosine of a rounding of 2⁻⁹), where
    the same draws go backward; by weights that are rounded, hardly an image would choose another one."""
    found, chosen, draw = {}, [], estimators.draw

    def as_at_first(weights, uniform):
        chosen.append(draw(weights, uniform))
        return chosen[0]

    monkeypatch.setattr(estimators, "draw", as_at_first)
    for precision in ("float32", "bfloat16"):
        config = TrainConfig(k=50, warm_k=0, resample=resample, epochs=1, precision=precision)
        training = Training(config)
        for _ in training.run(stop=lambda run=training: run.step >= 1):
            pass
        found[precision] = gradients(training)
    for exact, rounded in zip(*found.values(), strict=True):
        assert torch.cosine_similarity(exact, rounded, dim=0) > 0.999
    assert len(chosen) == 2 * resample
    if chosen:
        assert (chosen[0] != chosen[1]).sum() <= 10  # of 100


def test_products_are_refused_on_devices_that_they_are_not_for():
    with pytest.raises(ValueError, match="unknown precision 'int8'; there are float32, bfloat16, tf32"):
        TrainConfig(precision="int8")
    with pytest.raises(ValueError, match="matrix products in bfloat16 need the device cpu; on cuda they are float32"):
        Training(TrainConfig(precision="bfloat16"), device="cuda")
    with pytest.raises(ValueError, match="matrix products in tf32 need the device cuda; on cpu they are float32"):
        Training(TrainConfig(precision="tf32"))


def test_an_unknown_precision_changes_nothing():
    with pytest.raises(KeyError), products.of("float16"):
        pass
    assert not products.rounds(1000)


def test_tf32_is_allowed_inside_and_only_there():
    before = torch.get_float32_matmul_precision()
    with products.of("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before == "highest"
