"""UMAP maps: computed by a process of their own, once, whole or not at all."""

import os
import signal
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from iwae import catalog, checkpoints
from iwae.analysis import latent, umap_maps
from iwae.data import datasets
from iwae.export import shipped_maps

SETTINGS = umap_maps.UmapSettings(neighbours=8)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_MAPS_DIR", str(tmp_path / "maps"))


@pytest.fixture
def points():
    """Three groups of 40 points that lie far apart, in 5 dimensions."""
    rng = np.random.default_rng(0)
    return np.repeat(np.eye(5)[:3] * 20, 40, axis=0) + rng.normal(size=(120, 5))


def wait(one: umap_maps.Map, seconds: float = 120) -> umap_maps.MapStatus:
    end = time.monotonic() + seconds
    while (status := one.status()).phase == "running" and time.monotonic() < end:
        time.sleep(0.1)
    return status


@pytest.fixture
def instant(monkeypatch):
    """Another layout instead of UMAP, which takes seconds to load, for work in this process."""
    calls = []

    def fake(points, start, settings, report):
        calls.append(settings)
        report("laying out, 50%", 0.5)
        return start + 1

    monkeypatch.setattr(umap_maps, "umap", fake)
    return calls


def test_the_name_is_decided_by_content_data_settings_and_beginning():
    names = {
        umap_maps.find_map(settings, **decided).folder.name
        for settings in (SETTINGS, umap_maps.UmapSettings(neighbours=9), umap_maps.UmapSettings(seed=1))
        for decided in ({"checkpoint": "a"}, {"checkpoint": "b"}, {"checkpoint": "a", "begin": "x"})
    }
    assert len(names) == 9
    assert umap_maps.find_map(SETTINGS, x=1, y=2) == umap_maps.find_map(SETTINGS, y=2, x=1)


def test_a_fingerprint_is_of_the_weights_and_not_of_the_card(tmp_path):
    """Name, shape, type and value of each tensor count."""
    weight, prints = np.arange(6, dtype=np.float32), []
    for tensors, card in (
        ({"a": weight}, "before"), ({"a": weight}, "after"), ({"a": weight + 1}, "before"), ({"b": weight}, "before"),
        ({"a": weight.reshape(2, 3)}, "before"), ({"a": weight.view(np.int32)}, "before"),
    ):  # fmt: skip
        save_file(tensors, tmp_path / f"{len(prints)}.safetensors", {"model": card})
        prints.append(umap_maps.fingerprint(tmp_path / f"{len(prints)}.safetensors"))
    assert prints[0] == prints[1] and len(set(prints)) == 5


@pytest.mark.parametrize("pair", [pair for pair in shipped_maps.PAIRS if datasets.available(pair[2])])
def test_maps_that_ship_are_those_of_the_models_that_ship(pair):
    """They have the names that a page asks for, and neighbours on them are neighbours under the model of today: more
    than in its PCA plane, by 5 standard errors. Where this fails, `python -m iwae.export.shipped_maps` mends it."""
    x = datasets.load(pair[2], only_test=True).binary("test")
    x = x[latent.subset(len(x), shipped_maps.IMAGES)]
    for key, one in zip(pair, shipped_maps.pair_of_maps(*pair), strict=False):
        mean, places = (
            latent.encode(checkpoints.load(catalog.SHIPPED / f"{key}.safetensors")[0], x).mean,
            one.coordinates(),
        )
        assert one.status().phase == "finished" and places.shape == (len(x), 2)
        kept, flat = (latent.trustworthiness(mean, shown) for shown in (places, latent.pca(mean).project(mean)))
        assert kept.value > flat.value + 5 * np.hypot(kept.se, flat.se)


def test_a_map_begins_from_one_that_ships(points, instant, monkeypatch, tmp_path):
    """Which has no folder; the map that begins from it is computed as ever."""
    a, b = umap_maps.find_map(SETTINGS, checkpoint="a"), umap_maps.find_map(SETTINGS, checkpoint="b")
    shipped = points[:, 2:4].astype(np.float16)
    np.savez(tmp_path / "umap.npz", **{a.folder.name: shipped})
    monkeypatch.setattr(umap_maps, "SHIPPED", tmp_path / "umap.npz")
    np.testing.assert_array_equal(a.coordinates(), shipped.astype(np.float64))
    a.prepare(points, points[:, :2], SETTINGS)
    b.prepare(points, a, SETTINGS)
    np.testing.assert_array_equal(umap_maps.compute(b.folder, lambda message, share: None), a.coordinates() + 1)
    assert len(instant) == 1 and not (a.folder / "map.npy").exists()


