"""The terms of training steps are judged on the device, and the first bad one is named."""

import math

import torch

from iwae.kernels.finite import Health

GOOD = torch.tensor([1.0, -2.0])


def test_the_first_broken_term_is_named_with_the_steps_before_it():
    health = Health(torch.device("cpu"))
    for _ in range(3):
        health.examine(Health.wrong(GOOD, GOOD, GOOD, GOOD, GOOD))
    assert health.report() == (None, 3) and not health.ill
    health.examine(Health.wrong(GOOD, GOOD, GOOD, GOOD, GOOD))
    health.examine(Health.wrong(GOOD, GOOD, torch.tensor([0.0, math.inf]), GOOD, GOOD))
    assert health.ill == 1
    health.examine(Health.wrong(torch.tensor([math.nan, 0.0]), GOOD, GOOD, GOOD, GOOD))  # a consequence, not the cause
    health.examine(Health.wrong(GOOD, GOOD, GOOD, GOOD, GOOD))
    assert health.ill == 1
    assert health.report() == ("log q(h|x)", 1)


def test_the_optimiser_leaves_the_weights_of_an_ill_step():
    """And its step count, so that the next update is as if the ill step had not been."""
    health, weight = Health(torch.device("cpu")), torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.AdamW([weight], lr=0.1, fused=True)
    optimiser.found_inf = health.ill
    weight.grad = torch.ones(3)
    optimiser.step()
    before = weight.detach().clone()
    health.examine(Health.wrong(GOOD, GOOD, GOOD, GOOD, torch.tensor([math.nan])))
    weight.grad = torch.full((3,), math.nan)
    optimiser.step()
    assert torch.equal(weight, before)
    state = optimiser.state[weight]
    assert state["step"] == 1 and state["exp_avg"].isfinite().all()
