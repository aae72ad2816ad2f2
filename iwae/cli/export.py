"""``python -m iwae export``."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from iwae import __version__, checkpoints, cli
from iwae.export import model_card, programs
from iwae.system import files, hub


@dataclass(frozen=True)
class ExportCommand:
    """Make a folder of a trained model that other programs and the Hugging Face Hub can take.

    It holds the encoder (x → mean and log standard deviation of every stochastic layer) and the decoder (the top
    layer's h → logits and probabilities of the pixels), the checkpoint as model.safetensors, its card as config.json,
    and its model card as README.md. The batch may have any size; with more than one layer, those above the first are
    seen along the means. What is pushed can be loaded by iwae.load("hf://USER/MODEL").

    Examples:
      python -m iwae export checkpoints/mnist-1layer-iwae-k50.safetensors --out exported
      python -m iwae export model.safetensors --out exported --format onnx torch
      python -m iwae export model.safetensors --push me/my-iwae
    """

    checkpoint: Positional[Path]  # a .safetensors file that train has written
    out: Path | None = None  # the folder to make, new or empty
    push: str | None = None  # USER/MODEL on the Hub, to upload the files to; made, and public, if it does not exist
    format: tuple[Literal["onnx", "torch"], ...] = ("onnx",)  # ONNX, a torch.export program (.pt2), or both

    def run(self) -> int:
        if not self.checkpoint.is_file():
            raise cli.UsageError(f"there is no file {self.checkpoint}")
        if self.out is None and self.push is None:
            raise cli.UsageError("name a folder with --out, a model on the Hub with --push, or both")
        if (
            self.out
            and os.path.lexists(self.out)
            and (not self.out.is_dir() or self.out.is_symlink() or any(self.out.iterdir()))
        ):
            raise cli.UsageError(f"--out must name a new or an empty folder, not {self.out}")
        cli.check_folder("--out", self.out)
        if not self.format:
            raise cli.UsageError(f"--format needs at least one of {', '.join(programs.FORMATS)}")
        if self.push is not None:
            try:
                hub.check_push(self.push)
            except ValueError as error:
                raise cli.UsageError(f"--push: {error}") from None
        content = programs.package(self.checkpoint, self.format)
        card = checkpoints.read_card(self.checkpoint)
        name = self.push.partition("/")[2] if self.push else self.checkpoint.stem
        place = f"{hub.SCHEME}{self.push}" if self.push else None
        content |= {
            hub.FILE: self.checkpoint.read_bytes(),
            "config.json": checkpoints.card_text(card).encode(),
            "README.md": model_card.text(card, name, hub.FILE, place).encode(),
        }
        if self.out:
            for file, data in content.items():
                files.write(self.out / file, data)
                print(f"{self.out / file}: {len(data):,} bytes")
        if self.push:
            address, commit = hub.push(self.push, content, f"{name}, exported by iwae {__version__}")
            print(f"pushed: {address}\nload it with: iwae.load({f'{place}@{commit}'!r})")
        return 0


def parse(words: list[str]) -> ExportCommand:
    return cli.parse(ExportCommand, words)
