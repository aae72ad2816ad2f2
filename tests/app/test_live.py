"""What Home sends to the page for its live pictures."""

import base64
import json

import numpy as np
import torch

from iwae import catalog, checkpoints
from iwae.checkpoints import Card
from iwae.inference import posterior as engine
from iwae.model import Model, ModelConfig
from pages.common.live import DRAWS


def sent(test) -> dict:
    return json.loads(test.get("bidi_component")[0].proto.json)["live"]


def decoded(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_a_model_too_large_for_the_page_has_the_servers_pictures_and_says_why(app, tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_MODELS_DIR", str(tmp_path))
    config = ModelConfig.parse("600,600:50")
    model = Model(config, seed=1)
    training = checkpoints.read_card(catalog.SHIPPED / f"{catalog.DEFAULT_PAIR[0]}.safetensors").training
    checkpoints.save(tmp_path / "large.safetensors", model, Card(config, training | {"model": str(config)}))
    test = app(b="model:large")
    a, b = sent(test)["models"]
    assert a["weights"].endswith(".bin") and a["note"] == ""
    assert b["weights"] is None and "3.5 MB" in b["note"]

    x = torch.from_numpy(decoded(sent(test)["seen"], "u1") / 255).float()
    drawn = engine.posterior(model, x, samples=DRAWS, seed=0)
    with torch.no_grad():
        expected = 255 * model.decode(torch.cat([drawn.mean[None], drawn.h[0]]))
    assert np.abs(decoded(b["pictures"], "u1") - expected.flatten().numpy()).max() <= 1


def test_the_noise_is_that_of_the_posterior(app):
    test = app(image=3)
    live = sent(test)
    x = torch.from_numpy(decoded(live["seen"], "u1") / 255).float()
    for sent_model, key in zip(live["models"], catalog.DEFAULT_PAIR, strict=True):
        model, _ = checkpoints.load(catalog.SHIPPED / f"{key}.safetensors")
        drawn = engine.posterior(model, x, samples=DRAWS, seed=0)
        noise = torch.from_numpy(decoded(sent_model["noise"], "f4").copy()).reshape(1 + DRAWS, -1)
        assert not noise[0].any()
        torch.testing.assert_close(drawn.mean + drawn.std * noise[1:], drawn.h[0])
