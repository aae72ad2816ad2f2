"""Uploaded pictures: a file's bytes, an image or an array become pixels, or an error of one sentence."""

import json
import signal
import subprocess
import threading
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iwae.images.decoding import FORMATS, MAX_BYTES, MODES, SECONDS, WORK_SIDE, PictureError, load
from iwae.system import launcher
from iwae.system.files import printable

Array = NDArray[np.floating]  # float32

BLANK = "The picture is blank: nothing stands out from the paper, and one digit should."
PROCESSES = 2  # that decode at once; others wait
PATIENCE = 20.0  # seconds that an answer may take on a busy machine; processor time is limited separately

_free = threading.BoundedSemaphore(PROCESSES)
_idle: list[subprocess.Popen] = []


def read_picture(data: bytes, *, name: str = "") -> Image.Image:
    """Decode an uploaded picture: upright, and reduced to `WORK_SIDE` px where it is larger.

    The content decides, not the suffix of `name`. The decoder runs in a separate process with limits on memory
    and processor time (`decoding.py`). Raises PictureError where the bytes are none of `FORMATS`, damaged, more than
    `MAX_BYTES`, too many pixels, or too costly to decode.
    """
    label = f"“{printable(name)}”" if name else "The file"
    allowed = f"{', '.join(FORMATS)} of at most {MAX_BYTES // 2**20} MB are allowed"
    if not data:
        raise PictureError(f"{label} is empty (0 bytes): {allowed}.")
    if len(data) > MAX_BYTES:
        raise PictureError(f"{label} is too large ({len(data) / 2**20:.1f} MB): {allowed}.")
    with _free:
        process = _idle.pop() if _idle else None
        if process is None or process.poll() is not None:
            process = _start()
        answer, pixels = _ask(process, data)
        if process.poll() is None:
            _idle.append(process)
    if "error" in answer:
        raise PictureError(f"{label} {answer['error']}")
    return Image.frombytes(answer["mode"], answer["size"], pixels)


def _start() -> subprocess.Popen:
    return subprocess.Popen(
        launcher.command("iwae.images.decoding"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _ask(process: subprocess.Popen, data: bytes) -> tuple[dict, bytes]:
    """The process's answer to the bytes of a file: its line, checked, and the pixels. One that misbehaves is ended."""
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None and stdout is not None  # pipes, of `_start`
    watch = threading.Timer(PATIENCE, process.kill)
    watch.start()
    try:
        stdin.write(len(data).to_bytes(8, "big"))
        stdin.write(data)
        stdin.flush()
        answer = json.loads(stdout.readline(2000))
        if "error" in answer:
            if "last" in answer:
                process.wait()
            return {"error": str(answer["error"])}, b""
        (width, height), mode = answer["size"], answer["mode"]
        if mode in MODES and 0 < width <= WORK_SIDE and 0 < height <= WORK_SIDE:
            count = width * height * len(Image.new(mode, (1, 1)).tobytes())
            pixels = stdout.read(count)
            if answer["bytes"] == len(pixels) == count:
                return {"mode": mode, "size": (width, height)}, pixels
        raise ValueError(answer)
    except (OSError, ValueError, KeyError, TypeError):  # it has ended, or its answer is not valid
        process.kill()
        for pipe in (stdin, stdout):
            with suppress(OSError):
                pipe.close()
        slow = process.wait() == -getattr(signal, "SIGPROF", 0)
        why = f"takes more than {SECONDS:g} s to decode" if slow else "cannot be decoded safely"
        return {"error": f"{why}: save it again as a plain PNG or JPEG."}, b""
    finally:
        watch.cancel()


def decode_picture(picture: bytes | Image.Image | np.ndarray, name: str = "") -> Image.Image:
    """The picture, upright and of at most `WORK_SIDE` px, its mode kept. Raises PictureError."""
    if isinstance(picture, bytes):
        return read_picture(picture, name=name)
    return load(picture if isinstance(picture, Image.Image) else _from_array(picture))


def _from_array(values: np.ndarray) -> Image.Image:
    shaped = values.size and (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4)))
    unit = values.dtype == bool or np.issubdtype(values.dtype, np.floating)
    if not shaped or not (((values >= 0) & (values <= 1)).all() if unit else values.dtype == np.uint8):
        raise PictureError(
            f"An array of {values.dtype} {list(values.shape)} is not a picture, or its values are out of range: "
            "[h, w], [h, w, 3] or [h, w, 4] of bool, uint8 or float in 0..1 is."
        )
    return Image.fromarray(np.rint(values * 255.0).astype(np.uint8) if unit else values)


def to_float(image: Image.Image) -> Array:
    """Any mode → [h, w] or [h, w, 3] in 0..1, transparency laid over a paper that shows the ink."""
    if image.mode in ("I", "F"):  # 16 bits and more have no fixed white: 12-bit scans come in 16-bit files
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise PictureError("The picture holds values that are not finite numbers (NaN or infinity).")
        values = values - min(values.min(), 0)
        return (values / (values.max() or 1)).astype(np.float32)
    if not image.has_transparency_data:
        return np.asarray(image.convert("L" if image.mode == "L" else "RGB"), dtype=np.float32) / 255
    rgba = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    return colour * alpha + _backdrop(colour, alpha[..., 0]) * (1 - alpha)


def _backdrop(colour: Array, alpha: Array) -> Array:
    """What to lay a transparent picture on: its own paper, if it brings one, else what contrasts its ink."""
    solid = colour[alpha > 0.5]
    if not len(solid):
        raise PictureError(BLANK)
    level = solid.mean(axis=1)
    if alpha.mean() > 0.5 and level.std() > 0.05:
        return np.median(solid, axis=0)
    return np.full(3, level.mean() < 0.5, dtype=np.float32)
