"""``python -m iwae card``."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from iwae import checkpoints, cli
from iwae.export import model_card
from iwae.system import files


@dataclass(frozen=True)
class CardCommand:
    """Write a trained model's card in the Hugging Face format: what it is, how it was trained and measured.

    Without options the cards are printed.

    Examples:
      python -m iwae card checkpoints/mnist-1layer-iwae-k50.safetensors
      python -m iwae card model.safetensors --out README.md
      python -m iwae card checkpoints/mnist-1layer-vae-k1.safetensors checkpoints/mnist-2d-vae-k1.safetensors --beside
    """

    checkpoints: Positional[tuple[Path, ...]]  # .safetensors files that train has written
    out: Path | None = None  # the file to write the card of one checkpoint to
    beside: bool = False  # write each card next to its checkpoint, as NAME.md
    json: bool = False  # the card as checkpoints/cards keeps those of models without their weights

    def run(self) -> int:
        if not self.checkpoints:
            raise cli.UsageError("name at least one checkpoint")
        if self.json and self.beside:
            raise cli.UsageError("--beside writes cards in the Hugging Face format, not --json")
        if self.out and (self.beside or len(self.checkpoints) > 1):
            raise cli.UsageError("--out is for the card of one checkpoint, and not for --beside")
        for path in self.checkpoints:
            if not path.is_file():
                raise cli.UsageError(f"there is no file {path}")
            cli.check_output("--beside", path.with_suffix(".md") if self.beside else None)
        cli.check_output("--out", self.out)
        texts = {path: self._text(path) for path in self.checkpoints}
        for path, text in texts.items():
            target = path.with_suffix(".md") if self.beside else self.out
            if target:
                files.write(target, text)
                print(f"card: {target}")
            else:
                print(text, end="")
        return 0

    def _text(self, path: Path) -> str:
        return checkpoints.card_text(checkpoints.read_card(path)) if self.json else card_text(path)


def card_text(path: Path, file: str | None = None) -> str:
    """The model card of a checkpoint, as it is to be called (``file``) where the card will lie."""
    return model_card.text(checkpoints.read_card(path), path.stem, file or path.name)


def parse(words: list[str]) -> CardCommand:
    return cli.parse(CardCommand, words)
