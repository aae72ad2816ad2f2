"""The memory that a training step needs, estimated from its sizes before it starts, and the memory available.

The estimate counts the tensors that a step holds at its peak: weights with their gradients and Adam's moments, then for
each draw of each image the noise, the latent variables, and the activations that wait for the backward pass; of these,
``explicit`` holds some images' at a time. Tests hold the estimate between 0.6 and 2.5 times the measured peak.
"""

import math
from pathlib import Path

import psutil
import torch

from iwae.data import datasets
from iwae.evaluation.sampling import IMAGES
from iwae.model import Model
from iwae.system import cores
from iwae.training.config import TrainConfig
from iwae.training.explicit import KEPT_ROWS

NUMBER = 4  # bytes of a float32
BASE = 30_000_000  # bytes that any run needs
UNLIMITED = 2**60  # bytes; version 1 of the control groups writes "no limit" as a number near 2⁶³


class NotEnoughMemoryError(ValueError):
    """A training step that does not fit into memory; the message names the setting, the need and what is free."""


def check(config: TrainConfig, device: str | torch.device = "cpu", images: int | None = None, *, ever: bool = False):
    """Raise NotEnoughMemoryError where a training step needs more memory than is free on the device.

    Args:
        images: size of the training set, by default that of ``config.dataset``.
        ever: compare with all memory of the device, for a run that waits in the queue first.
    """
    device = torch.device(device)
    weights, draws = needed(config, device, images)
    free, total = available(device)
    there = total if ever else free
    if weights + draws <= there:
        return
    if weights > draws:
        what, less = f"model {config.model} has so many weights that a training step needs", "a smaller model"
    else:
        k = f"k = {config.k:,}"
        if factors := config.factors:
            k = f"{'·'.join(factors)} = {'·'.join(f'{value:,}' for value in factors.values())} = {config.k:,}"
        batch = min(config.batch_size, images or datasets.source(config.dataset).sizes[0])
        what, less = f"{k} draws for each of {batch:,} images need", "a smaller k or batch size"
    free = "" if ever else f" free of {_gb(total)}"
    raise NotEnoughMemoryError(
        f"{what} about {_gb(weights + draws)} of memory, and the device {device.type} has {_gb(there)}{free}: "
        f"choose {less}"
    )


def needed(config: TrainConfig, device: str | torch.device = "cpu", images: int | None = None) -> tuple[int, int]:
    """Bytes of a training step at its peak: (weights and what belongs to them, draws and what follows from them)."""
    on_cpu = torch.device(device).type == "cpu"
    with torch.device("meta"):  # sizes only
        model = Model(config.model_config, seed=None)
    sizes = model.config
    images = images or datasets.source(config.dataset).sizes[0]
    batch = min(config.batch_size, images)
    threads = torch.get_num_threads() if on_cpu else 1
    # weights, gradient, two moments, and copies on the way; one more gradient for each thread beyond the first
    copies = 7 + 2 * (threads - 1) + 2 * bool(config.ema) + bool(config.patience)
    weights = copies * sum(weight.numel() for weight in model.parameters())
    latent, hidden = sum(sizes.latent), sum(sizes.hidden[0])
    hidden += 3 * sum(math.prod(features) for features in sizes.feature_maps[1:])  # before and after the activation
    above = sum(map(sum, sizes.hidden[1:]))  # hidden units between stochastic layers, in the encoder or the decoder
    # logits, their products with x and their softplus; the fused likelihood of a CPU holds one number for each pixel
    fused = on_cpu and not sizes.convolutions and (sizes.likelihood, sizes.activation) == ("bernoulli", "tanh")
    pixels = sizes.pixels if fused else 4 * sizes.pixels * model.likelihood.per_pixel
    forward = 5 * latent + 0.75 * above + (0 if fused else pixels + hidden)  # numbers for each draw that stays

    def backward(draws: int) -> float:
        waiting = min(batch * draws, threads * max(KEPT_ROWS, draws)) if fused else batch * draws
        return waiting * (pixels + hidden) + batch * draws * (7 * latent + 4.5 * above)

    def of(k: int, resample: int) -> float:
        return batch * k * forward + backward(resample) if resample else backward(k)

    step = max(of(config.k, config.resample), of(config.warm_k, 0) if config.warm_k else 0.0)
    images_once = batch * (3 * sizes.pixels + 4 * hidden)  # x, as uint8 and as seen, and the first layer's encoder
    validation = 4 * IMAGES * config.k * threads  # log-weights
    return NUMBER * weights, BASE + round(NUMBER * (step + images_once + validation))


def available(device: str | torch.device = "cpu") -> tuple[int, int]:
    """(free, all) bytes of memory on the device, as far as the control groups of this process allow it."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    memory = psutil.virtual_memory()
    limits = [limit for folder in cores.control_groups("memory") if (limit := _limit(folder))]
    return min([memory.available, *(free for free, _ in limits)]), min([memory.total, *(total for _, total in limits)])


def _limit(folder: Path) -> tuple[int, int] | None:
    """(free, all) bytes of a control group; None where it has no limit. The kernel gives pages of files back first.

    Source: the Linux kernel's documentation of cgroup-v2 (``memory.max``) and of the v1 memory controller.
    """
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            total, usage = (int((folder / name).read_text(encoding="ascii")) for name in (limit, used))
            lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):  # not this version, or "max"
            continue
        pages = next((int(line.split()[1]) for line in lines if line.split()[0] == cache), 0)
        return (max(total - usage + pages, 0), total) if total < UNLIMITED else None
    return None


def _gb(size: float) -> str:
    digits = max(0, 1 - math.floor(math.log10(max(size, 1) / 1e9)))  # two of them, or all before the point
    return f"{size / 1e9:,.{min(digits, 2)}f} GB"
