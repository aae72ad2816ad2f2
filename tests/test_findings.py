"""The poster's claims: the rule by hand, errors in closed form, what is not compared, and the files behind them."""

import json
import math

import pytest
import torch

from iwae.__main__ import main
from iwae.evaluation.metrics import evaluate
from iwae.model import Model, ModelConfig
from iwae.results import claim_figures, findings, measured, measuring
from iwae.results.claim_figures import FAILS, HOLDS, SIMILAR, UNJUDGED, WITHIN, over_seeds, pair, plain, signs, verdict
from iwae.results.comparison import paired_difference
from iwae.results.measured import KnownDimension, PairedFigure, SeedFigure
from iwae.results.rows import SEED_NOISE, collect
from iwae.training.config import TrainConfig
from tests.cards import catalogue, entry
from tests.cards import measured as card

V5, V50, I5, I50 = findings.V5, findings.V50, findings.I5, findings.I50


@pytest.fixture(autouse=True)
def _nothing_measured(monkeypatch):
    """No lines but the test's own."""
    for name in ("load", "load_seeds", "load_dimensions"):
        monkeypatch.setattr(measured, name, tuple)


@pytest.fixture
def seeds(monkeypatch):
    """NLLs over three seeds: standard deviations 0.3 and 0.4, pooled √0.125."""
    lines = [SeedFigure("1layer", kind, "", 50, "nll", *values, 3, 2000, 500)
             for kind, values in (("vae", (101.0, 0.3)), ("iwae", (99.0, 0.4)))]  # fmt: skip
    monkeypatch.setattr(measured, "load_seeds", lambda: tuple(lines))


def models(**settings):
    """VAE and IWAE, k = 50, NLLs 88.7 and 86.7 with errors of 0.3 and 0.4."""
    vae = entry("v", card(88.7, 0.3, active_units=[22]), objective="vae", k=50)
    iwae = entry("i", card(86.7, 0.4, active_units=[25]), objective="iwae", k=50, **settings)
    return collect(catalogue(vae, iwae))[0]


def test_the_rule():
    assert SEED_NOISE == 3 and SIMILAR == 1
    assert [verdict(value, 1.0, 1) for value in (3.1, 2.9, 0.0, -2.9, -3.1)] == [HOLDS, WITHIN, WITHIN, WITHIN, FAILS]
    assert [verdict(value, 1.0, -1) for value in (3.1, -3.1)] == [FAILS, HOLDS]
    assert [verdict(value, 0.1, 0) for value in (0.6, -0.6, 0.8, -1.2, 1.4, -1.4)] == [
        HOLDS, HOLDS, WITHIN, WITHIN, FAILS, FAILS,
    ]  # fmt: skip
    assert verdict(99.0, None, 1) == verdict(0.0, None, 0) == UNJUDGED


def test_the_error_of_a_pair_is_that_over_images_and_between_seeds(seeds):
    """Unpaired √(0.3² + 0.4²) = 0.5 over images, √2 · √0.125 = 0.5 between seeds."""
    assert claim_figures.seed_sd("nll", "1layer", "2layer") == pytest.approx(math.sqrt(0.125))
    assert claim_figures.seed_sd("nll", "2layer") is None and claim_figures.seed_sd("elbo", "1layer") is None
    figure = pair(plain(models()), "nll", V50, I50, -1)
    assert (figure.value, figure.error) == pytest.approx((-2.0, math.sqrt(0.5)))
    assert figure.verdict == WITHIN and figure.text == "−2.00 ± 0.71 nats"
    assert figure.what == "IWAE k = 50 − VAE k = 50"
    assert figure.basis == "mnist-fixed, 1 layer, 10 epochs, one seed; 10,000 test images, 5,000 draws"


def test_on_the_same_images_the_error_is_paired(seeds, monkeypatch):
    """An error of 0.1 on 400 images is one of 0.02 on 10,000; of models that were trained anew nothing is known."""
    line = PairedFigure("nll", "v", "i", 88.0, 86.0, -2.0, 0.1, 400, 5000, 0, 88.704, 86.695)
    monkeypatch.setattr(measured, "load", lambda: (line,))
    figure = pair(plain(models()), "nll", V50, I50, -1)
    assert figure.error == pytest.approx(math.hypot(0.02, 0.5)) and figure.verdict == HOLDS
    assert measured.lookup("nll", ("v", 88.70), ("i", 86.70)) is line
    assert measured.lookup("nll", ("v", 88.72), ("i", 86.70)) is None
    assert measured.lookup("nll", ("i", 86.70), ("v", 88.70)) is None


