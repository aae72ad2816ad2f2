"""Images as a model takes them, checked once at every public entry: a wrong x is a ValueError, never a number."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from iwae.shapes import shape_text

EASY = (torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def binary_images(x: Any, shape: tuple[int, int], like: Tensor, count: int | None = None) -> Tensor:
    """Images of zeros and ones as [n, pixels], with the device and dtype of ``like``.

    Args:
        x: a numpy array or torch tensor of any real dtype, [n, pixels], [n, h, w] or [n, 1, h, w]. [pixels] and [h, w]
            are one image, n = 1.
        shape: of an image: rows h, columns w.
        count: how many images there must be; None for one or more.

    Raises ValueError, with what was found and what is allowed, for any other type, shape, number of images or value.
    """
    images = _images(x, shape, count)
    _check(
        images,
        (images == 0) | (images == 1),
        "an image consists of zeros and ones",
        "Grey levels have to be binarized first, by a threshold or by iwae.data.datasets.binarize (uint8, 0 to 255)",
    )
    return images.to(like.device, like.dtype).contiguous()


def grey_images(
    x: Any, shape: tuple[int, int], like: Tensor, count: int | None = None, levels: int | None = None
) -> Tensor:
    """Images of grey levels in [0, 1], for ``levels`` only of the multiples of 1/(levels − 1); else as
    ``binary_images``."""
    images = _images(x, shape, count)
    inside = (images >= 0) & (images <= 1)
    _check(images, inside, "an image consists of grey levels from 0 to 1", "Divide levels from 0 to 255 by 255")
    if levels:
        scaled = images.double() * (levels - 1)
        nearest = scaled.round()
        remedy = f"Round to the nearest first: (x * {levels - 1}).round() / {levels - 1}"
        rule = f"an image consists of the {levels} grey levels 0, 1/{levels - 1}, …, 1"
        _check(images, (scaled - nearest).abs() < 0.01, rule, remedy)
        images = nearest / (levels - 1)
    return images.to(like.device, like.dtype).contiguous()


def real_images(x: Any, shape: tuple[int, int], like: Tensor, count: int | None = None) -> Tensor:
    """Images of finite real numbers, in whole numbers only of 0 and 1; else as ``binary_images``."""
    images = _images(x, shape, count)
    _check(images, images.isfinite(), "an image consists of finite numbers", "Remove or replace the others")
    if not images.dtype.is_floating_point:
        rule, remedy = "whole numbers in an image can only be 0 and 1", "Divide levels from 0 to 255 by 255"
        _check(images, (images == 0) | (images == 1), rule, remedy)
    return images.to(like.device, like.dtype).contiguous()


def _images(x: Any, shape: tuple[int, int], count: int | None) -> Tensor:
    """x as a tensor [n, pixels], of any values."""
    images = _of_shape(_tensor(x), shape)
    if not len(images):
        raise ValueError(f"there is no image: x has the shape {list(x.shape)}")
    if count not in (None, len(images)):
        raise ValueError(
            f"x must hold {count} image{'s' * (count > 1)}, not {len(images)}: its shape is {list(x.shape)}"
        )
    return images


def _check(images: Tensor, allowed: Tensor, rule: str, remedy: str) -> None:
    """Raise ValueError where a pixel is not ``allowed`` [n, pixels]."""
    if allowed.all():
        return
    image, pixel = (~allowed).nonzero()[0].tolist()
    raise ValueError(
        f"{rule}, but {(~allowed).sum():,} of the {images.numel():,} pixels are something else: "
        f"pixel {pixel} of image {image} is {images[image, pixel].item():g}. {remedy}"
    )


def _tensor(x: Any) -> Tensor:
    """x as a tensor that can be compared with 0 and 1; its dtype may be wider than before."""
    if isinstance(x, np.ndarray) and not np.ma.isMaskedArray(x) and x.dtype.kind in "biuf":
        easy = x.dtype in (np.bool_, np.uint8, np.float32)
        return torch.tensor(np.ascontiguousarray(x if easy else x.astype(np.float64)))
    if isinstance(x, Tensor) and x.layout == torch.strided and not (x.is_complex() or x.is_quantized):
        return x if x.dtype in EASY else x.double()
    found = f"a {type(x).__name__}" + (f" of {x.dtype}" if hasattr(x, "dtype") else "")
    raise ValueError(f"images are a dense numpy array or torch tensor of real numbers or booleans, not {found}")


def _of_shape(x: Tensor, shape: tuple[int, int]) -> Tensor:
    """x as [n, pixels]."""
    height, width = shape
    pixels = height * width
    one = [(pixels,), shape]
    if x.shape in one:
        return x.reshape(1, pixels)
    if x.ndim > 1 and x.shape[1:] in [*one, (1, *shape)]:
        return x.reshape(len(x), pixels)
    raise ValueError(
        f"x has the shape {list(x.shape)}; this model's images have {shape_text(shape)} pixels, so x must be "
        f"[n, {pixels}], [n, {height}, {width}], [n, 1, {height}, {width}], or for one image [{pixels}] or "
        f"[{height}, {width}]"
    )
