"""AdamW on all weights of a model at once. Loshchilov & Hutter 2019."""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from iwae.model import Model
from iwae.training.config import TrainConfig

PARTS = 28  # of the weights on a GPU, where the fused AdamW gives a part of up to 65,536 to one multiprocessor of many


class FlatAdamW:
    """The weights of a model as one tensor, ``flat`` [weights], of which the model's own become views: for the fused
    AdamW a few tensors, not many. Matrices come first; only they decay (a bias says how often a pixel is on).

    A step is skipped, moments and all, where the tensor ``diverged`` is 1.
    """

    def __init__(self, model: Model, config: TrainConfig, diverged: Tensor):
        self.weights = matrices_first(model)
        self.flat = parameters_to_vector(self.weights).detach()
        vector_to_parameters(self.flat, self.weights)
        self.gradient: Tensor | None = None  # of the last step, [weights]
        self.on_gpu = self.flat.device.type == "cuda"
        cut = sum(weight.numel() for weight in self.weights if weight.ndim > 1)
        matrices, biases = self.flat.tensor_split([cut])
        size = 4 * math.ceil(cut / (4 * PARTS)) if self.on_gpu else cut  # a GPU reads four numbers at once
        self.parts = [nn.Parameter(part) for part in (*matrices.split(size), biases)]
        rate = config.learning_rate
        self.adamw = torch.optim.AdamW(
            [{"params": self.parts[:-1], "weight_decay": config.weight_decay}, {"params": self.parts[-1:]}],
            lr=torch.tensor(rate, device=self.flat.device) if self.on_gpu else rate,  # a CUDA graph reads the tensor
            eps=config.adam_eps,
            weight_decay=0.0,
            fused=True,
            capturable=self.on_gpu,
        )
        self.adamw.found_inf = diverged  # pyright: ignore[reportAttributeAccessIssue]

    def step(self, gradient: Tensor, learning_rate: float | Tensor) -> None:
        """One step down the ``gradient`` [weights]."""
        self.gradient = gradient
        for part, own in zip(self.parts, gradient.split([len(part) for part in self.parts]), strict=True):
            part.grad = own
        for group in self.adamw.param_groups:
            if not self.on_gpu:
                group["lr"] = learning_rate
            elif isinstance(learning_rate, Tensor):
                group["lr"].copy_(learning_rate)
            else:
                group["lr"].fill_(learning_rate)
        self.adamw.step()

    def state(self) -> dict[str, Tensor]:
        """The moments and the number of steps of each part, by the names in a saved run."""
        return {
            f"{name}.{key}": value
            for name, part in zip(self._names(), self.parts, strict=True)
            for key, value in self.adamw.state.get(part, {}).items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Continue from ``state``, which may lie among other tensors."""
        saved = {index: named(tensors, name) for index, name in enumerate(self._names())}
        self.adamw.load_state_dict(self.adamw.state_dict() | {"state": saved if saved[0] else {}})

    def _names(self) -> list[str]:
        more = [f"adam of matrices, part {number}" for number in range(2, len(self.parts))]
        return ["adam of matrices", *more, "adam of biases"]


def matrices_first(model: Model) -> list[nn.Parameter]:
    """The weights of a model in the order of ``FlatAdamW.flat``."""
    return sorted(model.parameters(), key=lambda weight: weight.ndim < 2)


def named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name begins with ``prefix.``, without it."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