def test_where_both_have_several_seeds_the_figure_is_of_their_means(monkeypatch):
    """NLLs 88, 89, 90 and 85, 86, 87, 88: 86.5 − 89 with √(1/3 + 5/12) between seeds, and the pair's 0.02 over images.
    Where one has fewer than three seeds, the first ones are compared."""
    line = PairedFigure("nll", "v0", "i0", 88.0, 85.0, -3.0, 0.1, 400, 5000, 0, 88.0, 85.0)
    monkeypatch.setattr(measured, "load", lambda: (line,))
    vaes = [entry(f"v{seed}", card(88.0 + seed), objective="vae", k=50, seed=seed) for seed in range(3)]
    iwaes = [entry(f"i{seed}", card(85.0 + seed), objective="iwae", k=50, seed=seed) for seed in range(4)]
    figure = pair(plain(collect(catalogue(*vaes, *iwaes))[0]), "nll", V50, I50, -1)
    assert (figure.value, figure.error) == pytest.approx((-2.5, math.hypot(0.02, math.sqrt(1 / 3 + 5 / 12))))
    assert "10 epochs, 3 seeds and 4 seeds; 10,000 test images" in figure.basis
    single = pair(plain(collect(catalogue(*vaes, *iwaes[:2]))[0]), "nll", V50, I50, -1)
    assert single.value == pytest.approx(-3.0) and single.error is None and "one seed;" in single.basis


def test_units_over_seeds_are_means_of_whole_numbers():
    """20+2, 20+3, 20+4 and 24+1 three times: 25 − 23, with a variance between seeds of (1 + 1/12)/3 + (1/12)/3."""
    counts = {"vae": ([20, 2], [20, 3], [20, 4]), "iwae": ([24, 1],) * 3}
    found = [
        entry(f"{kind}{seed}", card(active_units=units), objective=kind, k=50, seed=seed)
        for kind, by_seed in counts.items()
        for seed, units in enumerate(by_seed)
    ]
    figure = pair(plain(collect(catalogue(*found))[0]), "active", V50, I50, 1)
    assert (figure.value, figure.error) == pytest.approx((2.0, math.sqrt((1 + 2 / 12) / 3)))
    assert figure.verdict == HOLDS and figure.basis.endswith("10 epochs, 3 seeds; 10,000 test images")


def test_what_is_claimed_to_be_the_same_can_only_fail(monkeypatch):
    """22 and 25 directions with a standard deviation of 0.5 between seeds: 3 ± 0.71."""
    lines = [SeedFigure("1layer", "vae", "", k, "pca_active", 22.0, 0.5, 3, 10_000, 0) for k in (5, 50)]
    monkeypatch.setattr(measured, "load_seeds", lambda: tuple(lines))
    found = [PairedFigure("pca_active", "v", "i", 22, 22 + d, d, 0.0, 10_000, 0, 0, 88.7, 86.7) for d in (3, 2)]
    for line, said in zip(found, (FAILS, WITHIN), strict=True):
        monkeypatch.setattr(measured, "load", lambda line=line: (line,))
        figure = claim_figures.same(plain(models()), "pca_active", V50, I50)
        assert figure.verdict == said and figure.error == pytest.approx(math.sqrt(0.5))
    assert figure.text == "+2.0 ± 0.7 directions"


def test_over_seeds_by_hand(seeds):
    """99 − 101, with the error √(0.3²/3 + 0.4²/3)."""
    figure = over_seeds("nll", V50, I50, -1)
    assert (figure.value, figure.error) == pytest.approx((-2.0, 0.5 / math.sqrt(3))) and figure.verdict == HOLDS
    assert over_seeds("nll", V5, I5, -1).value is None and over_seeds("nll", V5, I5, -1).verdict == UNJUDGED


@pytest.mark.parametrize("other", [{"epochs": 99}, {"learning_rate": 1e-4}, {"seed": 1}, {"ema": 0.9}])
def test_only_like_is_compared_with_like(seeds, other):
    progress = {"epochs": 99.0} if "epochs" in other else {}
    vae = entry("v", card(88.7), objective="vae", k=50)
    iwae = entry("i", card(86.7), progress, objective="iwae", k=50, **other)
    figure = pair(plain(collect(catalogue(vae, iwae))[0]), "nll", V50, I50, -1)
    assert figure.value is None and figure.verdict == UNJUDGED and "trained alike" in figure.basis


def test_a_run_of_your_own_decides_nothing():
    mine = entry("run:mine", card(70.0), objective="vae", k=50)
    assert plain(collect(catalogue(mine))[0]) == {}


def test_signs_are_a_fair_coin_s():
    """Of 7 pairs that agree the chance is 1/128, of 6 it is 1/64; a tie counts for neither."""

    def pairs(*differences):
        found = []
        for k, difference in enumerate(differences, 2):
            found.append(entry(f"v{k}", card(active_units=[20]), objective="vae", k=k))
            found.append(entry(f"i{k}", card(active_units=[20 + difference]), objective="iwae", k=k))
        return plain(collect(catalogue(*found))[0])

    seven = signs(pairs(1, 2, 3, 4, 5, 6, 7), 1)
    assert seven.verdict == HOLDS and seven.value == 4 and seven.text == "+4 units" and "7 of 7 pairs" in seven.basis
    assert signs(pairs(1, 2, 3, 4, 5, 6), 1).verdict == WITHIN
    assert signs(pairs(1, 2, 3, 4, 5, 6, 7), -1).verdict == FAILS
    assert "6 of 6" in signs(pairs(0, 1, 1, 1, 1, 1, 1), 1).basis and signs({}, 1).verdict == UNJUDGED


