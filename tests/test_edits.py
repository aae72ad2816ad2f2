"""What a person changes in the editor, on pictures whose right reading is known."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iwae.images.decoding import PictureError
from iwae.images.digits import prepare
from iwae.images.edits import Edit, turned
from tests import pictures

CASES = Path(__file__).parents[2] / "shared" / "cases" / "uploads"


def scan(number: int) -> np.ndarray:
    """A digit of mnist-5k, dark on grey paper, [400, 400]."""
    grey = np.asarray(Image.open(io.BytesIO(pictures.picture(number))).convert("L"))
    return (40 + grey * (180 / 255)).astype(np.uint8)


@pytest.fixture(scope="module")
def two() -> np.ndarray:
    """Two digits beside each other, [400, 640]."""
    page = np.full((400, 640), 220, np.uint8)
    page[50:350, 20:320], page[50:350, 320:620] = (
        np.asarray(Image.fromarray(scan(number)).resize((300, 300))) for number in (0, 2)
    )
    return page


def difference(one, other) -> float:
    return float(np.abs(one.image - other.image).mean())


def around(box, margin: float = 8.0):
    return box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin


def test_no_edit_is_the_automatic_reading_and_quarter_turns_are_exact():
    page = scan(3)
    plain = prepare(page)
    assert np.array_equal(prepare(page, edit=Edit()).image, plain.image)
    assert "As edited" not in [stage.name for stage in plain.stages]
    for quarters in (1, 2, 3):
        sideways = np.rot90(page, quarters)
        mended = prepare(sideways, edit=Edit(turn=90 * quarters))
        assert np.array_equal(mended.image, plain.image) and mended.stages[1].image.shape == page.shape
        assert difference(prepare(sideways), plain) > 0.05  # which is why there is an editor


def test_a_fine_turn_and_its_box_keep_the_whole_picture():
    page = scan(3)
    slanted = np.asarray(Image.fromarray(page).rotate(20, expand=True, fillcolor=220))
    mended = prepare(slanted, edit=Edit(turn=20))
    assert difference(mended, prepare(page)) < 0.03 < difference(prepare(slanted), prepare(page))
    assert difference(prepare(slanted, edit=Edit(turn=20, box=around(mended.boxes[0]))), mended) < 0.01
    colours = np.zeros((30, 50, 3), np.float32)
    colours[12:18, 20:30, 1] = 1  # its mass is kept, in the middle
    found = turned(colours, 33)
    assert found[..., 1].sum() == pytest.approx(60, rel=0.01) and found.shape[0] > 30
    rows, columns = np.nonzero(found[..., 1] > 0.5)
    assert abs(rows.mean() + 0.5 - found.shape[0] / 2) < 0.1 and abs(columns.mean() + 0.5 - found.shape[1] / 2) < 0.1


def test_light_ink_is_what_the_person_says():
    for page, dark_ink in ((scan(5), True), (255 - scan(5), False)):
        found = prepare(page)
        assert found.inverted == dark_ink
        assert np.array_equal(prepare(page, edit=Edit(dark_ink=dark_ink)).image, found.image)
        assert difference(prepare(page, edit=Edit(dark_ink=not dark_ink)), found) > 0.05


def test_a_box_chooses_one_of_two_digits(two):
    """Each mark that was found is a box, and gives what the page with that digit alone gives."""
    found = prepare(two)
    assert len(found.boxes) in (2, 3)  # as one digit in two pieces, or as the larger one
    left, right = sorted(found.boxes[-2:])
    assert left[2] < 0 < right[0]
    for box, number, start in ((left, 0, 20), (right, 2, 320)):
        alone = np.full_like(two, 220)
        alone[50:350, start : start + 300] = two[50:350, start : start + 300]
        assert difference(prepare(two, edit=Edit(box=around(box))), prepare(alone)) < 0.02, number
    with pytest.raises(PictureError, match="stands out"):
        prepare(two, edit=Edit(box=(-315, -195, -290, -170)))


def test_what_is_erased_is_paper(two):
    x = [float(x) for x in range(-310, 0, 15)]
    strokes = tuple(tuple(value for point in x for value in (point, y)) for y in range(-150, 151, 20))
    alone = np.full_like(two, 220)
    alone[50:350, 320:620] = two[50:350, 320:620]
    mended = prepare(two, edit=Edit(erased=strokes))
    assert mended.note is None and difference(mended, prepare(alone)) < 0.01
    light = prepare(np.stack([255 - two] * 3, axis=2), edit=Edit(erased=strokes, dark_ink=False))
    assert difference(light, prepare(alone)) < 0.01


@pytest.mark.parametrize(
    "wrong",
    [
        {"turn": 361.0}, {"turn": float("nan")}, {"box": (0.0, 0.0, 3.0, 50.0)}, {"box": (0.0, 0.0, float("nan"), 9.0)},
        {"box": (-1e9, 0.0, 9.0, 9.0)}, {"erased": ((1.0, 2.0, 3.0),)}, {"erased": ((),)},
        {"erased": ((0.0, float("inf")),)}, {"erased": ((1.0, 1.0) * 5001,)},
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"degrees|box|erased"):
        Edit(**wrong)


@pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases")
def test_the_photos_that_only_a_person_can_mend():
    sideways = (CASES / "sideways-7.jpg").read_bytes()
    upright = np.rot90(np.asarray(Image.open(io.BytesIO(sideways))), -1)
    mended = prepare(sideways, edit=Edit(turn=90))
    assert not mended.doubtful and difference(mended, prepare(upright)) < 0.01
    two = prepare((CASES / "two-digits-42.jpg").read_bytes())
    assert len(two.boxes) == 2 and two.doubtful
    read = [prepare((CASES / "two-digits-42.jpg").read_bytes(), edit=Edit(box=around(box))) for box in two.boxes]
    assert difference(*read) > 0.05 and not any(digit.doubtful for digit in read)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"turn": "left"}, "could not convert"), ({"turn": None}, "in numbers"), ({"turn": 10**400}, "in numbers"),
        ({"turn": 1e9}, "−360 to 360 degrees"),
        ({"turn": float("nan")}, "−360 to 360"), ({"box": [1, 2, 3]}, "four sides, not 3"), ({"box": 7}, "in numbers"),
        ({"box": [0, 0, 1, 1]}, "at least 4 pixels"), ({"dark_ink": "yes"}, "true, false or null, not 'yes'"),
        ({"erased": [[1, 2, 3]]}, "strokes of x and y"), ({"erased": 5}, "in numbers"),
        ({"erased": [[None, 1]]}, "in numbers"),
    ],
)  # fmt: skip
def test_what_a_browser_sends_is_an_edit_or_refused(changed, told):
    sent = {"turn": 90, "box": [-9, -9, 9, 9], "dark_ink": None, "erased": [[1, 2]]}
    assert Edit.from_browser(sent) == Edit(90.0, (-9.0, -9.0, 9.0, 9.0), None, ((1.0, 2.0),))
    with pytest.raises(ValueError, match=told):
        Edit.from_browser(sent | changed)
    for nothing in (None, 3, [], {}):
        with pytest.raises(ValueError, match="an edit has"):
            Edit.from_browser(nothing)
