"""A picture or a drawing → an image of any shape, as it is: fitted and padded, not prepared as MNIST's digits were."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from iwae.images.decoding import PictureError
from iwae.images.digits import Digit, Stage
from iwae.images.edits import Edit, boxed, erased, turned
from iwae.images.uploads import Array, to_float

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


def fitted(picture: Image.Image, shape: tuple[int, int], edit: Edit) -> Digit:
    """The picture, after an edit, in ``shape`` (rows, columns): its grey levels, scaled with the aspect kept, in the
    middle of its background, the median along its border. ``edit.dark_ink`` inverts it.

    Raises PictureError where an edge of the box lies outside the picture so far that nothing is left.
    """
    received = to_float(picture)
    seen = erased(received, edit.erased, bool(edit.dark_ink))
    if edit.box is not None:
        seen, within = boxed(seen, edit.turn, edit.box)
        if not within.any():
            raise PictureError("The box lies outside the picture: move it back.")
        seen = seen[np.ix_(within.any(axis=1), within.any(axis=0))]
    elif edit.turn:
        seen = turned(seen, edit.turn)
    grey = seen if seen.ndim == 2 else seen @ LUMA
    grey = (1 - grey if edit.dark_ink else grey).astype(np.float32)
    image = _fit(grey, shape)
    size = f"{shape[0]}×{shape[1]}"
    stages = (
        Stage("As received", f"Upright, {picture.width}×{picture.height} pixels.", received),
        Stage("Grey", "Its brightness" + (", inverted." if edit.dark_ink else "."), grey),
        Stage(size, f"Scaled to {size} pixels, its aspect kept, the rest its background: what the models see.", image),
    )
    return Digit(image, stages, bool(edit.dark_ink), None)


def drawn(pixels: Sequence[int] | np.ndarray, shape: tuple[int, int]) -> Digit:
    """A drawing in ``shape``, as it is: numbers 0..255, row by row, ink high.

    Raises PictureError where nothing was drawn or the numbers are not h·w in 0..255.
    """
    values = np.asarray(pixels, dtype=np.float64).ravel()
    height, width = shape
    if values.size != height * width or not ((values >= 0) & (values <= 255)).all():
        raise PictureError(
            f"A drawing is {height * width} numbers from 0 to 255 ({height}×{width} pixels); this is not."
        )
    if not values.any():
        raise PictureError("Nothing is drawn yet.")
    image = (values / 255).astype(np.float32).reshape(shape)
    caption = f"Your strokes, white on black, on {height}×{width} pixels: what the models see."
    return Digit(image, (Stage("As drawn", caption, image),), False, None)


def _fit(grey: Array, shape: tuple[int, int]) -> Array:
    factor = min(new / old for new, old in zip(shape, grey.shape, strict=True))
    height, width = (min(new, max(1, round(old * factor))) for new, old in zip(shape, grey.shape, strict=True))
    resample = Image.Resampling.BOX if factor < 1 else Image.Resampling.BILINEAR
    scaled = np.asarray(Image.fromarray(grey).resize((width, height), resample)).clip(0, 1)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    image = np.full(shape, np.median(border), dtype=np.float32)
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    image[top : top + height, left : left + width] = scaled
    return image
