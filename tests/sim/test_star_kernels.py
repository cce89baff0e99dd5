"""Claims about PSF kernels from stars: against a sum of three elliptical Gaussians, integrated over pixels here."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits

from sim import match
from sim.instrument.psf import transfer
from sim.matching.kernel import Star, fit_kernel, moffat_kernel, off_centre_pix, reach_pix
from sim.matching.psf import fit_moffat
from sim.matching.stamp import stamp
from sim.scene import Grid
from stages.counter.photometry import measure
from stages.ingest import IngestOptions, Survey
from stages.survey import read

SCALE, SIDE, SIGMA, ZERO_POINT = 0.25, 121, 3.0, 29.0
CORE = {"g": 1.9, "i": 1.5}  # sigma of the inner Gaussian, in pixels: a FWHM of 1.2 and 0.95 arcsec
GAUSSIANS = (  # share, width over the core's, b / a, degrees
    (0.62, 1.0, 0.8, 35.0),
    (0.28, 1.9, 0.75, 50.0),
    (0.1, 3.4, 0.9, 0.0),
)


def light(core: float, x: float, y: float, side: int, stretch: float = 1.0) -> np.ndarray:
    """A point of unit light (side, side) at (x, y) from the middle: nine points by nine in each pixel."""
    axis = (np.arange(9 * side) + 0.5) / 9 - side / 2
    dx, dy = np.meshgrid(axis - x, axis - y)
    out = np.zeros(dx.shape)
    for share, width, ratio, degrees in GAUSSIANS:
        sigma, angle = core * width * stretch, np.radians(degrees)
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        out += share * np.exp(-(along**2 * ratio + across**2 / ratio) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    return out.reshape(side, 9, side, 9).mean(axis=(1, 3))


def misplaced(kernel: np.ndarray, core: float) -> float:
    """Share of the light in the wrong place."""
    truth = light(core, 0, 0, kernel.shape[0])
    return 0.5 * float(np.abs(kernel / kernel.sum() - truth / truth.sum()).sum())


def image(rng: np.random.Generator, n_stars: int) -> np.ndarray:
    """Bands g and i: stars, and two galaxies of other widths, apart from each other, in the seeing of this image."""
    planes = SIGMA * rng.normal(size=(2, SIDE, SIDE)) + 4.0
    seeing, taken = float(np.exp(0.04 * rng.normal())), [(60.0, 60.0)]
    while len(taken) < n_stars + 3:
        x, y = rng.uniform(21, SIDE - 21, 2)
        if min(np.hypot(x - a, y - b) for a, b in taken) < 22:
            continue
        wider = rng.uniform(1.3, 2.2) if len(taken) > n_stars else 1.0
        taken.append((x, y))
        for k, core in enumerate(CORE.values()):
            column, row = round(x), round(y)
            points = 10 ** rng.uniform(4.2, 5.0) * light(core, x - column, y - row, 41, seeing * wider)
            points += np.sqrt(points / 4) * rng.normal(size=points.shape)
            planes[k, row - 20 : row + 21, column - 20 : column + 21] += points
    return planes


def write_images(folder: Path, n: int, rng: np.random.Generator) -> Path:
    folder.mkdir()
    for k in range(n):
        header = fits.Header({"BANDS": "gi", "PIXSCALE": SCALE, "MAGZP": ZERO_POINT, "GAIN": 4.0})
        planes = image(rng, 2).astype(np.float32)
        fits.PrimaryHDU(planes, header).writeto(folder / f"o{k:02d}.fits")
    return folder


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The survey file of twelve images with two stars each."""
    folder = tmp_path_factory.mktemp("stars")
    images = write_images(folder / "images", 12, np.random.default_rng(8))
    assert match.main(["--survey-dir", str(images), "--out", str(folder / "mine.yaml"), "--workers", "1"]) == 0
    return folder / "mine.yaml"


@pytest.mark.parametrize("band", ["g", "i"])
def test_the_kernel_is_the_stars_psf_and_the_round_moffat_is_not(survey: Path, band: str) -> None:
    facts = read(survey)
    kernel = fits.getdata(facts.psf_files[band]).astype(float)
    round_ = moffat_kernel(facts.psf_fwhm_arcsec[band] / SCALE, facts.psf_beta, kernel.shape[0])
    assert misplaced(kernel, CORE[band]) < 0.03
    assert misplaced(round_, CORE[band]) > 0.06
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert np.hypot(*off_centre_pix(kernel)) < 0.01
    assert np.abs(kernel[[0, -1]]).max() < 1e-6
    assert np.abs(kernel[:, [0, -1]]).max() < 1e-6


