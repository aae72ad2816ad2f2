"""Extreme inputs have finite results, what is not finite is told, and the server keeps to itself."""

import math
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import torch

from iwae import catalog, checkpoints
from iwae.data import datasets
from iwae.evaluation import activity
from iwae.evaluation import metrics as evaluation
from iwae.images import decoding
from iwae.inference.posterior import posterior, reconstruct
from iwae.kernels.finite import NonFiniteError
from iwae.model import Model

ROOT = Path(__file__).parents[1]
PAIR = catalog.DEFAULT_PAIR


def shipped(key: str) -> Model:
    return checkpoints.load(catalog.SHIPPED / f"{key}.safetensors")[0]


def extremes() -> dict[str, torch.Tensor]:
    noise = torch.randint(0, 2, (784,), generator=torch.Generator().manual_seed(0)).float()
    return {"white": torch.ones(784), "black": torch.zeros(784), "noise": noise}


@pytest.mark.parametrize("key", PAIR)
@pytest.mark.parametrize("name", extremes())
def test_extreme_pictures_have_finite_results(key, name):
    """log p̂ is at most 0, since pixels are discrete; the most unlikely picture costs thousands of nats."""
    model, x = shipped(key), extremes()[name]
    drawn = posterior(model, x, samples=500)
    assert drawn.log_p_se is None or 0 <= drawn.log_p_se < 1
    assert -20_000 < drawn.elbo <= drawn.log_p < 0 and 1 <= drawn.ess <= 500
    for picture in vars(reconstruct(model, drawn)).values():
        assert picture.min() >= 0 and picture.max() <= 1 + 1e-5


def test_one_draw_and_50_000_draws():
    model, x = shipped(PAIR[1]), datasets.load("digits").binary("test")[0]
    one = posterior(model, x, samples=1)
    assert one.log_p == one.elbo == pytest.approx(one.log_w.item()) and one.ess == 1 and one.log_p_se is None
    many = posterior(model, x, samples=50_000)
    assert many.log_p >= many.elbo and 1 <= many.ess <= 50_000
    few = posterior(model, x, samples=5000)
    assert abs(many.log_p - few.log_p) < 5 * math.hypot(1 / math.sqrt(many.ess), 1 / math.sqrt(few.ess))


def test_one_image_has_an_nll_but_no_standard_error_and_no_active_units():
    model, x = shipped(PAIR[0]), datasets.load("digits").binary("test")[:2]
    one, two = (evaluation.evaluate(model, x[:n], samples=50) for n in (1, 2))
    log_w = model.sample(x[0], 50, generator=torch.Generator().manual_seed(0)).log_w
    torch.testing.assert_close(one.nll.float(), math.log(50) - log_w.logsumexp(0))
    one = one.summary()
    unknown = {name for name, value in one.items() if value is None}
    several = {"active_units", "pca_active_units", "pruned_nll", "quantiles"}
    assert one["images"] == 1 and unknown == several | {name for name in two.summary() if name.endswith("_se")}
    with pytest.raises(ValueError, match="active units need at least 2 images and 2 draws, not 1 and 100"):
        activity.active_units(model, x[0])


def test_a_model_with_one_active_unit():
    """The other units' means are held at 0, and their deviations at 1: pruned and whole model agree."""
    model = shipped(PAIR[0])
    with torch.no_grad():
        encoder = model.encoder[0]
        unit = activity.active_units(model, datasets.load("digits").binary("test")[:50])[0].covariance.diag().argmax()
        for linear in (encoder.mean, encoder.log_std):
            others = torch.arange(len(linear.bias)) != unit
            linear.weight[others] = 0
            linear.bias[others] = 0
    metrics = evaluation.evaluate(model, datasets.load("digits").binary("test")[:50], samples=100).summary()
    assert metrics["active_units"] == [1] and metrics["pca_active_units"] == [1]
    assert all(math.isfinite(metrics[name]) for name in ("nll", "elbo", "kl_prior", "kl_posterior", "pruned_nll"))


@pytest.mark.parametrize("key", PAIR)
def test_float32_and_float64_agree(key):
    """Of the same draws, per image; nats."""
    model, x = shipped(key), datasets.load("digits").binary("test")[:40]
    noise = model.noise(200, len(x), torch.Generator().manual_seed(0))
    with torch.no_grad():
        single = model.sample(x, noise=noise).log_w.logsumexp(0)
        double = model.double().sample(x.double(), noise=tuple(eps.double() for eps in noise)).log_w.logsumexp(0)
    largest = (single - double).abs().max().item()
    print(f"{key}: {largest:.1e} nats")
    assert largest < 1e-3


def test_what_is_not_finite_is_told_where_it_arises():
    model, x = shipped(PAIR[0]), datasets.load("digits").binary("test")[:3]
    with torch.no_grad():
        model.pixel_logits.bias.fill_(3e38)
        model.pixel_logits.weight.fill_(3e38)
    with pytest.raises(NonFiniteError, match=r"log-weights of 10 of 10 draws are not finite"):
        posterior(model, x[0], samples=10)
    with pytest.raises(NonFiniteError, match=r"of image 0 is .*not a finite number"):
        evaluation.evaluate(model, x, samples=10)


def test_the_first_page_needs_no_connection(tmp_path):
    """Python's own record of every connection and every name that is looked up."""
    program = """
        import sys
        said = []
        def hook(event, values):
            if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
                said.append((event, str(values)))
        sys.addaudithook(hook)
        from streamlit.testing.v1 import AppTest
        for page in ("home.py", "pages/1_Posterior.py"):
            test = AppTest.from_file("home.py", default_timeout=120)
            if page != "home.py":
                test.switch_page(page)
            test.run()
            assert not test.exception and len(test.metric) == 4
        print(said)
    """
    folders = {"IWAE_RUNS_DIR": "runs", "IWAE_DATA_DIR": "data", "IWAE_MODELS_DIR": "models", "XDG_CACHE_HOME": "cache"}
    environment = os.environ | {name: str(tmp_path / folder) for name, folder in folders.items()}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_servers_settings():
    settings = tomllib.loads((ROOT / ".streamlit/config.toml").read_text())
    assert settings["server"]["address"] == "127.0.0.1"
    assert settings["server"]["enableXsrfProtection"] and settings["server"]["enableCORS"]
    assert settings["client"]["showErrorDetails"] == "none" and not settings["browser"]["gatherUsageStats"]
    most = settings["server"]["maxUploadSize"] * 2**20  # what is larger is refused without our sentence
    assert max(catalog.MAX_BYTES, decoding.MAX_BYTES) < most <= 2 * decoding.MAX_BYTES


def test_no_page_writes_html():
    """But for styles that are constants."""
    for path in (ROOT / "home.py", *(ROOT / "pages").rglob("*.py")):
        text = path.read_text()
        assert "unsafe_allow_html" not in text and "components.v1" not in text, path
        assert text.count("st.html") == len(re.findall(r'st\.html\("<style>[^"<]*</style>"\)', text)), path


def test_a_page_ends_early_in_one_way():
    """See end_page: after st.stop() what the page refreshes by itself may come once more, and empty the window."""
    for path in (ROOT / "home.py", *(ROOT / "pages").rglob("*.py")):
        assert path.name == "polling.py" or "st.stop()" not in path.read_text(), path
