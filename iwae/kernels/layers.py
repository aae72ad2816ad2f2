"""The layers that the fast paths are written for, and whether a module is exactly one of them.

Users may put their own module into a model. Nothing is assumed about it then: the plain formula is used.
"""

from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from iwae.kernels import precision

PRECISIONS = (torch.float32, torch.float64)  # of weights; in half precision a product of 16 probabilities underflows
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class Tanh(nn.Module):
    """tanh(z) = 2σ(2z) − 1: on a CPU, PyTorch's σ costs a third of its tanh. On other devices and in exported programs
    it is ``torch.tanh``."""

    def forward(self, z: Tensor) -> Tensor:
        if z.device.type != "cpu" or torch.compiler.is_exporting():
            return z.tanh()
        return _Tanh.apply(z)


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        value = (2 * z).sigmoid_().mul_(2).sub_(1)
        ctx.save_for_backward(value)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, g_out):
        return torch.ops.aten.tanh_backward(g_out, ctx.saved_tensors[0])


ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": Tanh, "relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


def hidden_layers(inputs: int, sizes: tuple[int, ...], activation: str = "tanh") -> nn.Sequential:
    """Linear → activation for each size."""
    layers = []
    for outputs in sizes:
        layers += [precision.Linear(inputs, outputs), ACTIVATIONS[activation]()]
        inputs = outputs
    return nn.Sequential(*layers)


Kind = TypeVar("Kind", bound=nn.Module)


def unchanged(module: nn.Module, kind: type[Kind]) -> TypeGuard[Kind]:
    """Whether the module behaves as this class does: not a subclass, with neither its own forward nor hooks."""
    own = vars(module)
    return type(module) is kind and "forward" not in own and not any(own[name] for name in HOOKS)


def are_standard(hidden: nn.Module, *outputs: nn.Module) -> bool:
    """Whether ``hidden`` is as ``hidden_layers`` makes it with tanh, and the ``outputs`` are our own Linear layers."""
    if not unchanged(hidden, nn.Sequential):
        return False
    layers = list(hidden)  # a slice of nn.Sequential would be a new one
    linears, tanhs = layers[0::2], layers[1::2]
    return (
        len(linears) == len(tanhs) > 0
        and all(unchanged(layer, Tanh) for layer in tanhs)
        and all(unchanged(layer, precision.Linear) for layer in [*linears, *outputs])
        and all(layer.bias is not None and layer.weight.dtype in PRECISIONS for layer in [*linears, *outputs])
    )


def as_function(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """``module(x)``, a tuple of tensors, as a function of x alone: no gradient reaches the module's weights."""
    if not torch.is_grad_enabled():
        return module(x)
    return _OfInput.apply(x, module)


class _OfInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, module):
        with torch.enable_grad():
            ctx.given = x.detach().requires_grad_()
            ctx.found = module(ctx.given)
        return tuple(tensor.detach() for tensor in ctx.found)

    @staticmethod
    @once_differentiable
    def backward(ctx, *g_out):
        found, g_found = zip(*((y, g) for y, g in zip(ctx.found, g_out, strict=True) if y.requires_grad), strict=True)
        (g_x,) = torch.autograd.grad(found, ctx.given, g_found, retain_graph=True, allow_unused=True)
        return g_x, None
