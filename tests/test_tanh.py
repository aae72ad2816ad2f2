import pytest
import torch

from iwae.kernels.layers import Tanh


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_are_tanhs(dtype):
    """To the rounding of a number near 1, from where tanh is its argument to where it is 1; the argument is kept."""
    z = torch.cat([torch.linspace(-9, 9, 1001, dtype=dtype), torch.tensor([-1e4, -1e-9, 0, 1e-9, 1e4], dtype=dtype)])
    z.requires_grad_()
    before, g_out = z.detach().clone(), torch.rand(len(z), dtype=dtype, generator=torch.Generator().manual_seed(0))
    for ours, reference in zip(
        (Tanh()(z), *torch.autograd.grad(Tanh()(z), z, g_out)),
        (z.tanh(), *torch.autograd.grad(z.tanh(), z, g_out)),
        strict=True,
    ):
        torch.testing.assert_close(ours, reference, rtol=0, atol=4 * torch.finfo(dtype).eps)
    assert torch.equal(z, before)


def test_an_exported_program_has_tanh_itself():
    program = torch.export.export(Tanh(), (torch.zeros(3),))
    assert [node.target for node in program.graph.nodes if node.op == "call_function"] == [torch.ops.aten.tanh.default]
