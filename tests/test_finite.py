"""The terms of training steps are checked on the device, and the first that is not finite is named."""

import math

import torch

from iwae.kernels.finite import NonFiniteMonitor

GOOD = torch.tensor([1.0, -2.0])


def test_the_first_non_finite_term_is_named_with_the_steps_before_it():
    monitor = NonFiniteMonitor(torch.device("cpu"))
    for _ in range(3):
        monitor.observe(NonFiniteMonitor.non_finite(GOOD, GOOD, GOOD, GOOD, GOOD))
    assert monitor.report() == (None, 3) and not monitor.diverged
    monitor.observe(NonFiniteMonitor.non_finite(GOOD, GOOD, GOOD, GOOD, GOOD))
    monitor.observe(NonFiniteMonitor.non_finite(GOOD, GOOD, torch.tensor([0.0, math.inf]), GOOD, GOOD))
    assert monitor.diverged == 1
    monitor.observe(
        NonFiniteMonitor.non_finite(torch.tensor([math.nan, 0.0]), GOOD, GOOD, GOOD, GOOD)
    )  # a consequence, not the cause
    monitor.observe(NonFiniteMonitor.non_finite(GOOD, GOOD, GOOD, GOOD, GOOD))
    assert monitor.diverged == 1
    assert monitor.report() == ("log q(h|x)", 1)


def test_the_optimizer_leaves_the_weights_of_a_step_that_diverged():
    """And its step count, so that the next update is as if that step had not been."""
    monitor, weight = NonFiniteMonitor(torch.device("cpu")), torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    optimizer.found_inf = monitor.diverged
    weight.grad = torch.ones(3)
    optimizer.step()
    before = weight.detach().clone()
    monitor.observe(NonFiniteMonitor.non_finite(GOOD, GOOD, GOOD, GOOD, torch.tensor([math.nan])))
    weight.grad = torch.full((3,), math.nan)
    optimizer.step()
    assert torch.equal(weight, before)
    state = optimizer.state[weight]
    assert state["step"] == 1 and state["exp_avg"].isfinite().all()