@pytest.mark.parametrize("band", ["g", "i"])
def test_what_was_taken_is_told_with_stars_and_error(survey: Path, band: str) -> None:
    facts = read(survey)
    kernel, round_ = (facts.measured[f"psf_{name}_chi2"][band] for name in ("kernel", "moffat"))
    error = facts.measured["psf_kernel_error"][band]
    assert kernel["value"] < 1.3 < round_["value"]
    assert "the kernel is taken" in kernel["how"]
    assert kernel["n"] == error["n"] >= 15
    assert 0.2 < error["value"] / misplaced(fits.getdata(facts.psf_files[band]), CORE[band]) < 1.5
    assert f"{band} measured by sim/match.py from {kernel['n']} stars" in facts.sources["psf_files"]
    assert survey.with_suffix(".png").exists()


def test_the_files_of_a_survey_may_be_moved_together(survey: Path) -> None:
    assert yaml.safe_load(survey.read_text())["psf_files"] == {b: f"mine_psf_{b}.fits" for b in "gi"}


def seen_fwhm_arcsec(core: float) -> float:
    """Width of a star as sim/match.py sees it."""
    shape = light(core, 0, 0, 15)
    fit = fit_moffat(shape, np.ones(shape.shape, bool), shape.max() / 1000)
    assert fit is not None
    return fit.fwhm * SCALE


def test_a_scan_measures_a_star_better_with_the_kernel_than_with_the_moffat(survey: Path, tmp_path: Path) -> None:
    rng, flux, facts = np.random.default_rng(2), 2e4, read(survey)
    for k in range(4):
        planes = SIGMA * rng.normal(size=(2, 61, 61))
        for n, (band, core) in enumerate(CORE.items()):  # a star of the survey's median seeing
            planes[n] += flux * light(core, 0.3, -0.4, 61, facts.psf_fwhm_arcsec[band] / seen_fwhm_arcsec(core))
        header = fits.Header({"BANDS": "gi", "PIXSCALE": SCALE})
        fits.PrimaryHDU(planes.astype(np.float32), header).writeto(tmp_path / f"s{k}.fits")
    off, away = {}, {}
    for name, told in (("kernel", facts), ("moffat", replace(facts, psf_files={}))):
        options = IngestOptions(survey=told, workers=0, survey_psf=True)
        cutouts = [c for batch in Survey(tmp_path, options).batches() for c in batch.cutouts]
        got = [measure(c, np.array([[30.0, 30.0]]), np.full(2, np.nan)) for c in cutouts]
        off[name] = np.mean([np.abs(g.flux[0] / flux - 1).max() for g in got])
        away[name] = np.mean([np.hypot(*(g.xy_pix[0] - (30.3, 29.6))) for g in got])
    assert off["kernel"] < 0.025 < 0.5 * off["moffat"]
    assert away["kernel"] < 0.02 < away["moffat"]


def noted(images: Path, out: Path, *more: str) -> tuple[dict[str, object], list[str]]:
    """psf_files and the notes about them of a survey measured."""
    assert match.main(["--survey-dir", str(images), "--out", str(out), "--workers", "1", *more]) == 0
    facts = yaml.safe_load(out.read_text())
    return facts.get("psf_files", {}), [n for n in facts["measured"]["notes"] if n.startswith("psf_files")]


def test_too_few_stars_give_no_kernel_and_say_what_to_do(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 4, np.random.default_rng(3))
    files, notes = noted(images, tmp_path / "mine.yaml")
    assert not files
    assert not list(tmp_path.glob("*.fits"))
    assert all("too few for a kernel (10 are needed)" in n and "Give more" in n for n in notes)
    assert [n.split(":")[0] for n in notes] == ["psf_files.g", "psf_files.i"]


