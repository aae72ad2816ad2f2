"""The forward pass of the pages, in a real browser, against torch on the same rounded weights."""

import base64
import itertools

import numpy as np
import pytest
import torch

from iwae import catalog, checkpoints
from iwae.analysis import latent
from iwae.data import datasets
from iwae.export import browser as export
from iwae.images import digits
from iwae.model import Model, ModelConfig
from pages.common.input import canvas
from pages.common.input.digit_input import prepared
from pages.latent.live_map import packed

SHIPPED = [catalog.DEFAULT_PAIR[1], "mnist-2layer-iwae-k50", "mnist-2d-vae-k1"]
RUN = """async ([file, given]) => {
    const network = readNetwork(await (await fetch("data:;base64," + file)).arrayBuffer());
    const values = {};
    for (const [name, numbers] of Object.entries(given)) values[name] = Float32Array.from(numbers);
    for (const steps of [...network.encoder, network.decoder]) run(network, steps, values);
    const top = { [`h_${network.encoder.length}`]: values[`h_${network.encoder.length}`] };
    for (const steps of network.above.toReversed()) run(network, steps, top);
    values.below = top.h_1;
    return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, [...value]]));
}"""


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page()
    page.add_script_tag(content=canvas.source("common/input/forward.js"))
    yield page
    page.close()


def test_codes_of_places_are_those_of_the_analysis(page):
    page.add_script_tag(content=canvas.source("latent/places.js"))
    random = np.random.default_rng(4)
    points, placed = random.normal(size=(300, 7)), random.normal(size=(300, 2))
    view, parts = latent.pca(points), [[0.7, -1.2, 0.25], [-0.4, 0.3, 0.75]]
    plane = {"axes": view.axes.ravel().tolist(), "at": view.project(points[3]).tolist()}
    found = page.evaluate(
        """async ([plane, point, file, parts]) => {
            const whole = { ...plane, axes: Float32Array.from(plane.axes), point: Float32Array.from(point) };
            const codes = readCodes(await (await fetch("data:;base64," + file)).arrayBuffer());
            return [{ plane: whole }, { codes }].map((model) => {
                const code = codeOf(model, parts);
                return [[...code], [...placeOf(model, code)]];
            });
        }""",
        [plane, points[3].tolist(), base64.b64encode(packed(placed, points)).decode(), parts],
    )
    places, weights = np.array(parts)[:, :2], np.array(parts)[:, 2]
    moved = view.lift(weights @ places, points[3])  # of a mixture: a plane is linear
    mixed = weights @ latent.place_on_map(places, placed, points)
    np.testing.assert_allclose(found[0][0], moved, atol=1e-5)
    np.testing.assert_allclose(found[0][1], weights @ places, atol=1e-5)
    np.testing.assert_allclose(found[1][0], mixed, atol=1e-5)
    np.testing.assert_allclose(found[1][1], latent.place_on_map(mixed[None], points, placed)[0], atol=1e-5)


@pytest.mark.parametrize("name", [*SHIPPED, "30:8/20,10:5/7:3"])
def test_the_browser_computes_what_torch_does(page, name):
    if name in SHIPPED:
        model = checkpoints.load(catalog.SHIPPED / f"{name}{checkpoints.SUFFIX}")[0]
    else:
        model = Model(ModelConfig.parse(name), seed=1)
    file = export.package(model)
    model.load_state_dict({name: weight.half().float() for name, weight in model.state_dict().items()})
    generator = torch.Generator().manual_seed(7)
    x = (torch.rand(1, 784, generator=generator) < 0.15).float()
    noise = model.noise(5, 1, generator)
    given = {"x": x.flatten().tolist()}
    given |= {f"noise_{number}": eps.flatten().tolist() for number, eps in enumerate(noise, 1)}
    found = page.evaluate(RUN, [base64.b64encode(file).decode(), given])
    with torch.no_grad():
        mean, log_std = model.encode_first(x)
        drawn = model.sample(x, noise=noise)
        expected = {"mean_1": mean, "std_1": log_std.exp(), "pixels": model.decode(drawn.h[0])}
        expected |= {f"h_{number}": h for number, h in enumerate(drawn.h, 1)}
        expected["below"] = model.ancestral_sample(drawn.h[-1])
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value.flatten(), rtol=1e-4, atol=1e-4, err_msg=name)


def drawings(count: int) -> np.ndarray:
    """Smooth strokes of a soft pen on 28×28 pixels, of every size and place, [count, 784] of 0…255."""
    random, grid = np.random.default_rng(2), np.stack(np.mgrid[:28, :28], -1) + 0.5
    found = []
    for _ in range(count):
        corners = random.uniform(3, 25, (4, 2)) * random.uniform(0.4, 1) + random.uniform(0, 1, 2)
        along = np.linspace(0, 1, 60)[:, None]
        points = np.concatenate([a + (b - a) * along for a, b in itertools.pairwise(corners)])
        distance = np.linalg.norm(grid[:, :, None] - points, axis=-1).min(-1)
        found.append((255 * np.clip(1.9 - distance, 0, 1)).round().astype(int).ravel())
    return np.array(found)


def test_the_browser_prepares_a_drawing_as_the_server_does(page):
    pixels = drawings(60)
    page.add_script_tag(content=canvas.source("common/input/pictures.js", "common/input/prepare.js"))
    generator = torch.Generator().manual_seed(0)
    thresholds = datasets.thresholds(torch.zeros(784, dtype=torch.uint8), generator)
    grey, bits = page.evaluate(
        """([drawings, thresholds]) => {
            const grey = drawings.map(prepareDigit);
            return [grey.map((one) => [...one]), grey.map((one) => [...binarize(one, thresholds)])];
        }""",
        [pixels.tolist(), thresholds.tolist()],
    )
    expected = [prepared(digits.from_canvas(one), "drawn") for one in pixels]
    greys = [np.rint(255 * digits.from_canvas(one).image).ravel() for one in pixels]
    # a level in thousands may round to its neighbour, as Pillow keeps its sums in other orders
    assert np.abs(np.array(grey) - greys).max() <= 1
    assert (np.array(grey) != greys).mean() < 1e-3
    assert (np.array(bits) != np.array([one.x.numpy() for one in expected])).sum() <= 1
