"""``python -m iwae export``."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from iwae import checkpoints, cli
from iwae.cli.card import card_text
from iwae.export import programs
from iwae.system import files


@dataclass(frozen=True)
class ExportCommand:
    """Make a folder of a trained model that other programs and the Hugging Face Hub can take.

    It holds the encoder (x → mean and log standard deviation of every stochastic layer) and the decoder (the top
    layer's h → logits and probabilities of the pixels), the checkpoint as model.safetensors, and its model card as
    README.md. The batch may have any size; with more than one layer, those above the first are seen along the means.

    Examples:
      python -m iwae export checkpoints/mnist-1layer-iwae-k50.safetensors --out exported
      python -m iwae export model.safetensors --out exported --format onnx torch
    """

    checkpoint: Positional[Path]  # a .safetensors file that train has written
    out: Path  # the folder to make, new or empty
    format: tuple[Literal["onnx", "torch"], ...] = ("onnx",)  # ONNX, a torch.export program (.pt2), or both

    def run(self) -> int:
        if not self.checkpoint.is_file():
            raise cli.UsageError(f"there is no file {self.checkpoint}")
        if os.path.lexists(self.out) and (not self.out.is_dir() or self.out.is_symlink() or any(self.out.iterdir())):
            raise cli.UsageError(f"--out must name a new or an empty folder, not {self.out}")
        cli.check_folder("--out", self.out)
        if not self.format:
            raise cli.UsageError(f"--format needs at least one of {', '.join(programs.FORMATS)}")
        model = f"model{checkpoints.SUFFIX}"
        content = programs.package(self.checkpoint, self.format)
        content |= {model: self.checkpoint.read_bytes(), "README.md": card_text(self.checkpoint, model).encode()}
        for name, data in content.items():
            files.write(self.out / name, data)
            print(f"{self.out / name}: {len(data):,} bytes")
        return 0


def parse(words: list[str]) -> ExportCommand:
    return cli.parse(ExportCommand, words)
