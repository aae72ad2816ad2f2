"""Pictures as people upload them."""

import io

from PIL import Image, ImageOps

from iwae.data import datasets


def picture(number: int) -> bytes:
    """A scan of one of the digits of mnist-5k: dark on light, 400 × 400 pixels, PNG."""
    images = datasets.load("mnist-5k").test.images
    grey = images[number % len(images)].reshape(28, 28).numpy()
    scan = ImageOps.invert(Image.fromarray(grey)).resize((400, 400), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    scan.save(file, "PNG")
    return file.getvalue()
