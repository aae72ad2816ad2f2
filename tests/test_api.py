"""The public names of the package, and the README's own example."""

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import iwae
from iwae.checkpoints import Card
from iwae.evaluation.stats import decimal

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_there_and_an_unknown_one_is_an_attribute_error():
    for name in iwae.__all__:
        assert callable(getattr(iwae, name)) and name in dir(iwae)
    with pytest.raises(AttributeError, match="nonsense"):
        iwae.nonsense  # noqa: B018


@pytest.mark.parametrize("module", ["iwae", "iwae.runs", "iwae.system"])
def test_no_torch_is_loaded_before_it_is_needed(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_object_of_the_api_is_a_line(tmp_path):
    """Which says what a reader wants of it: kilobytes of numbers stood there."""
    data = iwae.load_dataset("digits")
    model = iwae.Model(iwae.ModelConfig(hidden=((20,),), latent=(5,)))
    x = data.binary("test")
    metrics, posterior = iwae.evaluate(model, x, samples=20), iwae.posterior(model, x[0], samples=500)
    card = Card(model.config, asdict(iwae.TrainConfig(dataset="digits", model="20:5")))
    iwae.save(tmp_path / "model.safetensors", model, card)
    nll = metrics.summary()
    for thing, start in (
        (data, "Dataset(digits: 1,297 / 200 / 300 images of 28×28 pixels, stochastic binarization)"),
        (data.train, "Split(images=uint8[1297, 784], labels=int64[1297])"),
        (model, "Model(20:5, 28×28 pixels, 32,494 weights, float32 on cpu)"),
        (iwae.load(tmp_path / "model.safetensors")[0], repr(model)),
        (metrics, f"Metrics(300 images, 20 draws each, seed 0: NLL {nll['nll']:.2f} ± {nll['nll_se']:.2f}, ELBO "),
        (metrics.activity[0], "Activity(mean=float64[5], covariance=float64[5, 5], threshold=0.01)"),
        (posterior, f"Posterior(500 draws, seed 0: log p̂(x) {decimal(posterior.log_p)}"),
        (model.sample(x, k=3), "Sample(log_px=float32[3, 300], log_ph=float32[3, 300], log_qh=float32[3, 300], h=("),
        (card, f"Card(model={card.model!r}, training={{"),
    ):
        assert repr(thing).startswith(start) and "\n" not in repr(thing) and len(repr(thing)) < 250


def test_the_readmes_example_runs(capsys):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    assert "epochs=5" in code
    exec(code.replace("epochs=5", "epochs=1"), {})
    out = capsys.readouterr().out
    assert re.search(r"NLL \d+\.\d\d ± \d\.\d\d nats per image\n-\d+\.\d+\n$", out)
