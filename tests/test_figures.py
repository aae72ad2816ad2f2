"""Pictures and figures: exact pixels, and what the axes say."""

import io
import urllib.request

import numpy as np
import pytest
from PIL import Image

from iwae.figures.base import (
    COLOURS,
    GREY,
    Line,
    Points,
    SampleCloud,
    bound_curves,
    data_uri,
    points_against_k,
    posterior_cloud,
    scatter_of_losses,
    tile,
    training_curve,
)
from iwae.figures.training import CLASSES, Curve, activity_bars, latent_map, run_colours, run_curves
from iwae.figures.units import Units, sorted_units


def test_small_pictures_are_enlarged_by_whole_pixels():
    image = np.linspace(0, 1, 784).reshape(28, 28)
    pixels = tile(image, 84)
    assert pixels.shape == (84, 84) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[::3, ::3].ravel(), np.round(255 * image.ravel()))
    np.testing.assert_array_equal(pixels[::3], pixels[1::3])


@pytest.mark.parametrize("shape", [(10, 4), (4, 10), (10, 4, 3), (1, 7), (300, 200, 3)])
def test_other_shapes_become_squares_in_the_colour_of_their_corners(shape):
    image = np.full(shape, 0.2)
    image[1:-1, 1:-1] = 1.0
    pixels = tile(image, 100)
    side = max(shape[:2])
    assert pixels.shape[:2] == (max(1, 100 // side) * side,) * 2
    assert (pixels == 255).sum() == max(1, 100 // side) ** 2 * (image == 1).sum()
    assert set(np.unique(pixels)) <= {51, 255}


@pytest.mark.parametrize("shape", [(84, 84), (84, 84, 3)])
def test_a_picture_s_address_holds_its_very_pixels(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with urllib.request.urlopen(data_uri(pixels, 84)) as reply:
        assert reply.headers["Content-Type"] == "image/png"
        np.testing.assert_array_equal(Image.open(io.BytesIO(reply.read())), pixels)


def test_a_wider_picture_is_averaged_down_in_its_address():
    pixels = np.kron(np.array([[0, 255], [255, 0]], dtype=np.uint8), np.ones((100, 50), dtype=np.uint8))
    with urllib.request.urlopen(data_uri(pixels, 20)) as reply:
        picture = np.asarray(Image.open(io.BytesIO(reply.read())))
    np.testing.assert_array_equal(picture, np.kron([[0, 255], [255, 0]], np.ones((20, 10))))


def test_bound_curves_say_what_they_show():
    lines = [Line("A", "vae", [1, 10, 100], [-95.0, -92.0, -91.0]), Line("B", "vae", [1, 100], [-99.0, -90.0], True)]
    figure = bound_curves(lines)
    assert figure.layout.xaxis.type == "log" and "k" in figure.layout.xaxis.title.text
    assert "nats" in figure.layout.yaxis.title.text
    assert [trace.line.color for trace in figure.data] == [COLOURS["vae"]] * 2
    assert [trace.line.dash for trace in figure.data] == ["solid", "dash"]
    assert list(figure.data[0].y) == [-95.0, -92.0, -91.0]
    assert [(shape.y0, shape.y1, shape.x0, shape.x1) for shape in figure.layout.shapes] == [
        (-91.0, -91.0, 0, 1),
        (-90.0, -90.0, 0, 1),
    ]


def test_the_training_curve_is_not_flattened_by_its_first_points():
    bound = [-500.0, -200.0, *np.linspace(-120, -100, 30)]
    valid = Line("validation", "iwae", [16, 32], [-110.0, -101.0], dashed=True)
    figure = training_curve("training", "iwae", range(32), bound, valid)
    low, high = figure.layout.yaxis.range
    assert low > -130 and high > -100


@pytest.mark.parametrize("background", ["#FFFFFF", "#15181C"])
@pytest.mark.parametrize("colour", [*COLOURS.values(), *CLASSES, GREY])
def test_line_colours_stand_out_on_both_themes(colour, background):
    """Contrast of at least 3:1 (WCAG 2.1, 1.4.11)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    light, dark = sorted((luminance(colour), luminance(background)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3


def test_lines_that_belong_to_no_model_are_grey():
    """By themselves plotly's are black, and not seen on dark paper."""
    losses = scatter_of_losses(np.array([90.0, 80.0]), np.array([85.0, 95.0]), ("A", "B"), ["1", "2"])
    units = sorted_units([Units("A", "vae", np.array([2.0, 0.001]), ["unit 1", "unit 2"])], "variance", 0.01)
    assert units.layout.xaxis.title.text == "units, greatest first"
    assert units.layout.annotations[0].y == -2  # at its line: plotly wants the logarithm here, and 0.01 there
    assert [shape.line.color for figure in (losses, units) for shape in figure.layout.shapes] == [GREY, GREY]


def test_points_against_k_are_filled_where_measured_and_hollow_where_published():
    measured = Points("VAE, measured", "vae", [1, 50], [89.0, 90.0], ["a", "b"], [0.2, 0.3])
    published = Points("IWAE, published", "iwae", [50], [87.1], ["B"])
    figure = points_against_k([measured, published], "NLL, nats")
    filled, hollow = figure.data
    assert (filled.marker.symbol, hollow.marker.symbol) == ("square", "circle-open")
    assert (filled.marker.color, hollow.marker.color) == (COLOURS["vae"], COLOURS["iwae"])
    assert list(filled.error_y.array) == [0.2, 0.3] and hollow.error_y.array is None
    assert list(filled.y) == [89.0, 90.0] and list(hollow.text) == ["B"]
    assert figure.layout.xaxis.type == "log" and list(figure.layout.xaxis.tickvals) == [1, 50]
    assert figure.layout.yaxis.title.text == "NLL, nats"
    # of a single trace plotly shows no legend by itself
    assert points_against_k([measured], "NLL, nats").layout.showlegend is True


def test_the_cloud_is_larger_where_more_draws_fell():
    points = np.array([[0.0, 1.0], [2.0, 3.0]])
    cloud = SampleCloud(
        "vae", points[[0, 0, 1]], np.array([1.0, -1.0]), np.array([0.5, 2.0]), points, np.array([1, 99])
    )
    q, ellipse, resampled = posterior_cloud(cloud, ("unit 3", "unit 8")).data
    assert len(q.x) == 3 and resampled.marker.color == COLOURS["vae"]
    assert resampled.marker.size[0] < resampled.marker.size[1] and list(resampled.customdata) == [1, 99]
    z = (np.stack([ellipse.x, ellipse.y], 1) - cloud.mean) / cloud.std
    np.testing.assert_allclose((z**2).sum(1), 4)


def test_runs_have_a_colour_each_that_later_runs_leave_alone():
    names = [f"2026112{day}-1200{second:02}-mnist-5k" for day in range(3) for second in range(8)]
    kinds = {name: ("vae", "iwae")[place % 3 % 2] for place, name in enumerate(names)}
    colours = run_colours(kinds)
    for count in (1, 7, 15):
        assert run_colours({name: kinds[name] for name in names[:count]}).items() <= colours.items()
    for kind in ("vae", "iwae"):
        own = [colours[name] for name in names if kinds[name] == kind]
        assert all(len(set(own[start : start + 5])) == 5 for start in range(len(own) - 4))
    assert not {colours[name] for name in names if kinds[name] == "vae"} & {COLOURS["iwae"]}


def test_kinds_differ_by_dash_and_first_steps_do_not_flatten():
    steep = [-500.0, *np.linspace(-120, -100, 30)]
    curves = [
        Curve("1", "vae", range(31), steep, "red"),
        Curve("2", "vae", [], [], "blue"),
        Curve("3", "iwae", [1], [-99.0], "green"),
    ]
    figure = run_curves(curves, "epochs", "nats", late=True)
    assert [trace.line.dash for trace in figure.data] == ["dash", "dash", "solid"]
    assert [trace.line.color for trace in figure.data] == ["red", "blue", "green"]
    low, high = figure.layout.yaxis.range
    assert low > -130 and high > -99 and figure.layout.showlegend
    assert run_curves([Curve("1", "vae", [], [], "red")], "epochs", "nats", late=True).layout.yaxis.range is None


def test_units_are_sorted_and_hollow_below_the_threshold():
    first, second = activity_bars([[0.5, 0.001, 2.0], [0.0]], 0.01, "iwae").data
    assert list(first.y) == [2.0, 0.5, 0.001] and list(second.y) == [1e-8]
    assert list(first.marker.symbol) == ["circle", "circle", "circle-open"]


def test_the_map_names_the_class_of_each_point():
    points = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    zero, seven = latent_map(points, [7, 0, 7], [str(i) for i in range(10)], ("a", "b"), 6.0).data
    assert list(seven.text) == ["7", "7"] and list(seven.x) == [0.0, 4.0] and list(zero.y) == [3.0]
    assert latent_map(points, None, (), ("a", "b"), 6.0).data[0].mode == "markers"
