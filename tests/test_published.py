"""The published values: every NLL against a second copy typed column by column, and a sample of the rest."""

from collections import Counter

import pytest

from iwae.bounds import OBJECTIVES
from iwae.data import datasets
from iwae.model import ModelConfig
from iwae.results import published
from iwae.results.published import SOURCES, Cell, Result, best, cells, load, lookup

# (data set, architecture, objective, source): NLL for k = 1, 5, 50; – where the source has none
GRID = {
    ("mnist-fixed", "1layer", "vae", "R"): "89.87 89.85 90.81",
    ("mnist-fixed", "1layer", "vae", "B"): "88.71 88.83 89.05",
    ("mnist-fixed", "1layer", "iwae", "R"): "89.87 87.61 87.13",
    ("mnist-fixed", "1layer", "iwae", "B"): "88.71 87.63 87.10",
    ("mnist-fixed", "1layer", "iwae", "P"): "– – 86.82",
    ("mnist-fixed", "2layer", "vae", "R"): "86.81 86.39 86.43",
    ("mnist-fixed", "2layer", "vae", "B"): "88.08 87.63 87.86",
    ("mnist-fixed", "2layer", "iwae", "R"): "86.75 85.58 84.77",
    ("mnist-fixed", "2layer", "iwae", "B"): "88.08 86.17 85.32",
    ("mnist", "1layer", "vae", "R"): "87.96 87.44 87.54",
    ("mnist", "1layer", "vae", "B"): "86.76 86.47 86.35",
    ("mnist", "1layer", "vae", "X"): "87.78 87.15 87.47",
    ("mnist", "1layer", "iwae", "R"): "87.67 86.97 86.34",
    ("mnist", "1layer", "iwae", "B"): "86.76 85.54 84.78",
    ("mnist", "1layer", "iwae", "X"): "87.75 85.46 84.59",
    ("mnist", "1layer", "vae", "N"): "86.35 86.10 86.06",
    ("mnist", "1layer", "iwae", "N"): "86.35 85.18 84.59",
    ("mnist", "2layer", "vae", "N"): "84.83 84.08 83.89",
    ("mnist", "2layer", "iwae", "N"): "84.83 83.48 82.82",
    ("mnist", "2layer", "vae", "R"): "85.59 85.47 85.57",
    ("mnist", "2layer", "vae", "B"): "85.33 85.01 84.78",
    ("mnist", "2layer", "vae", "X"): "89.16 91.37 89.16",
    ("mnist", "2layer", "iwae", "R"): "86.19 85.01 84.37",
    ("mnist", "2layer", "iwae", "B"): "85.33 83.89 82.90",
    ("mnist", "2layer", "iwae", "X"): "88.39 84.69 83.29",
    ("omniglot-burda", "1layer", "vae", "R"): "113.17 – 113.50",
    ("omniglot-burda", "1layer", "vae", "B"): "108.11 107.62 107.80",
    ("omniglot-burda", "1layer", "iwae", "R"): "113.20 – 109.90",
    ("omniglot-burda", "1layer", "iwae", "B"): "108.11 106.12 104.67",
    ("omniglot-burda", "2layer", "vae", "R"): "111.40 – 111.52",
    ("omniglot-burda", "2layer", "vae", "B"): "107.58 106.31 106.30",
    ("omniglot-burda", "2layer", "iwae", "R"): "111.19 – 108.48",
    ("omniglot-burda", "2layer", "iwae", "B"): "107.56 104.79 103.38",
    ("fashion-mnist", "1layer", "vae", "R"): "235.01 – 235.73",
    ("fashion-mnist", "1layer", "iwae", "R"): "234.68 – 231.95",
}
# Beside the grid, all with one layer: (data set, title, start, source): NLL
BESIDE = {
    ("mnist-fixed", "VAE k = 1", "", "R"): 89.88,
    ("mnist-fixed", "IWAE k = 5", "", "P"): 87.85,
    ("mnist-fixed", "IWAE k = 50", "", "N"): 86.71,
    ("mnist-fixed", "L_alpha α = 0, k = 50", "", "R"): 88.27,
    ("mnist-fixed", "L_alpha α = 0.25, k = 50", "", "R"): 88.45,
    ("mnist-fixed", "L_alpha α = 0.5, k = 50", "", "R"): 88.01,
    ("mnist-fixed", "Median k = 50", "", "R"): 88.05,
    ("mnist-fixed", "Power mean p = 0.5, k = 50", "", "R"): 87.88,
    ("mnist-fixed", "Power mean p = 2, k = 50", "", "R"): 86.75,
    ("mnist-fixed", "Power mean p = 3, k = 50", "", "R"): 86.70,
    ("mnist-fixed", "Power mean p = 5, k = 50", "", "R"): 86.80,
    ("mnist-fixed", "VAE k = 50", "IWAE k = 50", "R"): 87.50,
    ("mnist-fixed", "VAE k = 1", "IWAE k = 50", "R"): 87.69,
    ("mnist-fixed", "IWAE k = 50", "VAE k = 50", "R"): 88.25,
    ("mnist-fixed", "IWAE k = 50", "VAE k = 1", "R"): 88.70,
    ("mnist", "IWAE k = 1", "", "N"): 86.08,  # with DReG, as the next two
    ("mnist", "IWAE k = 5", "", "N"): 84.90,
    ("mnist", "IWAE k = 50", "", "N"): 84.32,
    ("mnist", "IWAE k = 50", "VAE k = 1", "B"): 84.88,
    ("mnist", "VAE k = 1", "IWAE k = 50", "B"): 86.02,
    ("mnist", "CIWAE β = 0.05, k = 50", "", "R"): 87.69,
    ("mnist", "CIWAE β = 0.25, k = 50", "", "R"): 86.27,
    ("mnist", "CIWAE β = 0.5, k = 50", "", "R"): 86.59,
    ("mnist", "MIWAE k1 = 5, k2 = 10, k = 50", "", "R"): 86.92,
    ("mnist", "MIWAE k1 = 10, k2 = 5, k = 50", "", "R"): 86.58,
    ("mnist", "MIWAE k1 = 8, k2 = 8, k = 64", "", "P"): 85.09,
    ("mnist", "PIWAE k1 = 8, k2 = 8, k = 64", "", "P"): 84.58,
    ("mnist", "CIWAE β = 0.05, k = 64", "", "P"): 84.74,
}


