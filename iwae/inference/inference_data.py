"""A posterior in ArviZ's format, whichever version of ArviZ this Python has."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from iwae.model import LatentModel
from iwae.system import optional

if TYPE_CHECKING:
    from iwae.inference.posterior import Posterior


def inference_data(drawn: "Posterior", model: LatentModel | None, draws: int | None, weighted: bool, seed: int) -> Any:
    """``Posterior.to_inference_data``, which describes it."""
    optional.require("ArviZ's format", "arviz")
    if draws is not None and (weighted or draws < 1):
        raise ValueError(
            "weighted=True gives all draws: leave draws out" if weighted else f"draws must be at least 1, not {draws}"
        )
    count = drawn.samples if draws is None else draws
    chosen = torch.arange(count) if weighted else drawn.resample(count, seed)
    tensors = {
        "posterior": {f"h{layer}": h[chosen] for layer, h in enumerate(drawn.h, 1)},
        "sample_stats": {"draw_of_q": chosen} | ({"log_weight": drawn.weights.log()} if weighted else {}),
        "log_likelihood": {"x": drawn.log_px[chosen, None]},
        "observed_data": {"x": drawn.x},
    } | ({} if model is None else {"prior": _prior(model, count, seed)})
    groups = {group: {name: values.numpy()[None] for name, values in part.items()} for group, part in tensors.items()}
    made = _build(groups, {name: [f"{name}_unit"] for name in groups["posterior"]} | {"x": ["image"]})
    about = {"samples": drawn.samples, "seed": drawn.seed, "log_p": drawn.log_p, "units": "nats"}
    made["posterior"].attrs.update(about)
    return made


def _build(groups: dict[str, dict[str, Any]], dims: dict[str, list[str]]) -> Any:
    """Arrays by group and name, [chain = 1, draw, …] or of one image [1, pixels] → ArviZ's object."""
    import arviz

    from_dict: Any = arviz.from_dict
    if int(version("arviz").partition(".")[0]) < 1:
        return from_dict(**groups, dims=dims)
    return from_dict(groups, dims=dims)


@torch.no_grad()
def _prior(model: LatentModel, count: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator(model.device).manual_seed(seed)
    top = torch.randn(count, model.config.latent[-1], generator=generator, device=model.device)
    return {f"h{layer}": h.cpu() for layer, h in enumerate(model.ancestral_layers(top, generator), 1)}
