"""Checkpoints that somebody made to do harm: refused with the reason, never executed, never read from elsewhere."""

import functools
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from iwae import catalog, checkpoints
from iwae.checkpoints import Card, CheckpointError
from iwae.model import Model, ModelConfig
from iwae.runs import store
from iwae.system import files
from iwae.training.config import TrainConfig

CONFIG = ModelConfig(((8,),), (3,))
TRAINING = asdict(TrainConfig(model="8:3", epochs=1))
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("IWAE_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setattr(catalog, "SHIPPED", tmp_path / "shipped")


@functools.cache
def sound() -> bytes:
    """The bytes of a sound checkpoint, the same at every call: safetensors orders its metadata anew each time."""
    return content(card())


def good(**card) -> bytes:
    """A checkpoint with other parts in its header."""
    header = {"model": asdict(CONFIG), "training": TRAINING, "progress": {}, "metrics": {}} | card
    return content(json.dumps(header))


def content(header: str, tensors: dict | None = None, **metadata) -> bytes:
    weights = {name: weight.contiguous() for name, weight in Model(CONFIG, seed=1).state_dict().items()}
    return save(weights | (tensors or {}), {"kind": "iwae-model", "version": "1", "header": header} | metadata)


def raw(entries: dict, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file by hand: the length of its header, the header, the data."""
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def card(**parts) -> str:
    return json.dumps({"model": asdict(CONFIG), "training": TRAINING, "progress": {}, "metrics": {}} | parts)


class Harm:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


F32 = {"dtype": "F32", "shape": [2]}
BIAS = "pixel_logits.bias"
HOSTILE = {
    "nothing": (b"", "not a safetensors file"),
    "random bytes": (random.Random(0).randbytes(5000), "not a safetensors file"),
    "header longer than the file": (raw({}, length=10**9), "not a safetensors file"),
    "header of 2⁶⁴ − 1 bytes": (raw({}, length=2**64 - 1), "not a safetensors file"),
    "header of 9 MB": (raw({"__metadata__": {"a": "x" * 9_000_000}}), "its header has 9,000,0"),
    "overlapping offsets": (raw({"a": F32 | {"data_offsets": [0, 8]}, "b": F32 | {"data_offsets": [4, 12]}}, bytes(12)),
                            "not a safetensors file"),
    "offsets beyond the end": (raw({"a": F32 | {"data_offsets": [0, 8]}}, bytes(4)), "not a safetensors file"),
    "offsets that run backward": (raw({"a": F32 | {"data_offsets": [8, 0]}}, bytes(8)), "not a safetensors file"),
    "a hole": (raw({"a": F32 | {"data_offsets": [4, 12]}}, bytes(12)), "not a safetensors file"),
    "bytes after the last tensor": (sound() + b"more", "not a safetensors file"),
    "sizes that overflow": (raw({"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 8]}}, bytes(8)),
                            "not a safetensors file"),
    "header that is not UTF-8": (struct.pack("<Q", 4) + b"{\xff\xfe}", "not a safetensors file"),
    "another program's": (raw({}), "holds 'something else', not an iwae-model"),
    "newer version": (content(card(), version="5"), "format version '5', but this program reads 1, 2, 3, 4"),
    "a kind with control characters": (content(card(), kind="\x1b[31m" + "x" * 900), r"holds '�\[31mxxx"),
    "card nested 100,000 deep": (content("[" * 100_000), "its header cannot be read"),
    "card with a number of 5,000 digits": (content('{"model": ' + "9" * 5000 + "}"), "its header cannot be read"),
    "NaN in the card": (content(card(metrics={"nll": float("nan")})), "NaN is not a finite number"),
    "infinite NLL": (content(card(metrics={"nll": float("inf")})), "Infinity is not a finite number"),
    "NLL in words": (good(metrics={"nll": "<script>"}), "nll is '<script>', not a number"),
    "NLL of 300 digits": (good(metrics={"nll": 1e300}), "nll is '1e\\+300', not a number below 1e\\+15"),
    "progress in a list": (good(progress=[1]), "does not describe a model"),
    "history of no list": (good(progress={"history": 3}), "its history is not a list"),
    "refits of no list": (good(progress={"refits": 3}), "its refits are not a list of objects"),
    "refits of numbers": (good(progress={"refits": [3]}), "its refits are not a list of objects"),
    "a million layers": (good(model={"hidden": [[1] * 60_000], "latent": [1]}), "at most 100 layers, not 60,002"),
    "more memory than there is": (good(model={"hidden": [[100_000]], "latent": [100_000]}), "do not fit the model"),
    "other pixels": (content(card(model=asdict(ModelConfig(((8,),), (3,), (4, 4))))), "do not fit the model"),
    "a tensor too many, named ../../up": (content(card(), {"../../up": torch.zeros(1)}), "'../../up' is \\(1,\\)"),
    "a tensor named with an escape": (content(card(), {"\x1b]0;x\x07": torch.zeros(1)}), "'�]0;x�' is"),
    "a weight of another shape": (content(card(), {BIAS: torch.zeros(5)}), "is \\(5,\\), expected \\(784,\\)"),
    "NaN weights": (content(card(), {BIAS: torch.full((784,), torch.nan)}), "values that are not finite"),
    "infinite weights": (content(card(), {BIAS: torch.full((784,), -torch.inf)}), "values that are not finite"),
    "half precision": (content(card(), {BIAS: torch.zeros(784).half()}), "expected torch.float32"),
    "a precision that is none": (good(progress={"weights": "int8"}), "weights are 'int8'; there are float32, float16"),
    "a precision that is a list": (good(progress={"weights": [16]}), "there are float32, float16"),
    "less than the promised precision": (good(progress={"weights": "float16"}), "expected torch.float16"),
    "settings that are none": (good(training={"colour": "red"}), "unknown settings: colour"),
    "a k that fills the memory": (good(training={"objective": "miwae", "k1": 10**6, "k2": 10**6}), "draws must not be"),
    "a k of 400 digits": (good(training={"k": 10**400}), "k must not be above 1,000,000"),
    "a k in words": (good(training={"k": "five"}), "k must be a whole number, not 'five'"),
    "a rate of 400 digits": (good(training={"objective": "power-mean", "p": 10**400}), "its card cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_with_the_reason(name, tmp_path):
    """By the same words when they are added, and nothing is kept; no message is longer than a few lines."""
    data, says = HOSTILE[name]
    with pytest.raises(CheckpointError, match=says) as caught:
        catalog.add(data, "bad.safetensors")
    assert str(caught.value).startswith("bad.safetensors: ") and len(str(caught.value)) < 600
    assert all(character.isprintable() for character in str(caught.value))
    assert not (tmp_path / "models").exists()


def test_a_model_of_other_pixels_is_refused_though_it_is_sound(tmp_path):
    small = ModelConfig(((8,),), (3,), (4, 4))
    checkpoints.save(tmp_path / "shipped" / "small.safetensors", Model(small), Card(small, TRAINING))
    found, refused = catalog.entries()
    says = "the model is for images of 4×4 pixels; those of mnist-5k have 28×28"
    assert not found
    assert refused == {"small.safetensors": f"small.safetensors: {says}"}


def test_a_pickle_is_never_executed(tmp_path):
    for data in (pickle.dumps(Harm(tmp_path / "harm")), b"PK\x03\x04" + pickle.dumps(Harm(tmp_path / "harm"))):
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            catalog.add(data, "model.safetensors")
    assert not (tmp_path / "harm").exists()
    pickle.loads(pickle.dumps(Harm(tmp_path / "harm")))
    assert (tmp_path / "harm").exists()  # it would have


@pytest.mark.parametrize("step", [1, 97])
def test_a_file_cut_anywhere_is_refused(step, tmp_path):
    """At every byte of its first kilobyte, and at every 97th of all."""
    data, path = sound(), tmp_path / "cut.safetensors"
    for end in range(0, 1000 if step == 1 else len(data), step):
        path.write_bytes(data[:end])
        with pytest.raises(CheckpointError):
            checkpoints.load(path)


def test_a_header_of_100_mb_costs_neither_memory_nor_time(tmp_path):
    """On the disk, where no upload's limit holds: a sparse file, refused by its first eight bytes."""
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 100_000_000))
        file.truncate(100_000_008 + 10**9)
    program = f"""
        import resource, time
        from pathlib import Path
        from iwae import checkpoints
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        try:
            checkpoints.load(Path({str(path)!r}))
        except checkpoints.CheckpointError as error:
            assert "its header has 100,000,000 bytes" in str(error), error
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(grown / 1024, time.perf_counter() - started)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    megabytes, seconds = map(float, done.stdout.split())
    assert megabytes < 20 and seconds < 1


def test_links_out_of_the_folders_are_not_followed(tmp_path):
    """A shipped file, a run's checkpoint, a run's settings and a run's folder that are links to elsewhere."""
    outside = tmp_path / "outside"
    real = store.create(TrainConfig(**TRAINING), folder=outside / "run")
    (real.folder / "checkpoint.safetensors").write_bytes(sound())
    run = store.create(TrainConfig(**TRAINING))
    run.checkpoint.symlink_to(real.checkpoint)
    (store.runs_dir() / "linked").symlink_to(real.folder)
    for folder in ("shipped", "models"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "link.safetensors").symlink_to(real.checkpoint)
    found, refused = catalog.entries()
    assert not found
    assert (
        refused["link.safetensors"] == "link.safetensors: a link to a place outside its folder, which is not followed"
    )
    assert refused[run.name].startswith("checkpoint.safetensors: a link")
    assert [listed.name for listed in store.list_runs()] == [run.name]
    with pytest.raises(store.RunError, match=r"checkpoint\.safetensors is a link, which is not followed"):
        _ = run.config
    assert checkpoints.find(tmp_path / "shipped") == ({}, {"link.safetensors": refused["link.safetensors"]})
    run.checkpoint.unlink()
    run.checkpoint.write_bytes(sound())
    assert list(catalog.entries()[0]) == [f"run:{run.name}"]


