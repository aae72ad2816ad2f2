"""How sure a difference is: closed forms, and the false-alarm rate of a second measurement."""

import math

import pytest
import torch

from iwae.evaluation.metrics import evaluate
from iwae.model import Model, ModelConfig
from iwae.results import comparison
from iwae.results.comparison import Check, choose, compare, paired_difference, seed_differences, verify
from iwae.results.measured import PairedFigure
from iwae.results.rows import collect
from tests.cards import catalogue, entry, measured

SMALL = ModelConfig(hidden=((12,),), latent=(4,), shape=(1, 24))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 2, (200, 24), generator=torch.Generator().manual_seed(7)).float()


@pytest.fixture(scope="module")
def model() -> Model:
    """With large weights, so that q is far from the posterior and draws are noisy."""
    model = Model(SMALL, seed=4)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    return model


def test_paired_difference_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1/√3."""
    a, b = torch.tensor([10.0, 20.0, 30.0]), torch.tensor([9.0, 18.0, 27.0])
    assert paired_difference(a, b) == pytest.approx((2.0, 1 / math.sqrt(3)))
    assert paired_difference(a[:1], b[:1]) == (1.0, None)
    with pytest.raises(ValueError, match=r"not of shapes \(3,\), \(2,\)"):
        paired_difference(a, b[:2])


def test_two_models_on_the_same_images(model, images):
    a, b = evaluate(model, images, samples=20), evaluate(Model(SMALL, seed=5), images, samples=20)
    pairs = compare(a, b)
    assert set(pairs) == set(comparison.MEASURES)
    for name, pair in pairs.items():
        x, y = getattr(a, name).double(), getattr(b, name).double()
        assert pair.difference == pytest.approx(pair.a - pair.b)
        assert pair.se == pytest.approx(((x - y).var() / 200).sqrt().item())
        assert pair.unpaired_se == pytest.approx(((x.var() + y.var()) / 200).sqrt().item())


def test_choosing_images(images):
    assert torch.equal(choose(images, 200, 3), images) and torch.equal(choose(images, 999, 3), images)
    assert torch.equal(choose(images, 50, 3), choose(images, 50, 3)) and len(choose(images, 50, 3)) == 50
    assert not torch.equal(choose(images, 50, 3), choose(images, 50, 4))


def test_all_images_again_is_a_paired_difference(model, images):
    """For N = n the check is the mean of d = (other seed) − (card's seed), with the error of that mean."""
    card = evaluate(model, images, samples=10, seed=2)
    again = evaluate(model, images, samples=10, seed=3)
    checks = verify(model, card.summary(), images, 200)
    for name in comparison.MEASURES:
        mean, se = paired_difference(getattr(again, name), getattr(card, name))
        check = checks[name]
        assert check.measured - check.stored == pytest.approx(mean, abs=1e-9)
        assert check.se == pytest.approx(se, rel=1e-6)
        assert check.ratio == pytest.approx(mean / se, rel=1e-4)


def test_a_true_card_agrees_and_a_wrong_one_does_not(model, images):
    """40 of 200 images, 60 seeds: the ratio's root mean square lies in [0.7, 1.35], as that of 60 standard normal
    numbers does but for 1 in 10⁴. A card whose NLL is off by 8 standard errors is found out every time.
    """
    card = evaluate(model, images, samples=10, seed=0, prune=False).summary()
    checks = [verify(model, card, images, 40, seed=seed)["nll"] for seed in range(60)]
    assert 0.7 < math.sqrt(sum(check.ratio**2 for check in checks) / 60) < 1.35
    for seed, check in enumerate(checks[:5]):
        false = card | {"nll": card["nll"] + 8 * check.se}
        assert not verify(model, false, images, 40, seed=seed)["nll"].agrees


def test_a_card_of_some_images_is_checked_on_those(model, images):
    """As after a quick test: its images are the first of the permutation of its seed."""
    some = choose(images, 60, 5)
    card = evaluate(model, some, samples=10, seed=5, prune=False).summary()
    check = verify(model, card, images, 60)["nll"]
    again = evaluate(model, some, samples=10, seed=6, prune=False)
    assert check.measured == pytest.approx(again.nll.double().mean().item())
    with pytest.raises(ValueError, match="at least 2 images, not 1"):
        verify(model, card, images, 1)


def test_a_check_without_noise():
    assert Check(1.0, 1.0, 0.0).agrees and not Check(1.0, 1.1, 0.0).agrees
    assert Check(1.0, 1.29, 0.1).agrees and not Check(1.0, 1.31, 0.1).agrees


def test_differences_between_seeds():
    """Means 89.1 and 87.0, standard deviations 0.1 over three seeds each: 2.1 ± √(2·0.01/3)."""
    models = [
        entry(f"{objective}{k}{seed}", measured(nll + 0.1 * (seed - 1)), objective=objective, k=k, seed=seed)
        for objective, k, nll in (("vae", 1, 89.1), ("iwae", 5, 87.0), ("iwae", 50, 86.9))
        for seed in range(3)
    ]
    longer = [entry(f"long{seed}", measured(80.0 + seed), epochs=99, seed=seed) for seed in range(3)]
    rows, _ = collect(catalogue(*models, *longer))
    found = {(d.a.cell.title, d.b.cell.title): d for d in seed_differences(rows)}
    assert set(found) == {
        ("IWAE k = 5", "VAE k = 1"),
        ("IWAE k = 50", "VAE k = 1"),
        ("IWAE k = 50", "IWAE k = 5"),
    }
    first = found["IWAE k = 5", "VAE k = 1"]
    assert (first.value, first.se) == pytest.approx((-2.1, math.sqrt(0.02 / 3)))
    told = "IWAE k = 5 minus VAE k = 1: −2.10 nats ± 0.08 between seeds, larger than the noise between seeds"
    assert first.text == told and first.se_images is None
    assert "within the noise" in found["IWAE k = 50", "IWAE k = 5"].text


def test_a_difference_between_seeds_has_its_error_over_the_same_images(monkeypatch):
    """An error of 0.1 on 400 images is one of 0.02 on 10,000. One kind of model, measured in two ways, is no pair."""
    models = [
        entry(f"{kind}{seed}", measured(nll + seed), objective=kind, k=50, seed=seed)
        for kind, nll in (("vae", 88.0), ("iwae", 86.0))
        for seed in range(3)
    ]
    models += [entry(f"again{seed}", measured(88.0 + seed, images=500), k=50, seed=seed) for seed in (4, 5, 6)]
    line = PairedFigure("nll", "vae0", "iwae0", 88.0, 86.0, -2.0, 0.1, 400, 5000, 0, 88.0, 86.0)
    monkeypatch.setattr(comparison.measured, "load", lambda: (line,))
    found = [d for d in seed_differences(collect(catalogue(*models))[0]) if d.a.metrics["images"] == 10_000]
    assert [d.se_images for d in found] == [pytest.approx(0.02)]
    assert found[0].text.startswith("IWAE k = 50 minus VAE k = 50: −2.00 nats ± 0.82 between seeds ± 0.02 over test")
    assert all(d.a.cell != d.b.cell for d in seed_differences(collect(catalogue(*models))[0]))
