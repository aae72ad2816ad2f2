"""Checkpoints: an exact round trip, and a reason for every file that is refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

from iwae import checkpoints
from iwae.checkpoints import Card, CheckpointError
from iwae.model import Model, ModelConfig

CONFIG = ModelConfig(((8, 7), (6,)), (4, 3), (1, 16))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    model = Model(CONFIG, seed=2)
    checkpoints.save(path, model, Card(CONFIG, {"objective": "iwae"}, {"steps": 7}, {"nll": 1.5}))
    return path, model


def rewrite(path, *, tensors=None, **metadata):
    """The same file with other tensors or header fields."""
    with checkpoints._open(path) as file:
        old, found = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(found | (tensors or {}), path, {k: v for k, v in (old | metadata).items() if v is not None})


def test_round_trip_is_exact(saved):
    path, model = saved
    again, card = checkpoints.load(path)
    assert card == checkpoints.read_card(path)
    assert card == Card(CONFIG, {"objective": "iwae"}, {"steps": 7}, {"nll": 1.5})
    for (name, a), b in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b) and b.requires_grad, name
    x = torch.randint(0, 2, (3, 16)).float()
    draws = [m.sample(x, 5, generator=torch.Generator().manual_seed(0)).log_w for m in (model, again)]
    assert torch.equal(*draws)


def test_a_file_of_half_precision_holds_the_rounded_weights_exactly(saved):
    path, model = saved
    size = path.stat().st_size
    rounded, card = checkpoints.halved(model, checkpoints.read_card(path))
    assert card.progress == {"steps": 7, "weights": "float16"}
    checkpoints.save(path, rounded, card)
    assert path.stat().st_size < 0.75 * size  # of so small a model much is header
    again, read = checkpoints.load(path)
    assert read == card
    for a, b, c in zip(model.parameters(), rounded.parameters(), again.parameters(), strict=True):
        assert torch.equal(b, c) and c.dtype == torch.float32
        assert (a - b).abs().max() <= 2**-11 * a.abs().max()  # half a unit in the last of 11 places
    with torch.no_grad():
        model.pixel_logits.bias[0] = 7e4
    with pytest.raises(ValueError, match="beyond 65,504"):
        checkpoints.halved(model, card)


@pytest.mark.parametrize(("version", "means"), [("1", "renyi"), ("2", "l-alpha")])
def test_l_alpha_means_what_it_was_trained_with(saved, version, means):
    """Version 1 called Rényi's bound so. Saved again, the file says what it means today."""
    path, model = saved
    trained = {"objective": "l-alpha", "alpha": 0.5}
    header = {"model": vars(CONFIG), "training": trained, "progress": {"history": [{"training": trained}, {}]}}
    rewrite(path, version=version, header=json.dumps(header))
    for _ in range(2):
        _, card = checkpoints.load(path)
        assert card == checkpoints.read_card(path)
        assert card.training == card.progress["history"][0]["training"] == {"objective": means, "alpha": 0.5}
        checkpoints.save(path, model, card)


def test_nothing_is_left_beside_it(saved):
    path, _ = saved
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    path, _ = saved
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError):
        checkpoints.save(path, Model(CONFIG), Card(CONFIG, {}))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": "99"}, "format version '99', but this program reads 1, 2, 3, 4"),
        ({"kind": "something"}, "not an iwae-model"),
        ({"kind": None}, "not an iwae-model"),
        ({"header": "{"}, "header cannot be read"),
        ({"header": "[]"}, "not an object"),
        ({"header": "{}"}, "does not describe a model"),
        ({"header": json.dumps({"model": {"latent": [-1]}})}, "does not describe a model"),
        ({"header": json.dumps({"model": {"hidden": [[90_000]], "latent": [90_000], "pixels": 90_000}})}, "do not fit"),
        ({"tensors": {"extra": torch.zeros(1)}}, "'extra' is \\(1,\\), expected none"),
        ({"tensors": {"pixel_logits.bias": torch.zeros(5)}}, r"'pixel_logits.bias' is \(5,\), expected \(16,\)"),
        ({"tensors": {"pixel_logits.bias": torch.full((16,), torch.nan)}}, "'pixel_logits.bias' holds values that are"),
        ({"tensors": {"pixel_logits.bias": torch.full((16,), torch.inf)}}, "not finite"),
        ({"tensors": {"pixel_logits.bias": torch.zeros(16).double()}}, "expected torch.float32"),
    ],
)
def test_refusals_say_why(saved, change, says):
    path, _ = saved
    rewrite(path, **change)
    with pytest.raises(CheckpointError, match=says) as caught:
        checkpoints.load(path)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x80\x04}q\x00.", b"\xff" * 200, b"{}", b"\x08\0\0\0\0\0\0\0{}      "])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"other\.safetensors"):
        checkpoints.load(path)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_files_are_refused(saved, share):
    path, _ = saved
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError):
        checkpoints.load(path)


def test_find_lists_the_good_and_explains_the_rest(saved):
    path, _ = saved
    (path.parent / "junk.safetensors").write_bytes(b"junk")
    (path.parent / "notes.txt").write_text("not a checkpoint")
    cards, refused = checkpoints.find(path.parent)
    assert list(cards) == ["model.safetensors"] and list(refused) == ["junk.safetensors"]
    assert "junk.safetensors" in refused["junk.safetensors"]


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        checkpoints.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(("pixels", "shape"), [(16, (4, 4)), (12, (1, 12))])
def test_a_card_that_counts_pixels_is_read(tmp_path, pixels, shape):
    """Until format version 3 a card had their number alone: a square, else one row."""
    model = Model(ModelConfig(((8,),), (3,), shape), seed=1)
    sizes = {"hidden": [[8]], "latent": [3], "pixels": pixels}
    header = json.dumps({"model": sizes, "training": {}})
    metadata = {"kind": "iwae-model", "version": "3", "header": header}
    save_file(model.state_dict(), path := tmp_path / "old.safetensors", metadata)
    loaded, card = checkpoints.load(path)
    assert card.model == model.config and card.model.shape == shape
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in loaded.state_dict().items())