def test_a_known_dimension_is_met_or_missed(monkeypatch):
    def lines(*counts):
        return lambda: tuple(
            KnownDimension(5, "vae", 1, seed, 100, 9, 50, count, count, 90.0) for seed, count in enumerate(counts)
        )

    expected = {(5, 5, 5): HOLDS, (8, 8, 8): FAILS, (5, 6, 5): WITHIN, (5,): UNJUDGED}
    for counts, said in expected.items():
        monkeypatch.setattr(measured, "load_dimensions", lines(*counts))
        (figure,) = claim_figures.known_dimension("vae")
        assert figure.verdict == said and figure.value == pytest.approx(sum(counts) / len(counts) - 5)
        if counts == (8, 8, 8):
            assert figure.error == pytest.approx(1 / 6)  # √(1/12) of each, over √3
    assert [figure.value for figure in claim_figures.known_dimension("iwae")] == [None]


def test_a_finding_sums_its_figures_up():
    def finding(*verdicts):
        figures = tuple(claim_figures.ClaimFigure("nll", "B − A", 1.0, 0.1, each, "") for each in verdicts)
        return findings.Finding("key", "title", "claim", figures, None).verdict

    assert finding(HOLDS, HOLDS, UNJUDGED) == HOLDS and finding(FAILS) == FAILS and finding(UNJUDGED) == UNJUDGED
    assert finding(HOLDS, WITHIN) == finding(HOLDS, FAILS) == findings.PARTLY and finding(FAILS, WITHIN) == FAILS


def test_measuring_a_pair_agrees_with_the_engine(tmp_path):
    """Means and paired errors are those of ``evaluate``; its own bound lies below log p̂(x), and L_5 below L_20."""
    x = torch.randint(0, 2, (60, 24), generator=torch.Generator().manual_seed(7)).float()
    small = ModelConfig(hidden=((12,),), latent=(4,), shape=(1, 24))
    vae, iwae = Model(small, seed=4), Model(small, seed=5)
    with torch.no_grad():
        for weight in (*vae.parameters(), *iwae.parameters()):
            weight.mul_(3)
    options = {"images": 60, "samples": 20, "seed": 0}
    a = measuring.measure(vae, TrainConfig(objective="vae", k=1), x, **options)
    b = measuring.measure(iwae, TrainConfig(objective="iwae", k=5), x, **options)
    assert bool((a.drawn["gap"] >= 0).all()) and 0 < b.means["gap"] < b.means["kl_posterior"]
    one, two = (evaluate(model, x, samples=20, seed=0) for model in (vae, iwae))
    lines = measuring.pair(a, b, ("v", "i"), (88.0, 87.0), 0)
    found = {line.measure: line for line in lines}
    assert (found["nll"].difference, found["nll"].se) == pytest.approx(paired_difference(two.nll, one.nll))
    assert found["active"].value_a == one.summary()["active_units"][0] and found["active"].samples == 0
    assert found["pca_active"].value_b == two.summary()["pca_active_units"][0]
    path = tmp_path / "paired.csv"
    path.write_text(measured.text(lines))
    again = measured._read(path, PairedFigure)
    assert [line.measure for line in again] == sorted(found) and again[0].images == 60
    assert [line.difference for line in again] == pytest.approx([line.difference for line in lines], rel=1e-4)
    (first, *_), *_ = [measuring.over_seeds([(TrainConfig(k=5, seed=seed), b) for seed in range(2)])]
    assert (first.model, first.objective, first.k, first.sd, first.seeds) == ("1layer", "iwae", 5, 0.0, 2)


def test_the_command_says_it_in_words_and_as_json(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_RUNS_DIR", str(tmp_path))
    assert main(["findings"]) == 0
    told = capsys.readouterr().out
    assert main(["findings", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["title"] for each in found["findings"]] == [claim.title for claim in findings.CLAIMS]
    for each in found["findings"]:
        assert f"{each['title']}: {each['verdict']}" in told
    assert found["rule"] in told and found["findings"][0]["figures"][0]["unit"] == "nats"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--images 1", "--images must be at least 2, not 1"),
        ("--samples 0", "--samples must be at least 1, not 0"),
        ("--seeds nowhere", "--seeds must name the folder of a sweep, not nowhere"),
    ],
)
def test_bad_options_are_one_line(capsys, words, told):
    assert main(["findings", *words.split()]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
