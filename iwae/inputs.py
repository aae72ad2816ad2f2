"""Images as a model takes them, checked once at every public entry: a wrong x is a ValueError, never a number."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

EASY = (torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def binary_images(x: Any, pixels: int, like: Tensor, count: int | None = None) -> Tensor:
    """Images of zeros and ones as [n, pixels], with the device and dtype of ``like``.

    Args:
        x: a numpy array or torch tensor of any real dtype, [n, pixels], or where the number of pixels is a square,
            [n, side, side] or [n, 1, side, side]. [pixels] and [side, side] are one image, n = 1.
        count: how many images there must be; None for one or more.

    Raises ValueError, with what was found and what is allowed, for any other type, shape, number of images or value.
    """
    images = _of_shape(_tensor(x), pixels)
    if not len(images):
        raise ValueError(f"there is no image: x has the shape {list(x.shape)}")
    if count not in (None, len(images)):
        raise ValueError(
            f"x must hold {count} image{'s' * (count > 1)}, not {len(images)}: its shape is {list(x.shape)}"
        )
    wrong = ~((images == 0) | (images == 1))
    if wrong.any():
        image, pixel = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"an image consists of zeros and ones, but {wrong.sum():,} of the {images.numel():,} pixels are neither: "
            f"pixel {pixel} of image {image} is {images[image, pixel].item():g}. Grey levels have to be binarized "
            "first, by a threshold or by iwae.data.datasets.binarize (uint8, 0 to 255)"
        )
    return images.to(like.device, like.dtype).contiguous()


def _tensor(x: Any) -> Tensor:
    """x as a tensor that can be compared with 0 and 1; its dtype may be wider than before."""
    if isinstance(x, np.ndarray) and not np.ma.isMaskedArray(x) and x.dtype.kind in "biuf":
        easy = x.dtype in (np.bool_, np.uint8, np.float32)
        return torch.tensor(np.ascontiguousarray(x if easy else x.astype(np.float64)))
    if isinstance(x, Tensor) and x.layout == torch.strided and not (x.is_complex() or x.is_quantized):
        return x if x.dtype in EASY else x.double()
    found = f"a {type(x).__name__}" + (f" of {x.dtype}" if hasattr(x, "dtype") else "")
    raise ValueError(f"images are a dense numpy array or torch tensor of real numbers or booleans, not {found}")


def _of_shape(x: Tensor, pixels: int) -> Tensor:
    """x as [n, pixels]."""
    side = math.isqrt(pixels)
    one, many = [(pixels,)], ["n, " + str(pixels)]
    if side * side == pixels:
        one, many = [*one, (side, side)], [*many, f"n, {side}, {side}", f"n, 1, {side}, {side}"]
    if x.shape in one:
        return x.reshape(1, pixels)
    if x.ndim > 1 and x.shape[1:] in [*one, (1, side, side)]:
        return x.reshape(len(x), pixels)
    allowed = ", ".join(f"[{shape}]" for shape in many)
    single = " or ".join(str(list(shape)) for shape in one)
    raise ValueError(
        f"x has the shape {list(x.shape)}; this model's images have {pixels} pixels, so x must be {allowed}, "
        f"or for one image {single}"
    )
