"""What is said of log p(x) of one digit: an interval where it holds, else a lower bound in words."""

import math

import pytest
import torch

from iwae.inference.ais import Annealed
from iwae.inference.posterior import Posterior
from pages.common.evidence import comparison, from_chains, from_draws, missed_a_mode, of_q_alone, one_line


def draws(log_w) -> Posterior:
    zeros = torch.zeros(len(log_w))
    return Posterior(zeros, zeros, zeros, (zeros[:, None],), zeros, torch.tensor(log_w), 0)


def chains(log_p: float, scatter: float) -> Annealed:
    """32 chains whose log-weights lie at two places, ``scatter`` apart on average, and whose log p̂ is log_p."""
    log_w = torch.tensor([-scatter, scatter] * 16, dtype=torch.float64)[:, None]
    log_w = log_w - log_w.logsumexp(0) + math.log(32) + log_p
    return Annealed(log_w, (torch.zeros(32, 1, 2),), torch.ones(1), "encoder", 10, 0)


EVEN = draws([-80.0, -80.5] * 500)
FEW = draws([-80.0] + [-120.0] * 999)


def test_draws_have_an_error_where_k_hat_allows_it():
    value, rests_on = from_draws(EVEN)
    assert (value, rests_on) == ("−80.22", "± 0.01 standard error") and one_line(EVEN) == "−80.22\u00a0±\u00a00.01"


def test_draws_have_none_where_one_decides():
    assert from_draws(FEW) == ("≥\u00a0−86.91", "at least; 1 draw decides")
    assert one_line(FEW) == "at least\u00a0−86.91 (1 draw decides)"


def test_chains_have_an_interval():
    """Two places 0.4 apart: t of 31 degrees is 2.04."""
    found = chains(-86.0, 0.2)
    half = 2.0395 * found.error.item()
    assert found.log_p.item() == pytest.approx(-86.0)
    low, high = (f"{end:.2f}".replace("-", "−") for end in (-86 - half, -86 + half))
    assert from_chains(found, FEW) == ("−86.00", f"95%: {low} to {high}")
    assert of_q_alone(found, FEW) == "1,000 draws of q alone: at least\u00a0−86.91 (1 draw decides)."


def test_chains_that_scatter_have_none():
    assert from_chains(chains(-86.0, 1.5), FEW) == ("≥\u00a0−86.00", "at least; the chains scatter by 1.5 nats")


def test_the_larger_of_two_bounds_is_shown():
    """Draws of q a nat above the chains may be luck; several nats above them show what the chains missed."""
    lucky, lost = chains(-88.0, 0.2), chains(-91.0, 0.2)
    assert not missed_a_mode(lucky, FEW) and from_chains(lucky, FEW)[0] == "−88.00"
    assert of_q_alone(lucky, FEW).endswith("may lie too high by luck.")
    assert missed_a_mode(lost, FEW)
    assert from_chains(lost, FEW) == ("≥\u00a0−86.91", "at least; annealing missed a mode (−91.00)")


def test_two_models_are_compared_in_words():
    a = chains(-86.0, 0.2)
    half = a.log_p.item() - a.interval(0.95)[0].item()
    assert comparison(a, chains(-86.0 + 1.9 * half, 0.2)).startswith("**Too close to call**: log p̂(x) differs by 0.")
    apart = comparison(a, chains(-85.0, 0.2))
    assert apart == "**B finds this digit more probable**, by 1.00 nats; the 95% intervals do not overlap."
    assert comparison(chains(-85.0, 0.2), a).startswith("**A finds")
    for unsure in (comparison(a, chains(-80.0, 1.5)), comparison(a, chains(-80.0, 0.2), missed=True)):
        assert "does not compare the models" in unsure


def test_home_and_posterior_say_the_same_of_a_digit(app):
    told = [
        [(one.label, one.value) for one in app(page, image=7).metric] for page in ("home.py", "pages/1_Posterior.py")
    ]
    assert told[0] == told[1] and len(told[0]) == 4
