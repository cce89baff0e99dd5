"""Lenses drawn for two and three images, and the places of the images they miss, against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from stages.counter.images import all_images
from stages.counter.least_squares import ELLIPTICITY_SIGMA, SHEAR_SIGMA
from stages.counter.lens_fit import fit
from stages.counter.lens_model import LensModel
from stages.counter.predict import _doubted
from stages.counter.sampling import lenses_of
from stages.counter.theorem import Detections, certificate
from stages.records import Certificate

NOT_MEASURED = np.full(3, np.nan)
UNSEEN = (np.nan, np.nan)
N_QUADS = 30
WALK = 8000


def quads(n, seed=5, error=0.01):
    """Positions and fluxes (microlensed by 0.35 mag) of quads, and which of their images is taken away."""
    rng, out = np.random.default_rng(seed), []
    while len(out) < n:
        e, g = rng.normal(0, 0.13, 2), rng.normal(0, 0.05, 2)
        model = LensModel(rng.uniform(0.7, 1.5), *np.clip(e, -0.35, 0.35), *g, core_arcsec=0.003)
        images = all_images(model, rng.uniform(-0.2, 0.2, 2))
        bright = images.kind < 2
        xy, flux = images.xy_arcsec[bright], np.abs(images.magnification[bright])
        apart = np.hypot(*(xy[:, None] - xy).transpose(2, 0, 1)) + 9 * np.eye(len(xy))
        if len(xy) == 4 and apart.min() > 0.15:
            noisy = xy + rng.normal(0, error, xy.shape)
            out.append((noisy, flux * 10 ** (0.4 * rng.normal(0, 0.35, 4)), int(rng.integers(4))))
    return out


def told(xy, flux, k, deflector, with_flux=True):
    """The certificate of a quad without image k."""
    left = np.delete(flux, k) if with_flux else NOT_MEASURED
    return certificate(
        Detections(np.delete(xy, k, 0), left, np.ones(3), deflector, 1.0, 1.0, 0.1, xy_err_pix=np.full(3, 0.01))
    )


def inside(result, place, axis):
    """Whether a place lies in any 68% (axis 0) or 95% (axis 3) ellipse of images missed outside the centre."""
    for xy, ellipse, name in zip(result.missing_xy_pix, result.missing_ellipse_pix, result.missing_names, strict=True):
        c, s = np.cos(np.radians(ellipse[2])), np.sin(np.radians(ellipse[2]))
        along, across = (place - xy) @ np.array([[c, -s], [s, c]])
        if name != "central_demagnified" and np.hypot(along, across * ellipse[0] / ellipse[1]) < ellipse[axis]:
            return True
    return False


def likeliest(result, place):
    """Distance of a place from the likeliest one outside the centre."""
    rows = [k for k, name in enumerate(result.missing_names) if name != "central_demagnified"]
    best = max(rows, key=lambda k: result.missing_probability[k], default=None)
    return 9.0 if best is None else float(np.hypot(*(result.missing_xy_pix[best] - place)))


def fourth_of(lens, xy):
    """The image that a lens (9,) has beside three, how far it misses these, and their magnification; None without."""
    images = all_images(LensModel(*lens[:7], 0.01), lens[7:9])
    seen = images.kind < 2
    square = ((images.xy_arcsec[seen][:, None] - xy[None]) ** 2).sum(2)
    nearest = square.argmin(0)
    if seen.sum() != 4 or len(set(nearest.tolist())) < 3:
        return None
    magnification = min(float(np.abs(images.magnification[seen])[nearest].sum()), 100.0)
    other = next(k for k in range(4) if k not in nearest)
    return images.xy_arcsec[seen][other], float(square.min(0).sum()), magnification


def test_lenses_drawn_for_three_images_are_those_of_the_posterior():
    """Against a Metropolis walk in which every image is solved for, the positions' likelihood exact."""
    rng, sigma, xy = np.random.default_rng(0), 0.05, np.array([(1.05, 0.1), (-0.15, 0.95), (-0.9, -0.2)])

    def log_posterior(lens):
        found = fourth_of(lens, xy) if lens[0] > 0.2 and np.hypot(lens[1], lens[2]) < 0.7 else None
        if found is None:
            return -np.inf, np.zeros(2)
        out = -0.5 * found[1] / sigma**2 + np.log(found[2]) - 0.5 * (np.log(lens[0]) / 0.6) ** 2 - 3 * np.log(lens[0])
        e, g, centre = lens[1:3] / ELLIPTICITY_SIGMA, lens[3:5] / SHEAR_SIGMA, lens[5:7] / 0.1
        return out - 0.5 * float(e @ e + g @ g + centre @ centre), found[0]

    lenses, times, _ = lenses_of(xy, np.full(3, sigma), np.zeros(2), 0.1, NOT_MEASURED, np.ones(3), 0.01, 300)
    found = [(lens, part, fourth_of(lens, xy)) for lens, part in zip(lenses, times, strict=True)]
    drawn = np.array([(*lens[:3], *four[0]) for lens, _, four in found if four is not None])
    mean = np.average(drawn, axis=0, weights=[part for _, part, four in found if four is not None])
    assert len(drawn) > 0.9 * len(lenses)
    root, here = np.linalg.cholesky(np.cov(lenses.T)) * 0.7, lenses[len(lenses) // 2]
    (now, place), walk = log_posterior(here), []
    for _ in range(WALK):
        there = here + root @ rng.normal(size=9)
        new, other = log_posterior(there)
        if np.log(rng.random()) < new - now:
            here, now, place = there, new, other
        walk.append((*here[:3], *place))
    kept = np.array(walk[WALK // 10 :])
    np.testing.assert_array_less(np.abs(mean - kept.mean(0)), 0.35 * kept.std(0))
    np.testing.assert_allclose(drawn.std(0), kept.std(0), rtol=0.35)


@pytest.mark.parametrize(("deflector", "least"), [((0.0, 0.0), 0.85), (UNSEEN, 0.7)])
def test_an_image_taken_away_lies_in_a_search_ellipse(deflector, least):
    results = [(told(xy, flux, k, deflector), xy[k]) for xy, flux, k in quads(N_QUADS)]
    wide, narrow = (np.mean([inside(r, place, axis) for r, place in results]) for axis in (3, 0))
    assert wide >= least
    assert 0.45 < narrow < wide
    for result, place in results:
        assert (result.missing_probability > 0).all()
        assert (result.missing_probability <= 1).all()
        turned = np.array([-place[1], place[0]])
        assert not (deflector == (0.0, 0.0) and inside(result, turned, 3))  # nor does an ellipse hold all places


def test_fluxes_bring_the_predicted_image_nearer():
    offset = {
        with_flux: np.median([likeliest(told(xy, flux, k, UNSEEN, with_flux), xy[k]) for xy, flux, k in quads(N_QUADS)])
        for with_flux in (True, False)
    }
    assert offset[True] < 0.75 * offset[False]


def test_fluxes_weigh_the_lenses_that_positions_allow():
    """Magnifications of the weighted lenses agree with the fluxes better than those of all do; the fit stays."""
    xy, _, _ = quads(1)[0]
    positions, errors = xy[:2], np.full(2, 0.05)
    free = fit(positions, errors, UNSEEN, 0.3)
    ratio = np.array([8.0, 1.0])
    held = fit(positions, errors, UNSEEN, 0.3, fluxes=ratio, flux_errs=0.05 * ratio)
    assert held.log_evidence == pytest.approx(free.log_evidence + held.log_fluxes)
    assert (held.chi2, held.p_value) == (free.chi2, free.p_value)
    assert held.weights.sum() == pytest.approx(1)
    assert 1 / (held.weights**2).sum() < 0.9 * len(free.weights)
    other = fit(positions, errors, UNSEEN, 0.3, fluxes=ratio[::-1], flux_errs=0.05 * ratio)
    seen = free.detection >= 0
    brighter_first = np.abs(free.images.magnification[seen])[np.argsort(free.detection[seen])]
    likelier = held if brighter_first[0] > brighter_first[1] else other
    assert likelier.log_fluxes == max(held.log_fluxes, other.log_fluxes)


def test_where_an_image_was_found_the_place_stays_in_case_it_is_something_else():
    """A found image is one with 70%, so a place of 80% keeps 24%; one of 20% is no longer told."""
    before = Certificate(
        "possible", missing_xy_pix=np.array([(1.0, 2.0), (3.0, 4.0), (5.0, 5.0)]),
        missing_names=("unexplained", "unexplained", "central_demagnified"), missing_magnification=np.ones(3),
        missing_depth_mag=np.zeros(3), missing_mag_err=np.ones(3), missing_ellipse_pix=np.ones((3, 4)),
        missing_snr=np.zeros(3), missing_probability=np.array([0.8, 0.2, 1.0]),
    )  # fmt: skip
    after = _doubted(Certificate("supports"), before)
    assert (after.verdict, after.missing_names) == ("supports", ("unexplained",))
    np.testing.assert_array_equal(after.missing_xy_pix, [(1.0, 2.0)])
    assert after.missing_probability == pytest.approx([0.24])
