"""What a model would take is estimated before it is computed, and refused by name."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from iwae import catalog, checkpoints
from iwae.analysis import costs
from iwae.checkpoints import Card, CheckpointError
from iwae.model import Model, ModelConfig
from iwae.training.config import TrainConfig

WIDE = ModelConfig(hidden=((1,),), latent=(100_000,))  # 2 MB in a file
DEEP = ModelConfig(hidden=((20, 30), (10,)), latent=(7, 5))


def largest(config: ModelConfig) -> dict[str, costs.Cost]:
    """The most that each page can be asked for."""
    return {
        "posterior": costs.posterior(config, 50_000),
        "occlusion": costs.occlusion(config, 50_000),
        "report": costs.report(config, 50_000),
        "latent space": costs.latent_space(config, 10_000),
        "units": costs.units(config, 10_000),
        "reconstructions": costs.draws(config, 10_000, 50, pictures=1),
        "latents": costs.latents(config, 2_000, 200),
        "samples": costs.generation(config, 200),
    }


def test_the_models_that_ship_are_never_refused():
    configs = {card.model for card in checkpoints.find(catalog.SHIPPED)[0].values()}
    assert len(configs) >= 3
    for config in configs:
        for what, cost in largest(config).items():
            costs.check(config, cost, what)


@pytest.mark.parametrize(
    "config",
    [WIDE, ModelConfig(hidden=((1,),) * 30, latent=(5000,) * 30)],
)
def test_sizes_that_would_ruin_the_app_are_refused(config):
    cost = costs.posterior(config, 1000)
    with pytest.raises(costs.CostError) as said:
        costs.check(config, cost, "1,000 draws")
    assert "too large for 1,000 draws: it takes about " in str(said.value) and "MB is the limit" in str(said.value)
    assert f"{config.latent[0]:,}" in str(said.value)


def test_a_cube_is_refused_by_its_time():
    config = ModelConfig(latent=(1500,))
    costs.check(config, costs.posterior(config, 5000), "5,000 draws")  # what is linear in the units goes on
    costs.check(config, costs.generation(config, 200), "samples")
    with pytest.raises(costs.CostError, match=r"1,500 latent and 400 hidden units is too large for a map: it takes"):
        costs.check(config, costs.latent_space(config, 2000), "a map")
    assert costs.latent_space(config, 1000).seconds > costs.LIMIT_SECONDS


@pytest.mark.parametrize(
    "config", [DEEP, ModelConfig(), ModelConfig(hidden=((4,),), latent=(3,)), ModelConfig.parse("4c,3c,8:4/5:2")]
)
@torch.no_grad()
def test_multiply_adds_are_those_that_torch_counts(config):
    model = Model(config)
    x = torch.zeros(1, config.pixels)

    def counted(function) -> float:
        with FlopCounterMode(display=False) as counter:
            function()
        return counter.get_total_flops() / 2

    h, _ = model.sample_posterior(x, model.noise(1, 1, torch.Generator()))
    assert counted(lambda: model.encode_first(x)) == costs.encoder(config)
    proposed = counted(
        lambda: model.sample_posterior(x, model.noise(1, 1, torch.Generator()), encoded=model.encode_first(x))
    )
    assert proposed == costs.encoder(config) + costs.proposal(config)
    descended = counted(lambda: model.logits(model.ancestral_sample(h[-1])))
    assert descended == costs.decoder(config)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("units", [500, 2000])
def test_memory_is_estimated_rather_too_high_than_too_low(units):
    """The peak of a process of its own, beside that before the draws."""
    code = f"""
import re, torch
from iwae.model import Model, ModelConfig
from iwae.inference.posterior import posterior, reconstruct
torch.set_num_threads(1)
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
model = Model(ModelConfig(latent=({units},)))
x = torch.zeros(784)
reconstruct(model, posterior(model, x, samples=50))
before = peak()
reconstruct(model, posterior(model, x, samples=5000))
print(peak() - before)
"""
    taken = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    estimate = costs.posterior(ModelConfig(latent=(units,)), 5000).bytes
    assert taken < estimate < 5 * taken


def test_a_file_that_no_page_can_show_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_MODELS_DIR", str(tmp_path / "models"))
    path = tmp_path / "wide.safetensors"
    checkpoints.save(path, Model(WIDE), Card(WIDE, vars(TrainConfig())))
    assert path.stat().st_size < catalog.MAX_BYTES
    with pytest.raises(
        CheckpointError, match=r"wide\.safetensors: a model of 100,000 latent and 1 hidden units is too"
    ):
        catalog.add(path.read_bytes(), path.name)
    assert not list((tmp_path / "models").glob("*"))
