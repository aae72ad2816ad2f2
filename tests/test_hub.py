"""Models to and from the Hugging Face Hub: the real huggingface_hub, in a process of its own, before a server on this
machine that speaks the Hub's API. No request leaves the machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import iwae
from iwae import catalog, checkpoints
from iwae.system import hub, optional
from tests.fake_hub import READ, WRITE, FakeHub

ROOT = Path(__file__).parents[1]
VAE, IWAE = (catalog.SHIPPED / f"digits-small-{name}.safetensors" for name in ("vae-k1", "iwae-k50"))

DRIVER = """
import contextlib, io, json, os, sys
from iwae import checkpoints
from iwae.__main__ import main

for kind, *words in json.loads(sys.stdin.readline()):
    if kind == "token":
        os.environ["HF_TOKEN"] = words[0]
        continue
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if kind == "load":
                model, card = checkpoints.load(words[0])
                result = [sum(weight.double().sum().item() for weight in model.parameters()), card.metrics["nll"]]
            else:
                result = main([kind, *words])
        except Exception as error:
            result = [type(error).__name__, str(error)]
    print(json.dumps([result, out.getvalue(), err.getvalue()]))
"""


class Client:
    """Processes whose Hub is the one at ``url``, with one cache for all."""

    def __init__(self, url: str, home: Path):
        self.home = home
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        self.environment |= {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        self.environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1", "NO_PROXY": "*"}

    def run(self, *steps: tuple[str, ...]) -> list:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER], cwd=ROOT, env=self.environment,
            input=json.dumps(steps), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def load(self, *addresses: str) -> list:
        return [result for result, *_ in self.run(*(("load", address) for address in addresses))]


@pytest.fixture
def server():
    pytest.importorskip("huggingface_hub", reason="requirements-extra.txt")
    with FakeHub() as server:
        yield server


@pytest.fixture
def client(server, tmp_path) -> Client:
    return Client(server.url, tmp_path / "hf")


def what_it_holds(path: Path) -> list[float]:
    """As the driver says it."""
    model, card = checkpoints.load(path)
    return [sum(weight.double().sum().item() for weight in model.parameters()), card.metrics["nll"]]


def test_what_is_pushed_is_loaded_at_each_revision(server, client, tmp_path):
    from huggingface_hub import ModelCard

    options = ("--format", "torch", "--push", "me/digits")
    (pushed, said, err), (again, said_again, _) = client.run(
        ("token", WRITE),
        ("export", str(VAE), *options, "--out", str(tmp_path / "out")),
        ("export", str(IWAE), *options),
    )
    assert (pushed, again) == (0, 0), err
    repository = server.repositories["me/digits"]
    (first, files), (second, _) = repository.commits.items()
    assert f"pushed: {server.url}/me/digits/commit/{first}\n" in said
    assert said_again.endswith(f"load it with: iwae.load('hf://me/digits@{second}')\n")
    assert set(files) == {"model.safetensors", "config.json", "README.md", "encoder.pt2", "decoder.pt2"}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert files["model.safetensors"] == VAE.read_bytes()  # by Git LFS; the card and config.json as regular files
    page = ModelCard(files["README.md"].decode())
    assert page.data.model_name == "digits" and 'model, card = iwae.load("hf://me/digits")\n' in page.text
    (tmp_path / "config.json").write_bytes(files["config.json"])
    assert checkpoints.read_card_alone(tmp_path / "config.json") == checkpoints.read_card(VAE)

    repository.refs["v1"] = first
    addresses = ("hf://me/digits", f"hf://me/digits@{first}", "hf://me/digits@v1/model.safetensors")
    assert client.load(*addresses) == [what_it_holds(path) for path in (IWAE, VAE, VAE)]
    server.requests.clear()
    assert client.load(f"hf://me/digits@{first}") == [what_it_holds(VAE)]
    assert server.requests == []  # a commit never changes: nothing is asked
    assert client.load("hf://me/digits") == [what_it_holds(IWAE)]
    assert {request.split()[0] for request in server.requests} == {"HEAD"}  # is it still the newest?


def test_without_a_network_the_cache_serves_and_what_is_not_there_is_a_sentence(server, client):
    server.repositories["me/digits"] = server.repository({"model.safetensors": VAE.read_bytes()})
    assert client.load("hf://me/digits") == [what_it_holds(VAE)]
    server.shutdown()
    server.server_close()
    assert client.load("hf://me/digits") == [what_it_holds(VAE)]
    client.environment["HF_HUB_OFFLINE"] = "1"  # else huggingface_hub tries for half a minute
    cached, (kind, message) = client.load("hf://me/digits", "hf://me/other")
    assert cached == what_it_holds(VAE)
    assert kind == "HubError"
    assert message == f"model.safetensors of me/other: {server.url} cannot be reached, and it is not in the cache"


def test_what_cannot_be_loaded_is_a_sentence(server, client):
    """Files are checked as those of anybody are."""
    sound = VAE.read_bytes()
    header = (2**21).to_bytes(8, "little") + b" " * 2**21
    files = {"pickle.safetensors": b"\x80\x04.", "header.safetensors": header, "cut.safetensors": sound[:-8]}
    files |= {"large.safetensors": sound, "model.safetensors": sound, "model.bin": sound}
    server.repositories["me/digits"] = server.repository(files)
    server.repositories["me/gated"] = server.repository(files)
    server.repositories["me/broken"] = server.repository(files)
    server.gated.add("me/gated")
    server.broken.add("me/broken")
    server.as_lfs(sound)
    server.sizes["large.safetensors"] = 2**40
    expected = {
        "hf://me/digits/pickle.safetensors": ("CheckpointError", "not a safetensors file, or a damaged one"),
        "hf://me/digits/header.safetensors": ("CheckpointError", "its header has 2,097,152 bytes"),
        "hf://me/digits/cut.safetensors": ("CheckpointError", "not a safetensors file, or a damaged one"),
        "hf://me/digits/large.safetensors": ("HubError", "has 1,099,511,627,776 bytes; at most 1,073,741,824 are"),
        "hf://me/digits@v2": ("HubError", "model.safetensors of me/digits at v2: there is no such revision"),
        "hf://me/digits/no.safetensors": ("HubError", "no.safetensors of me/digits: the repository holds no such file"),
        "hf://me/none": ("HubError", f"{server.url} has no such repository, or it is private and HF_TOKEN gives no"),
        "hf://me/broken": ("HubError", f"{server.url} answers with status 501"),
        "hf://me/gated": ("HubError", "its authors must grant access"),
        "hf://me/digits/model.bin": (
            "ValueError",
            "address of a model on the Hub; give hf://USER/MODEL, hf://USER/MODEL@",
        ),
        "hf://datasets/me/digits": ("ValueError", "'hf://datasets/me/digits' is not the address of a model on the Hub"),
        "hf://digits": ("ValueError", "'hf://digits' is not the address of a model on the Hub"),
        "hf://": ("ValueError", "'hf://' is not the address of a model on the Hub"),
        "hf://me/digits/../../x.safetensors": ("HubError", ""),
    }
    for (address, (kind, message)), found in zip(expected.items(), client.load(*expected), strict=True):
        assert found[0] == kind and message in found[1] and "\n" not in found[1], (address, found)
    digest = next(iter(server.objects))
    assert not [request for request in server.requests if request.startswith("GET") and digest in request]


def test_what_cannot_be_pushed_is_a_sentence_before_anything_is_made(server, client, tmp_path):
    export = ("export", str(VAE), "--format", "torch", "--out", str(tmp_path / "out"), "--push")
    wrong, no_token = client.run((*export, "digits"), (*export, "me/digits"))
    assert wrong[0] == 2 and wrong[2] == "error: --push: a model on the Hub is named USER/MODEL, not 'digits'\n"
    assert no_token[0] == 1 and "error: me/digits cannot be pushed without a token: call `hf auth login`" in no_token[2]
    assert server.requests == [] and not (tmp_path / "out").exists()
    (refused,) = client.run(("token", READ), (*export[:4], "--push", "me/digits"))
    assert refused[0] == 1 and refused[2] == f"error: me/digits: {server.url} refuses this token\n"
    assert not server.repositories


def test_without_the_package_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(optional, "find_spec", lambda name: None)
    with pytest.raises(
        optional.MissingError, match=r"Hub needs huggingface_hub: pip install -r requirements-extra\.txt"
    ):
        iwae.load("hf://me/digits")
    with pytest.raises(optional.MissingError, match="pushing to the Hugging Face Hub needs huggingface_hub"):
        hub.push("me/digits", {}, "nothing")
