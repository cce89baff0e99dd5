"""The deflector's light is taken away, and nothing else."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from stages.deflector import brightest_place, deflector_light, without_deflector
from stages.records import Cutout
from stages.softening import linear, softened

Y, X = np.mgrid[0:80, 0:80].astype(float)
CENTRE = (38.7, 40.4)
NOISE = np.random.default_rng(1).normal(0, 1 / 3, (80, 80))


def galaxy(
    axis_ratio: float, angle_deg: float, index: float = 4.0, radius: float = 8.0, height: float = 60.0
) -> np.ndarray:
    turn = np.radians(angle_deg)
    dx, dy = X - CENTRE[0], Y - CENTRE[1]
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    r = np.hypot(along * np.sqrt(axis_ratio), across / np.sqrt(axis_ratio))
    b = 2 * index - 1 / 3
    return gaussian_filter(height * np.exp(-b * ((r / radius) ** (1 / index) - 1)), 2.0)


def ring(radius: float, height: float, width: float = 2.0) -> np.ndarray:
    return height * np.exp(-0.5 * ((np.hypot(X - CENTRE[0], Y - CENTRE[1]) - radius) / width) ** 2)


def left_over(flux: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    planes = torch.from_numpy(np.repeat(flux[None, None], 3, 1)).float()
    good = torch.ones_like(planes) if valid is None else torch.from_numpy(np.repeat(valid[None, None], 3, 1)).float()
    pixels = torch.cat([softened(planes) * good, good], 1)
    return linear(without_deflector(pixels, torch.tensor([CENTRE])))[0, 1].numpy()


@pytest.mark.parametrize(("axis_ratio", "angle"), [(1.0, 0.0), (0.7, 30.0), (0.5, 110.0)])
@pytest.mark.parametrize("index", [1.0, 4.0])
def test_most_of_a_galaxy_goes(axis_ratio: float, angle: float, index: float) -> None:
    light = galaxy(axis_ratio, angle, index)
    left = left_over(light + NOISE)
    outside = np.hypot(X - CENTRE[0], Y - CENTRE[1]) > 4
    assert np.abs(left[outside]).sum() < 0.25 * light[outside].sum() + np.abs(NOISE[outside]).sum()


def test_an_arc_stays() -> None:
    arc = np.where(CENTRE[1] + 6 < Y, ring(14, 6.0), 0.0)
    left = left_over(galaxy(0.8, 20.0) + arc + NOISE)
    bright = arc > 3
    assert 0.7 < (left[bright] / arc[bright]).mean() < 1.1


def test_nothing_is_dug_out_where_a_whole_ring_stands_apart() -> None:
    whole = ring(20, 6.0)
    left = left_over(galaxy(1.0, 0.0, radius=4.0, height=20.0) + whole + NOISE)
    bright = whole > 4
    assert (left[bright] / whole[bright]).mean() > 0.8
    assert left.min() > -6 / 3 - 2


def test_masked_pixels_count_for_nothing() -> None:
    light = galaxy(0.8, 20.0)
    valid = np.ones((80, 80))
    valid[45:60, 30:50] = 0
    spoiled = np.where(valid > 0, light, 500.0)
    left = left_over(spoiled, valid)
    assert (left[valid == 0] == 0).all()
    bright = (valid > 0) & (light > 3) & (np.hypot(X - CENTRE[0], Y - CENTRE[1]) > 3)
    assert np.abs(left - left_over(light))[bright].mean() < 0.03 * light[bright].mean()
    assert (
        deflector_light(torch.zeros(2, 3, 80, 80), torch.zeros(2, 3, 80, 80), torch.full((2, 2), 40.0)).abs().max() == 0
    )


def seen(flux: np.ndarray, xy: tuple[float, float], bands: tuple[str, ...] = ("i",)) -> Cutout:
    planes = flux if flux.ndim == 3 else flux[None]
    return Cutout(
        id="a", source="", flux=planes.astype(np.float32), variance=np.ones_like(planes, np.float32),
        valid=np.isfinite(planes), bands=bands, pixel_scale_arcsec=0.2, psf_fwhm_arcsec=np.full(len(bands), 0.9),
        psf=np.zeros((0, 0, 0), np.float32), xy_pix=np.array(xy), origin_xy_pix=np.zeros(2), survey="",
    )  # fmt: skip


def test_the_brightest_place_is_the_galaxys_middle_whatever_the_catalogue_says() -> None:
    rng = np.random.default_rng(1)
    light = galaxy(0.7, 40.0, 4.0) + rng.normal(0, 1, X.shape)
    light[:3] = np.nan
    for off in ((0.0, 0.0), (2.5, -1.5), (-2.0, 2.0)):
        place = brightest_place(seen(light, (CENTRE[0] + off[0], CENTRE[1] + off[1])))
        assert place == pytest.approx(CENTRE, abs=0.15)


def test_a_blue_source_beside_it_is_not_the_galaxys_middle() -> None:
    red = galaxy(1.0, 0.0, 4.0)
    blue = 0.1 * red + 500 * np.exp(-0.5 * ((X - CENTRE[0] - 3) ** 2 + (Y - CENTRE[1]) ** 2) / 4.0)
    noise = np.random.default_rng(2).normal(0, 1, (2, *X.shape))
    for planes, bands in (((blue, red), ("g", "i")), ((red, blue), ("i", "g"))):
        place = brightest_place(seen(np.stack(planes) + noise, (CENTRE[0] + 1, CENTRE[1]), bands))
        assert place == pytest.approx(CENTRE, abs=0.15)


def test_where_nothing_shines_the_object_stays_where_it_is() -> None:
    noise = np.random.default_rng(3).normal(0, 1, X.shape)
    assert brightest_place(seen(noise, CENTRE)).tolist() == list(CENTRE)
    assert brightest_place(seen(np.full(X.shape, np.nan), CENTRE)).tolist() == list(CENTRE)
    assert brightest_place(seen(noise, (-30.0, 5.0))).tolist() == [-30.0, 5.0]
