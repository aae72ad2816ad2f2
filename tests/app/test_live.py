"""What Home sends to the page for its live pictures."""

import base64
import json

import numpy as np
import pytest
import torch

from iwae import catalog, checkpoints
from iwae.checkpoints import Card
from iwae.inference import posterior as engine
from iwae.model import Model, ModelConfig
from pages.common.input.live import DRAWS


def sent(test) -> dict:
    """The data of the component that draws models; Home's tour is one, too."""
    found = [json.loads(component.proto.json or "{}") for component in test.get("bidi_component")]
    return next(data for data in found if "live" in data or "models" in data)


def decoded(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


@pytest.fixture
def large(tmp_path, monkeypatch) -> Model:
    """A user-added model that no page can run, "model:large"."""
    monkeypatch.setenv("IWAE_MODELS_DIR", str(tmp_path))
    config = ModelConfig.parse("600,600:50")
    model = Model(config, seed=1)
    training = checkpoints.read_card(catalog.SHIPPED / f"{catalog.DEFAULT_PAIR[0]}.safetensors").training
    checkpoints.save(tmp_path / "large.safetensors", model, Card(config, training | {"model": str(config)}))
    return model


def test_a_model_too_large_for_the_page_has_the_servers_pictures_and_says_why(app, large):
    test = app(b="model:large")
    a, b = sent(test)["live"]["models"]
    assert a["weights"].endswith(".bin") and a["note"] == ""
    assert b["weights"] is None and "3.5 MB" in b["note"]

    x = torch.from_numpy(decoded(sent(test)["live"]["seen"], "u1") / 255).float()
    drawn = engine.posterior(large, x, samples=DRAWS, seed=0)
    with torch.no_grad():
        expected = 255 * large.decode(torch.cat([drawn.mean[None], drawn.h[0]]))
    assert np.abs(decoded(b["pictures"], "u1") - expected.flatten().numpy()).max() <= 1


def test_the_noise_is_that_of_the_posterior(app):
    test = app(image=3)
    live = sent(test)["live"]
    x = torch.from_numpy(decoded(live["seen"], "u1") / 255).float()
    for sent_model, key in zip(live["models"], catalog.DEFAULT_PAIR, strict=True):
        model, _ = checkpoints.load(catalog.SHIPPED / f"{key}.safetensors")
        drawn = engine.posterior(model, x, samples=DRAWS, seed=0)
        noise = torch.from_numpy(decoded(sent_model["noise"], "f4").copy()).reshape(1 + DRAWS, -1)
        assert not noise[0].any()
        torch.testing.assert_close(drawn.mean + drawn.std * noise[1:], drawn.h[0])


def test_a_place_that_the_page_cannot_decode_is_decoded_by_the_server(app, large):
    test = app("pages/2_Latent_space.py", b="model:large", images=100)
    a, b = sent(test)["models"]
    assert a["weights"] and not b["weights"] and b["there"] == b["own"]
    spot = {"map": sent(test)["map"], "parts": [[0.5, -0.25, 1]], "moved": [{}, {"3": 0.5}]}
    test.session_state["live-map"] = {"spot": spot}
    test.run()
    a, b = sent(test)["models"]
    axes, point = (torch.from_numpy(decoded(part, "f4").copy()) for part in (b["plane"]["axes"], b["code"]))
    code = point + (torch.tensor([0.5, -0.25]) - torch.tensor(b["plane"]["at"])) @ axes.reshape(2, -1)
    code[3] = 0.5
    with torch.no_grad():
        expected = 255 * large.decode(code)
    assert np.abs(decoded(b["there"], "u1") - expected.numpy()).max() <= 1
    assert b["there"] != b["own"]