def test_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "shipped").mkdir()
    os.mkfifo(tmp_path / "shipped" / "pipe.safetensors")
    (tmp_path / "shipped" / "folder.safetensors").mkdir()
    started = time.monotonic()
    _, refused = catalog.entries()
    assert time.monotonic() - started < 5
    assert {reason.split(": ")[1] for reason in refused.values()} == {"a folder, pipe or device, not a file"}


NAMES = {
    "../../../etc/passwd.safetensors": "passwd",
    "/etc/cron.d/job.safetensors": "job",
    r"C:\Windows\system32\a b.safetensors": "a-b",
    "..\\..\\up.safetensors": "up",
    ".hidden.safetensors": "hidden",
    "a\x00b\n\x1b[31m.safetensors": "a-b-31m",
    "<img src=x onerror=alert(1)>.safetensors": "img-src-x-onerror-alert-1",
    "$(touch harm); `id`.safetensors": "touch-harm-id",
    "Ünïcode ﷽ ‮.safetensors": "n-code",
    "": "model",
    "....": "model",
    ".safetensors": "model",
    "x" * 5000: "x" * 60,
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_made_harmless(name, tmp_path):
    assert catalog.add(sound(), name) == f"model:{NAMES[name]}"
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept == [tmp_path / "models" / f"{NAMES[name]}.safetensors"] and kept[0].read_bytes() == sound()


def test_an_added_model_can_be_chosen_and_never_replaces_another(tmp_path):
    key = catalog.add(sound(), "mine.safetensors")
    assert catalog.add(sound(), "again.safetensors") == key  # the same bytes
    assert catalog.add(good(metrics={"nll": 100.0, "nll_se": 0.5}), "mine.safetensors") == "model:mine-2"
    found, refused = catalog.entries()
    assert set(found) == {"model:mine", "model:mine-2"} and not refused and not found[key].shipped
    assert found["model:mine-2"].label == "IWAE k = 50 · 8:3 · added · mnist-5k · NLL 100.00 ± 0.50 nats"
    model, _ = checkpoints.load(found[key].path)
    assert torch.equal(model.pixel_logits.weight, Model(CONFIG, seed=1).pixel_logits.weight)


def test_added_models_are_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(catalog, "MAX_TOTAL", 2 * len(sound()) - 1)
    catalog.add(sound(), "one.safetensors")
    with pytest.raises(CheckpointError, match="there is no room"):
        catalog.add(good(progress={"steps": 1}), "two.safetensors")
    monkeypatch.setattr(catalog, "MAX_BYTES", 1000)
    with pytest.raises(CheckpointError, match="a model may have"):
        catalog.add(sound(), "three.safetensors")
    assert [path.name for path in catalog.models_dir().iterdir()] == ["one.safetensors"]


def test_somebody_elses_text_in_a_message():
    assert files.printable("a\x1b[2Jb\nc‮d") == "a�[2Jb�c�d"
    assert files.printable("x" * 100, 10) == "x" * 9 + "…"
