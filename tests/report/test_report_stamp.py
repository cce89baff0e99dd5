from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.records import Cutout
from stages.report.render import colour_order, colour_picture, sky_and_noise
from stages.report.stamp import Stamp, is_composite, make_stamp


def blank(
    shape: tuple[int, int], bands: tuple[str, ...] = ("r",), source: str = "a.fits", scale: float = 0.2
) -> Cutout:
    flux = np.random.default_rng(1).normal(0, 1, (len(bands), *shape)).astype(np.float32)
    return Cutout(
        "a", source, flux, np.full_like(flux, np.nan), np.ones(flux.shape, bool), bands, scale,
        np.full(len(bands), np.nan), np.zeros((0, 0, 0), np.float32),
        np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2]), np.zeros(2),
    )  # fmt: skip


def pixels(stamp: Stamp) -> Any:
    return np.asarray(Image.open(BytesIO(stamp.image)).convert("RGB")).astype(int)


def with_star(cutout: Cutout, x: int, y: int) -> Cutout:
    flux = cutout.flux.copy()
    flux[:, y, x] = 500.0
    return replace(cutout, flux=flux)


@pytest.mark.parametrize("source", ["a.fits", "a.png"])
def test_a_detection_lies_on_its_star_whichever_way_the_picture_is_turned(
    scene: Callable[..., Any], source: str
) -> None:
    cutout = with_star(blank((31, 43), source=source), 35, 4)
    count = replace(
        scene(kind="none").image_count, xy_pix=np.array([[35.0, 4.0]]), flux=np.ones(1), confidence=np.ones(1)
    )
    stamp = make_stamp(cutout, count)
    y, x = np.unravel_index(pixels(stamp).sum(axis=2).argmax(), (31, 43))
    assert stamp.images == ((x + 0.5, y + 0.5),)


def test_fits_rows_go_up_and_composite_rows_go_down() -> None:
    for source, row in (("tile.fits", 26), ("tile.png", 4), ("tile.JPG", 4), ("dir/a.jpeg#3", 4), ("a.png.fits", 26)):
        picture = pixels(make_stamp(with_star(blank((31, 43), source=source), 35, 4))).sum(axis=2)
        assert np.unravel_index(picture.argmax(), picture.shape) == (row, 35), source
    assert not is_composite("a.npy")


def test_the_crop_is_twelve_arcsec_about_the_object_and_stays_inside() -> None:
    cutout = replace(with_star(blank((200, 300)), 280, 100), xy_pix=np.array([280.0, 100.0]))
    stamp = make_stamp(cutout)
    assert (stamp.width, stamp.height) == (60.0, 60.0)
    assert pixels(stamp).sum(axis=2).argmax() % 60 == 40  # pushed back from the right edge
    assert make_stamp(blank((200, 300), scale=float("nan"))).width == 160.0


def test_a_large_picture_is_shrunk_but_its_frame_is_not() -> None:
    stamp = make_stamp(blank((401, 399), scale=0.03))
    assert (stamp.width, stamp.height) == (398.0, 400.0)
    assert pixels(stamp).shape == (200, 199, 3)


def test_invalid_pixels_are_grey_stripes_and_never_sky() -> None:
    cutout = blank((30, 30), ("g", "r", "i"))
    valid = cutout.valid.copy()
    valid[:, 5:15, 5:15] = False
    flux = cutout.flux.copy()
    flux[:, 20:28, 20:28] = np.nan
    picture = pixels(make_stamp(replace(cutout, valid=valid, flux=flux)))[::-1]
    for hole in (picture[5:15, 5:15], picture[20:28, 20:28]):
        levels = np.unique(hole.reshape(-1, 3), axis=0)
        assert len(levels) == 2
        assert levels.min() > 30


def test_a_pixel_that_one_band_lacks_takes_the_mean_of_the_others() -> None:
    planes, valid = np.full((3, 8, 8), 30.0), np.ones((3, 8, 8), bool)
    valid[0, 2, 2] = False
    planes[0, 2, 2] = np.nan
    picture = colour_picture(planes, valid, np.array([[0.0, 1.0]] * 3))
    assert (picture == picture[0, 0]).all()


@pytest.mark.parametrize("value", [np.nan, 0.0, 1e30])
def test_pixels_without_information_still_give_a_picture(value: float) -> None:
    cutout = blank((20, 20))
    assert make_stamp(replace(cutout, flux=np.full_like(cutout.flux, value))).image
    assert make_stamp(blank((1, 1))).width == 1.0


def test_red_is_i_or_the_longest_wavelength_and_blue_g_or_the_shortest() -> None:
    assert colour_order(("i", "g", "r")) == (0, 2, 1)
    assert colour_order(("u", "g", "r", "i", "z", "y")) == (3, 2, 1)
    assert colour_order(("F115W", "F444W", "F277W", "F150W")) == (1, 2, 0)
    assert colour_order(("red", "green", "blue")) == (0, 1, 2)
    assert colour_order(("F814W", "F475W")) == (0, -1, 1)
    assert colour_order(("a", "b", "c")) == (2, 1, 0)
    assert colour_order(("clear",)) == (0, 0, 0)


def test_one_band_is_grey_and_two_bands_are_coloured() -> None:
    one = pixels(make_stamp(with_star(blank((20, 20)), 3, 3)))
    assert (one == one[..., :1]).all()
    cutout = with_star(blank((20, 20), ("g", "i")), 3, 3)
    cutout.flux[0, 3, 3] = 20.0
    red, _, blue = pixels(make_stamp(cutout))[16, 3]
    assert red > blue