def test_every_nll_is_there_once_and_no_other():
    expected = Counter()
    for (dataset, model, objective, source), line in GRID.items():
        for k, nll in zip((1, 5, 50), line.split(), strict=True):
            if nll != "–":
                expected[Cell(dataset, model, objective, k), source, float(nll)] += 1
    beside = Counter({(*place, nll): 1 for place, nll in BESIDE.items()})
    for title, nll in (("VAE k = 50", 90.78), ("VAE k = 50", 90.81), ("IWAE k = 50", 87.13)):  # R's report again
        beside["mnist-fixed", title, "", "R", nll] += 1
    rest = Counter()
    for result in load():
        place = result.cell, result.source, result.nll
        if expected[place]:
            expected[place] -= 1
        else:
            rest[result.cell.dataset, result.cell.title, result.cell.start, result.source, result.nll] += 1
            assert result.cell.model == "1layer"
    assert expected.total() == 0 and rest == beside and len(load()) == 128


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (("1layer", "vae", 1), (89.87, 71.87, 5.30, (14,), (14,))),
        (("1layer", "vae", 5), (89.85, 72.09, 5.76, (14,), (14,))),
        (("1layer", "vae", 50), (90.81, 74.15, 5.90, (13,), (13,))),
        (("1layer", "iwae", 1), (89.87, 71.87, None, None, None)),
        (("1layer", "iwae", 5), (87.61, 71.63, 7.60, (23,), (23,))),
        (("1layer", "iwae", 50), (87.13, 78.36, 12.87, (25,), (25,))),
        (("2layer", "vae", 1), (86.81, None, 5.07, (36, 7), (18, 7))),
        (("2layer", "vae", 5), (86.39, None, 4.77, (27, 9), (19, 9))),
        (("2layer", "vae", 50), (86.43, None, 4.63, (40, 10), (19, 10))),
        (("2layer", "iwae", 1), (86.75, None, 5.00, (37, 8), (18, 8))),
        (("2layer", "iwae", 5), (85.58, None, 6.77, (59, 9), (23, 9))),
        (("2layer", "iwae", 50), (84.77, None, 9.89, (43, 11), (26, 11))),
        (("1layer", "median", 50), (88.05, None, 5.62, (20,), (20,))),
    ],
)
def test_the_poster_s_table_in_full(cell, expected):
    wanted = Cell("mnist-fixed", *cell)
    assert Result(wanted, "R", *expected) in load()


def test_other_measures_beside_the_poster_s():
    """Burda's active units, those of the power means and L_alpha, and Fashion-MNIST's."""
    one = [result.active for result in load() if (result.cell.dataset, result.source) == ("mnist-fixed", "B")]
    assert one == [
        *((19,), (19,), (20,), (19,), (22,), (24,)),
        *((16, 5), (17, 5), (17, 6)),
        *((16, 5), (21, 5), (24, 7)),
    ]
    found = {
        (result.cell.objective, result.cell.parameters[0][1]): (result.active[0], result.kl_posterior)
        for result in load()
        if result.cell.objective in ("power-mean", "l-alpha")
    }
    assert found == {
        **{("l-alpha", 0): (20, 5.12), ("l-alpha", 0.25): (19, 5.24), ("l-alpha", 0.5): (21, 5.27)},
        **{("power-mean", 0.5): (25, 12.61), ("power-mean", 2): (25, 12.52)},
        **{("power-mean", 3): (26, 13.01), ("power-mean", 5): (25, 12.45)},
    }
    fashion = [(r.active, r.pca_active, r.kl_posterior) for r in load() if r.cell.dataset == "fashion-mnist"]
    assert fashion == [((n,), (n,), kl) for n, kl in ((7, 4.46), (7, 5.68), (8, 3.49), (14, 11.57))]


