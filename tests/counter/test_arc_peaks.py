"""Peaks of arcs against arcs drawn at known places."""

from dataclasses import replace

import numpy as np
import pytest

from stages.counter.arc_peaks import certify_arcs, find_peaks
from stages.counter.images import all_images
from stages.counter.lens_model import LensModel
from stages.counter.priors import TheoremConfig
from stages.records import ArcScore, Cutout
from tests.counter.test_photometry import scene

CENTRE = np.array([19.5, 19.5])


def arcs_of(source: tuple[float, float]) -> tuple[Cutout, ArcScore, np.ndarray]:
    """Bright places of a galaxy's images about a luminous deflector, 0.1 arcsec a pixel, and a mask of them."""
    images = all_images(LensModel(1.0, 0.12, -0.06, 0.03, 0.04), source)
    true = CENTRE + images.xy_arcsec[images.kind < 2] / 0.1
    cutout = scene([(x, y, 6.0) for x, y in true], fwhm_pix=4.0)
    galaxy = scene([(*CENTRE, 300.0)], fwhm_pix=8.0, sky=0.0).flux
    y, x = np.mgrid[0:40, 0:40]
    mask = np.max([np.hypot(x - a, y - b) < 4 for a, b in true], axis=0)
    arc = ArcScore("p", 0.9, 200, 10, 1.0, 0.1, CENTRE, mask.astype(np.float16), np.zeros(2), 1.0)
    return replace(cutout, flux=cutout.flux + galaxy), arc, true


@pytest.mark.parametrize(("source", "n"), [((0.02, 0.03), 4), ((0.25, 0.2), 2)])
def test_the_arcs_peaks_are_found_under_the_deflectors_light_and_judged(source: tuple[float, float], n: int) -> None:
    cutout, arc, true = arcs_of(source)
    result, xy = certify_arcs(cutout, arc, CENTRE, 0.9, TheoremConfig())
    assert len(xy) == n
    assert np.hypot(*(xy[:, None] - true[None]).transpose(2, 0, 1)).min(1).max() < 1.5
    assert result.verdict == "possible"
    assert result.parity_sum == 1


def test_without_a_mask_there_are_no_peaks() -> None:
    cutout, arc, _ = arcs_of((0.02, 0.03))
    assert len(find_peaks(cutout, replace(arc, mask=np.zeros_like(arc.mask)), CENTRE)[0]) == 0
    hole = replace(cutout, valid=np.zeros_like(cutout.valid))
    assert len(find_peaks(hole, arc, CENTRE)[0]) == 0


def test_masked_pixels_are_left_out_and_not_taken_for_dark() -> None:
    cutout, arc, _ = arcs_of((0.25, 0.2))
    whole, height, _ = find_peaks(cutout, arc, CENTRE)
    gone = np.random.default_rng(2).random(cutout.valid.shape[1:]) < 0.25
    xy, lower, _ = find_peaks(replace(cutout, valid=cutout.valid & ~gone), arc, CENTRE)
    assert len(xy) == len(whole) == 2
    for place, light in zip(xy, lower, strict=True):
        same = int(np.hypot(*(whole - place).T).argmin())
        assert np.hypot(*(whole[same] - place)) < 2
        assert light == pytest.approx(height[same], rel=0.15)  # zeros in the masked quarter would take that from it