def test_a_deeper_middle_band_does_not_make_a_galaxy_green() -> None:
    y, x = np.indices((40, 40))
    galaxy = np.exp(-np.hypot(x - 20, y - 20) / 4)
    cutout = blank((40, 40), ("g", "r", "i"))
    cutout.flux[:] += np.array([30.0, 200.0, 60.0])[:, None, None] * galaxy
    red, green, blue = pixels(make_stamp(cutout))[17:22, 17:22].mean(axis=(0, 1))
    assert blue < green < red


def test_an_8_bit_composite_is_shown_as_it_is() -> None:
    levels = np.random.default_rng(2).integers(0, 256, (3, 20, 24)).astype(np.float32)
    cutout = replace(blank((20, 24), ("red", "green", "blue"), "a.png"), flux=levels)
    assert (pixels(make_stamp(cutout)) == levels.transpose(1, 2, 0)).all()


def test_noise_is_measured_beside_a_bright_object() -> None:
    plane = np.random.default_rng(3).normal(10.0, 2.0, (60, 60))
    plane[20:40, 20:40] += 1e4
    sky, noise = sky_and_noise(plane, np.ones(plane.shape, bool))
    assert sky == pytest.approx(10.0, abs=0.3)
    assert noise == pytest.approx(2.0, rel=0.1)


def test_overlays_hold_what_the_stages_found(scene: Callable[..., Any]) -> None:
    quad = scene(kind="quad")
    stamp = make_stamp(quad.cutout, quad.image_count, quad.arc_score)
    assert len(stamp.images) == len(stamp.confidence) == 3
    assert [name for _, _, name in stamp.missing] == ["central_demagnified", "below_limit"]
    assert stamp.ring is not None
    assert stamp.missing_ellipses == (None, None)  # none was asked for
    assert stamp.ring[2] == pytest.approx(8.0)  # the arc stage measured none: the fitted model's
    assert stamp.arcs == ()
    assert not any(stamp.sectors)


def test_the_arc_outline_lies_on_the_ring_and_its_sectors_where_the_arc_is(scene: Callable[..., Any]) -> None:
    ring = scene(kind="ring", shape=(49, 61))
    stamp = make_stamp(ring.cutout, ring.image_count, ring.arc_score)
    assert len(stamp.arcs) == 1
    x, y, radius = stamp.ring
    outline = np.array(stamp.arcs[0])
    assert np.hypot(*(outline - (x, y)).T) == pytest.approx(radius, abs=2.3)
    turns = np.arctan2(y - outline[:, 1], outline[:, 0] - x) / (2 * np.pi) % 1
    sectors = np.array(stamp.sectors)
    near = np.stack([np.roll(sectors, k) for k in (-1, 0, 1)]).max(axis=0)
    assert (near[(turns * len(sectors)).astype(int)] > 0).all()
    assert 60 < 360 * (sectors > 0).mean() < 150


@pytest.mark.parametrize(("source", "turn"), [("a.fits", 150.0), ("a.png", 30.0)])
def test_ellipses_lie_as_in_the_picture(scene: Callable[..., Any], source: str, turn: float) -> None:
    """Angles run from x to y of the pixels: up in the picture of a FITS file, down in a PNG's."""
    quad = scene(kind="quad")
    cutout = replace(quad.cutout, source=source)
    certificate = replace(quad.image_count.certificate, missing_ellipse_pix=np.array([[3, 1, 30, 6], [np.nan] * 4]))
    arcs = replace(
        quad.arc_score, score=0.6, ring_xy_pix=quad.cutout.xy_pix, ring_axis_ratio=0.5, ring_angle_deg=30.0,
        ring_radius_arcsec=6 * quad.cutout.pixel_scale_arcsec,
    )  # fmt: skip
    stamp = make_stamp(cutout, replace(quad.image_count, certificate=certificate), arcs)
    assert stamp.missing_ellipses == ((3.0, 1.0, turn, 6.0), None)
    assert stamp.ellipse is not None
    assert stamp.ellipse[2:] == (8.0, 4.0, turn)  # of mean 6 and ratio 0.5
    assert make_stamp(cutout, None, replace(arcs, score=0.4)).ellipse is None


def test_the_likelier_of_two_rings_is_drawn(scene: Callable[..., Any]) -> None:
    quad = scene(kind="quad")
    for score, radius in ((0.4, 8.0), (0.6, 5.0)):  # the fitted model's, the arcs'
        arcs = replace(quad.arc_score, score=score, theta_e_arcsec=5 * quad.cutout.pixel_scale_arcsec)
        ring = make_stamp(quad.cutout, quad.image_count, arcs).ring
        assert ring is not None
        assert ring[2] == pytest.approx(radius)


def test_what_was_not_run_is_not_drawn() -> None:
    stamp = make_stamp(blank((20, 20)))
    assert (stamp.images, stamp.deflector, stamp.missing, stamp.arcs, stamp.ring) == ((), None, (), (), None)
    assert not np.isfinite(stamp.north_deg)


def test_north_is_marked_as_assumed_unless_it_is_given() -> None:
    cutout = replace(blank((20, 20)), ra_deg=10.0, dec_deg=-3.0)
    assert (make_stamp(cutout).north_deg, make_stamp(cutout).north_assumed) == (0.0, True)
    assert (make_stamp(cutout, north_deg=30.0).north_deg, make_stamp(cutout, north_deg=30.0).north_assumed) == (
        30.0,
        False,
    )


def test_the_same_cutout_gives_the_same_bytes(scene: Callable[..., Any]) -> None:
    made = scene(kind="ring", masked=True)
    assert make_stamp(made.cutout, made.image_count, made.arc_score) == make_stamp(
        made.cutout, made.image_count, made.arc_score
    )