@pytest.mark.parametrize(
    ("dataset", "model", "objective", "source", "expected"),
    [
        ("mnist", "1layer", "vae", "B", "19 20 20"),
        ("mnist", "1layer", "iwae", "B", "19 22 25"),
        ("mnist", "2layer", "vae", "B", "16+5 17+5 17+5"),
        ("mnist", "2layer", "iwae", "B", "16+5 21+5 26+7"),
        ("omniglot-burda", "1layer", "iwae", "B", "28 34 41"),
        ("omniglot-burda", "2layer", "vae", "B", "28+4 30+5 30+5"),
        ("omniglot-burda", "2layer", "iwae", "B", "30+5 38+6 44+7"),
        ("mnist", "1layer", "iwae", "R", "21 23 25"),
        ("mnist", "2layer", "vae", "R", "21+8 22+8 21+10"),
        ("mnist", "2layer", "iwae", "R", "25+8 34+10 65+11"),
        ("omniglot-burda", "2layer", "iwae", "R", "92+9 99+10"),
    ],
)
def test_active_units_by_k(dataset, model, objective, source, expected):
    found = {}
    for result in load():
        cell = result.cell
        if (cell.dataset, cell.model, cell.objective, cell.start) == (dataset, model, objective, "") and (
            result.source == source and not cell.parameters
        ):
            found[cell.k] = "+".join(map(str, result.active))
    assert [found[k] for k in sorted(found)] == expected.split()


def test_the_report_s_changes_of_objective_say_how_long_they_went_on():
    """Table 10: units, PCA units and D_KL after 2,187 epochs more."""
    found = {
        (r.cell.title, r.cell.start): (r.active[0], r.pca_active[0], r.kl_posterior)
        for r in load()
        if r.cell.start and r.source == "R" and "2,187 epochs" in r.note
    }
    assert found == {
        ("VAE k = 50", "IWAE k = 50"): (24, 24, 5.10),
        ("VAE k = 1", "IWAE k = 50"): (24, 24, 5.36),
        ("IWAE k = 50", "VAE k = 50"): (19, 19, 12.70),
        ("IWAE k = 50", "VAE k = 1"): (23, 20, 12.17),
    }


def test_every_cell_is_one_that_can_be_trained_and_every_source_is_cited():
    for result in load():
        cell = result.cell
        assert cell.dataset in datasets.names() and cell.objective in (*OBJECTIVES, "piwae")
        assert ModelConfig.parse(cell.model).latent == ((50,) if cell.model == "1layer" else (100, 50))
    assert {result.source for result in load()} == set(SOURCES)
    assert SOURCES["B"].text.endswith("https://arxiv.org/abs/1509.00519")


def test_the_best_of_several_sources():
    iwae = Cell("mnist-fixed", "1layer", "iwae", 50)
    assert [result.source for result in lookup(iwae)] == ["R", "B", "P", "R", "N"]
    assert (best(iwae).nll, best(iwae).source) == (86.71, "N")
    stochastic = [best(Cell("mnist", model, "iwae", 50)) for model in ("1layer", "2layer")]
    assert [(result.nll, result.source) for result in stochastic] == [(84.32, "N"), (82.82, "N")]
    assert best(Cell("mnist", "1layer", "vae", 1)).nll == 86.08
    assert (best(iwae, "reconstruction").reconstruction, best(iwae, "reconstruction").source) == (78.36, "R")
    assert best(iwae, "active").active == (25,)
    assert best(Cell("digits", "1layer", "iwae", 50)) is None
    assert best(Cell("mnist", "1layer", "vae", 50), "reconstruction") is None
    assert best(Cell("omniglot", "1layer", "iwae", 50)) is None  # other scans than Burda's, and another split
    with pytest.raises(ValueError, match="unknown measure 'elbo'; there are nll"):
        best(iwae, "elbo")


def test_cells_that_are_the_same():
    """IWAE with one draw is VAE; a change of objective is always a cell of its own."""
    assert best(Cell("mnist-fixed", "2layer", "vae", 1)).nll == 86.75
    assert best(Cell("omniglot-burda", "1layer", "iwae", 50)).nll == 104.67
    assert best(Cell("mnist-fixed", "1layer", "iwae", 50, start="VAE k = 1")).nll == 88.70
    assert best(Cell("mnist-fixed", "1layer", "median", 50, start="VAE k = 1")) is None
    assert len(cells()) == len(set(cells())) == 55
    assert not any((cell.objective, cell.k) == ("iwae", 1) for cell in cells())
    assert published.lookup(Cell("mnist", "1layer", "power-mean", 50, (("p", 2.0),))) == ()
    assert best(Cell("mnist-fixed", "1layer", "power-mean", 50, (("p", 2.0),))).nll == 86.75
