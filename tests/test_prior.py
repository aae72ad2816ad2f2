"""Images from the prior, the plane as a grid, the way between two digits, and neighbours."""

import pytest
import torch

from iwae.analysis import generation
from iwae.model import Model, ModelConfig

ONE = ModelConfig(hidden=((12,),), latent=(5,), shape=(1, 24))
TWO = ModelConfig(hidden=((12,), (8,)), latent=(5, 2), shape=(1, 24))


@pytest.fixture(scope="module")
def x():
    return torch.randint(0, 2, (2, 24), generator=torch.Generator().manual_seed(7)).float()


def decoded(model, h1):
    with torch.no_grad():
        return model.decode(h1)


def test_samples_of_one_layer_are_decoded_normal_draws():
    model = Model(ONE, seed=1)
    top = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
    drawn = generation.sample_images(model, 6, seed=3)
    torch.testing.assert_close(drawn, decoded(model, top))
    assert torch.equal(drawn, generation.sample_images(model, 6, seed=3)) and not torch.equal(
        drawn, generation.sample_images(model, 6, seed=4)
    )


def test_samples_go_through_every_layer():
    """The spread of h₁ around its mean is drawn too: with a decoder that adds nothing the mean would be all."""
    model = Model(TWO, seed=1)
    generator = torch.Generator().manual_seed(3)
    top = torch.randn(6, 2, generator=generator)
    torch.testing.assert_close(
        generation.sample_images(model, 6, seed=3), decoded(model, model.ancestral_sample(top, generator))
    )
    assert not torch.allclose(generation.sample_images(model, 6, seed=3), decoded(model, model.ancestral_sample(top)))


def test_the_grid_lies_at_quantiles_with_the_second_unit_upwards():
    model = Model(TWO, seed=1)
    grid = generation.manifold(model, side=3)
    edge = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(5 / 6))
    corners = torch.stack([torch.stack([-edge, edge]), torch.stack([edge, -edge])])
    torch.testing.assert_close(grid[[0, 8]], decoded(model, model.ancestral_sample(corners)))
    torch.testing.assert_close(grid[4], decoded(model, model.ancestral_sample(torch.zeros(2))))


def test_the_way_ends_at_the_posterior_means(x):
    for config in (ONE, TWO):
        model = Model(config, seed=1)
        way = generation.interpolate(model, x, steps=5)
        with torch.no_grad():
            mean, _ = model.encoder[0](x)
        torch.testing.assert_close(way[[0, -1]], decoded(model, mean))
        torch.testing.assert_close(way[2], decoded(model, mean.mean(0)))
        torch.testing.assert_close(generation.reconstructions(model, x), decoded(model, mean))


def test_neighbours_against_all_distances():
    """More images than are compared at once; ties do not occur in random grey levels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (generation.BLOCK + 700, 30), generator=generator, dtype=torch.uint8)
    pictures = torch.rand(4, 30, generator=generator)
    found = generation.nearest(pictures, images, 6)
    all_of_them = (pictures[:, None].double() - images.double() / 255).norm(dim=-1)
    distance, index = all_of_them.sort(1)
    assert torch.equal(found.index, index[:, :6])
    torch.testing.assert_close(found.distance.double(), distance[:, :6], rtol=1e-5, atol=0)


def test_a_training_image_is_its_own_neighbour():
    images = torch.randint(0, 256, (50, 784), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = generation.nearest(images[[7, 31]].float() / 255, images, 2)
    assert found.index[:, 0].tolist() == [7, 31]
    assert (found.distance[:, 0] == 0).all() and (found.distance[:, 1] > 1).all()


def test_one_pixel_wholly_different_is_a_distance_of_one():
    images = torch.zeros(1, 24, dtype=torch.uint8)
    picture = torch.zeros(1, 24)
    picture[0, 3] = 1
    assert generation.nearest(picture, images).distance.item() == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: generation.sample_images(Model(ONE), 0), "at least 1, not 0"),
        (lambda: generation.manifold(Model(ONE)), "2 units, not of 5"),
        (lambda: generation.manifold(Model(TWO), 1), "at least 2 rows, not 1"),
        (
            lambda: generation.interpolate(Model(ONE), torch.zeros(3, 24)),
            r"must hold 2 images, not 3: its shape is \[3, 24\]",
        ),
        (lambda: generation.interpolate(Model(ONE), torch.zeros(2, 24), 1), "at least 2 steps, not 1"),
        (lambda: generation.nearest(torch.zeros(1, 4), torch.zeros(3, 4), 4), "between 1 and 3, not 4"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(ValueError, match=says):
        call()