def test_a_pair_in_the_background_and_then_from_the_disk(points):
    """The real thing: B begins from A, both keep the groups apart, and a second request computes nothing."""
    start = latent.pca(points).project(points)
    a, b = umap_maps.find_map(SETTINGS, checkpoint="a"), umap_maps.find_map(SETTINGS, checkpoint="b", begin="a")
    assert b.status() == umap_maps.MapStatus("missing") and b.coordinates() is None
    began = time.monotonic()
    a.prepare(points, start, SETTINGS)
    b.start(points + 0.1, a, SETTINGS)
    assert time.monotonic() - began < 2  # nobody waits for it
    assert b.status().phase == "running"
    b.start(points + 0.1, a, SETTINGS)  # a second request while it runs does nothing
    assert wait(b) == umap_maps.MapStatus("finished", share=1.0) and a.status().phase == "finished"
    for one in (a, b):
        placed = one.coordinates()
        centres = placed.reshape(3, 40, 2).mean(1)
        within = np.linalg.norm(placed.reshape(3, 40, 2) - centres[:, None], axis=2).mean()
        assert placed.shape == (120, 2) and np.linalg.norm(centres - centres[[1, 2, 0]], axis=1).min() > 2 * within
        end = time.monotonic() + 10
        while (one.folder / "points.npy").exists():  # what it was made from goes when the map is there
            assert time.monotonic() < end
            time.sleep(0.05)
    assert latent.procrustes(a.coordinates(), b.coordinates())[1] < 0.3  # one frame
    written = (b.folder / "map.npy").stat().st_mtime_ns
    b.start(points, a, SETTINGS)
    assert b.status().phase == "finished" and (b.folder / "map.npy").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("named", "kept"),
    [("one unit", 0.9), ("two places", 1.0), ("all alike", 1.0)],
)
def test_points_without_extent_on_some_axis_are_laid_out(named, kept):
    """UMAP stretches its start along each axis, and would divide by 0."""
    rng = np.random.default_rng(0)
    points = {
        "one unit": rng.normal(size=(60, 1)),
        "two places": np.repeat([[0.0, 0.0, 0.0], [5.0, 5.0, 5.0]], 30, axis=0),
        "all alike": np.ones((60, 3)),
    }[named]
    view = latent.pca(points)
    placed = umap_maps.umap(points, view.project(points), SETTINGS, lambda message, share: None)
    assert placed.shape == (60, 2) and np.isfinite(placed).all()
    assert latent.trustworthiness(points, placed, 8).value >= kept
    assert (view.share is None) == (named == "all alike") and (placed.any() or named == "all alike")
    if named != "all alike":  # what takes longest to compile is on disk for the next process
        from umap import layouts

        assert layouts._nb_optimize_layout_euclidean_single_epoch.stats.cache_path


def test_a_map_that_cannot_be_kept_is_refused_with_the_variable(points, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IWAE_MAPS_DIR", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot be written .* set IWAE_MAPS_DIR to a folder"):
        umap_maps.find_map(SETTINGS, x=1).start(points, points[:, :2], SETTINGS)


def test_a_killed_process_leaves_no_map_and_can_be_tried_again(points):
    one = umap_maps.find_map(SETTINGS, checkpoint="killed")
    one.start(points, points[:, :2], SETTINGS)
    held = [pid for pid in os.listdir("/proc") if pid.isdigit() and _works_at(pid, one)]
    assert len(held) == 1
    os.kill(int(held[0]), signal.SIGKILL)
    status = wait(one)
    assert status.phase == "failed" and "without a message" in status.message and one.coordinates() is None
    one.delete()
    assert one.status().phase == "missing"


def _works_at(pid: str, one: umap_maps.Map) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return str(one.folder).encode() in file.read()
    except OSError:
        return False


def test_work_reports_and_begins_from_the_other_map(points, instant):
    a, b = umap_maps.find_map(SETTINGS, checkpoint="a"), umap_maps.find_map(SETTINGS, checkpoint="b")
    a.prepare(points, points[:, :2], SETTINGS)
    b.prepare(points, a, SETTINGS)
    said = []
    umap_maps.compute(b.folder, lambda message, share: said.append((message, share)))
    np.testing.assert_allclose(b.coordinates(), points[:, :2] + 2)
    np.testing.assert_allclose(a.coordinates(), points[:, :2] + 1)
    shares = [share for _, share in said]
    assert shares == sorted(shares) and said[-1] == ("laying out, 50%", 0.75) and instant == [SETTINGS] * 2


def test_what_fails_says_why(points, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("no room")

    monkeypatch.setattr(umap_maps, "umap", broken)
    one = umap_maps.find_map(SETTINGS, checkpoint="a")
    one.prepare(points, points[:, :2], SETTINGS)
    with pytest.raises(RuntimeError, match="no room"):
        umap_maps.main(one.folder)
    assert one.status() == umap_maps.MapStatus("failed", "no room")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY broken", b"text"])
def test_a_damaged_map_is_no_map(points, instant, content):
    one = umap_maps.find_map(SETTINGS, checkpoint="a")
    one.prepare(points, points[:, :2], SETTINGS)
    umap_maps.compute(one.folder, lambda message, share: None)
    (one.folder / "map.npy").write_bytes(content)
    assert one.coordinates() is None and one.status().phase != "finished"


def test_points_that_cannot_be_placed_are_named(points):
    one = umap_maps.find_map(SETTINGS, checkpoint="a")
    with pytest.raises(ValueError, match="2 to 7 neighbours, not 8"):
        one.prepare(points[:8], points[:8, :2], SETTINGS)
    with pytest.raises(ValueError, match="finite"):
        one.prepare(np.full((20, 3), np.nan), points[:20, :2], SETTINGS)
