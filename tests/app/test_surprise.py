"""How surprising the digit in hand is: the page's share against the −L_S of the test images themselves."""

import re

import pytest
import torch

from iwae import catalog
from iwae.checkpoints import load
from iwae.data import datasets
from iwae.evaluation import metrics
from pages.common.input import digit
from tests.app.test_digit import PAIR, words

WARNING = "This may not be a digit"


def told(test) -> list[int]:
    return [int(share) for share in re.findall(r"More surprising than (\d+)% of test digits", words(test))]


def test_the_share_of_a_digit_and_a_warning_for_what_is_none(app):
    x = datasets.load("digits").binary("test")
    test = app("pages/1_Posterior.py", image=17, samples=6000, **PAIR)
    shares = told(test)
    for key, share in zip((PAIR["a"], PAIR["b"]), shares, strict=True):
        nll = -metrics.log_evidence(load(catalog.entries()[0][key].path)[0], x, samples=500)
        assert 100 * (nll < nll[17]).double().mean().item() == pytest.approx(share, abs=3)  # both are random
    assert WARNING not in words(test)
    few = app("pages/1_Posterior.py", image=17, samples=300, **PAIR)
    assert not told(few) and words(few).count("is known from 5,000 draws on") == 2
    noise = (torch.rand(784, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    test = app("home.py", x=digit.pack(noise, (28, 28)), **PAIR)
    assert words(test).count("More surprising than all 300 test digits") == 2 and WARNING in words(test)