def test_faint_stars_of_a_moffat_keep_the_moffat(tmp_path: Path) -> None:
    rng, y, x = np.random.default_rng(5), *np.indices((SIDE, SIDE))
    (tmp_path / "images").mkdir()
    for k in range(10):
        plane = rng.normal(size=(SIDE, SIDE))
        for a, b in ((30, 35), (90, 85), (35, 95), (90, 30)):
            a, b = a + rng.uniform(-0.5, 0.5), b + rng.uniform(-0.5, 0.5)
            plane += rng.uniform(30, 60) * (1 + ((x - a) ** 2 + (y - b) ** 2) / 4.5**2) ** -3.5
        fits.PrimaryHDU(
            plane[None].astype(np.float32), fits.Header({"BANDS": "i", "PIXSCALE": SCALE, "MAGZP": 29.0})
        ).writeto(tmp_path / "images" / f"{k}.fits")
    files, notes = noted(tmp_path / "images", tmp_path / "mine.yaml")
    assert not files
    assert any("no better than the Moffat profile" in n for n in notes)


def star(rng: np.random.Generator, core: float, snr: float, stretch: float = 1.0) -> Star:
    """A star of sky noise 1, whose place, flux and sky are not well known."""
    side, (x, y) = 2 * reach_pix(2.5 * core) + 3, rng.uniform(-0.5, 0.5, 2)
    shape = light(core, x, y, side, stretch)
    flux = snr / shape.max()
    return Star(
        flux * shape + rng.normal(size=shape.shape), 1.0, x + 0.1 * rng.normal(), y, 1.1 * flux, 1.0, stretch
    )  # fmt: skip


@pytest.mark.parametrize("core", [0.93, 1.3, 2.1])  # FWHM of 2.3 to 5.2 pixels
def test_the_kernel_of_stars_of_any_seeing_is_that_of_the_median(core: float) -> None:
    rng = np.random.default_rng(1)
    stars = [star(rng, core, 120, stretch) for stretch in np.linspace(0.9, 1.1, 16)]
    start = moffat_kernel(2.5 * core, 3.0, 2 * reach_pix(2.5 * core) + 1)
    kernel, placed = fit_kernel(stars, start)
    assert misplaced(start, core) > 0.06
    assert misplaced(kernel, core) < 0.04
    assert len(placed) == 16


def test_a_neighbours_light_and_cosmic_rays_stay_out_of_the_kernel() -> None:
    rng = np.random.default_rng(4)
    stars = [star(rng, 1.5, 150) for _ in range(12)]
    for s in stars[::3]:
        s.pixels[5, 5:12] += 60
        s.pixels[:, -2:] = np.nan
    kernel, _ = fit_kernel(stars, moffat_kernel(3.75, 3.0, 2 * reach_pix(3.75) + 1))
    assert misplaced(kernel, 1.5) < 0.04


def test_a_star_by_the_edge_or_with_a_neighbour_in_its_core_has_no_stamp() -> None:
    plane = 1000 * light(1.5, 0, 0, 61)
    own = np.ones(plane.shape, bool)
    fit = fit_moffat(plane[22:39, 22:39], np.ones((17, 17), bool), 0.1)
    assert fit is not None
    got = stamp(plane, own, (30, 30), fit)
    assert got is not None
    assert np.isfinite(got).all()
    assert stamp(plane[28:], own[28:], (30, 2), fit) is None
    own[30, 34] = False
    assert stamp(plane, own, (30, 30), fit) is None
    own[:] = True
    own[30, 42] = False
    got = stamp(plane, own, (30, 30), fit)
    assert got is not None
    assert np.isnan(got).sum() == 5  # the pixel and those beside it
    assert stamp(plane, own, (30, 30), replace(fit, snr=20.0)) is None


def test_simulated_stars_have_their_kernel_and_beyond_it_the_surveys_aureole(survey: Path) -> None:
    facts, grid = read(survey), Grid(192, 0.1)
    plain, wide = (
        np.fft.irfft2(transfer(f, np.array(list(f.psf_fwhm_arcsec.values())), grid, np.random.default_rng(0))[1])
        for f in (facts, replace(facts, halo_fraction=0.1))
    )
    x = np.abs(np.fft.fftfreq(192, 1 / 192)) * 0.1
    far = np.hypot(x[:, None], x) > 5
    assert np.abs(plain[far]).sum() < 0.01
    assert 0.03 < wide[far].sum() < 0.1
    assert wide.sum() == pytest.approx(1, abs=1e-4)
