"""Claims about measuring a survey: what was put into images comes back within its errors; what is wanting is said."""

from pathlib import Path

import galsim
import numpy as np
import pytest
import yaml
from astropy.io import fits
from PIL import Image
from scipy.ndimage import gaussian_filter

from sim import match
from sim.matching import noise as match_noise
from sim.matching import psf as match_psf
from sim.matching import softening as match_softening
from sim.matching import stars as match_stars
from sim.matching import stretch as match_stretch
from sim.matching import transfer as match_transfer
from stages import config as configuration
from stages.records import FloatArray
from stages.stretch import from_composite
from stages.survey import Stretch, SurveyFacts

SCALE, SIDE, N_IMAGES = 0.25, 121, 24
FWHM = {"g": 1.1, "i": 0.85}
SIGMA = {"g": 2.0, "i": 4.0}
GAIN = {"g": 4.0, "i": 2.0}
BETA, SCATTER, WIDTH = 3.2, 0.06, 0.5
REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="../shared/real is not there")


def unit_noise(rng: np.random.Generator, width: float = WIDTH) -> FloatArray:
    white = gaussian_filter(rng.normal(size=(SIDE, SIDE)), width, mode="wrap")
    return np.asarray(white / white.std())


def seen_fwhm(fwhm: float) -> float:
    """FWHM of a Moffat profile on pixels, by GalSim."""
    return float(galsim.Convolve(galsim.Moffat(beta=BETA, fwhm=fwhm), galsim.Pixel(SCALE)).calculateFWHM())


def scene(rng: np.random.Generator) -> dict[str, FloatArray]:
    """A galaxy in the middle, stars and galaxies around it, drawn by GalSim."""
    seeing = float(np.exp(SCATTER * rng.normal()))
    objects = [("galaxy", 0.0, 0.0, 9e3, 1.2, 0.7)]
    taken = [(0.0, 0.0)]
    while len(taken) < 8:
        x, y = rng.uniform(-12.5, 12.5, 2)
        if min(np.hypot(x - a, y - b) for a, b in taken) > 5.5:
            taken.append((x, y))
            kind = "star" if rng.random() < 0.5 else "galaxy"
            flux = 10 ** rng.uniform(3.3, 4.3)
            objects.append((kind, x, y, flux, rng.uniform(0.4, 0.9), rng.uniform(0.5, 1)))
    out = {}
    for band, fwhm in FWHM.items():
        image = galsim.ImageF(SIDE, SIDE, scale=SCALE)
        psf = galsim.Moffat(beta=BETA, fwhm=fwhm * seeing)
        colour = {"star": 0.6, "galaxy": 0.4}
        for kind, x, y, flux, radius, q in objects:
            flux = flux * (colour[kind] if band == "g" else 1.0)
            shape = (
                psf
                if kind == "star"
                else galsim.Convolve(
                    galsim.Exponential(half_light_radius=radius).shear(q=q, beta=x * galsim.radians), psf
                )
            )
            shape.withFlux(flux).drawImage(image, add_to_image=True, offset=(x / SCALE, y / SCALE))
        light = image.array.astype(float)
        out[band] = light + unit_noise(rng) * np.sqrt(SIGMA[band] ** 2 + np.clip(light, 0, None) / GAIN[band]) + 7.0
    return out


def write(path: Path, planes: FloatArray, bands: str, **header: float | str) -> None:
    unit = fits.PrimaryHDU(planes.astype(np.float32))
    unit.header["BANDS"] = bands
    for key, value in header.items():
        unit.header[key] = value
    unit.writeto(path)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    rng = np.random.default_rng(3)
    for k in range(N_IMAGES):
        planes = scene(rng)
        write(folder / f"obj{k:02d}.fits", np.stack([planes[b] for b in "gi"]), "gi", PIXSCALE=SCALE, MAGZP=29.0)
    out = tmp_path_factory.mktemp("out") / "mine.yaml"
    assert match.main(["--survey-dir", str(folder), "--out", str(out), "--workers", "2"]) == 0
    return configuration.load(SurveyFacts, out)


def value(facts: SurveyFacts, quantity: str, band: str) -> tuple[float, float]:
    found = facts.measured[quantity][band]
    return found["value"], found["error"]


@pytest.mark.parametrize("band", ["g", "i"])
def test_the_seeing_of_the_stars_comes_back(measured, band):
    got, error = value(measured, "psf_fwhm_arcsec", band)
    assert error < 0.04
    assert abs(got - seen_fwhm(FWHM[band])) < 3 * error + 0.01


@pytest.mark.parametrize("band", ["g", "i"])
def test_the_sky_noise_comes_back(measured, band):
    got, error = value(measured, "sky_sigma", band)
    assert abs(got - SIGMA[band]) < 3 * error + 0.01 * SIGMA[band]


@pytest.mark.parametrize("band", ["g", "i"])
def test_the_gain_comes_back_from_photon_transfer(measured, band):
    got, error = value(measured, "gain", band)
    assert error < 0.4 * got
    assert abs(got - GAIN[band]) < 3 * error


def test_the_scatter_of_the_seeing_and_the_moffat_index_come_back(measured):
    got, error = value(measured, "psf_fwhm_scatter", "i")
    assert abs(got - SCATTER) < 3 * error
    got, error = value(measured, "psf_beta", "i")
    assert abs(got - BETA) < 3 * error + 0.1


def test_the_autocorrelation_is_the_filters_own(measured):
    point = np.zeros((31, 31))
    point[15, 15] = 1
    kernel = gaussian_filter(point, WIDTH)
    wanted = [[(kernel * np.roll(kernel, (dy, dx), (0, 1))).sum() for dx in range(3)] for dy in range(3)]
    got = np.array(measured.noise_correlation["g"])[:3, :3]
    np.testing.assert_allclose(got, np.array(wanted) / wanted[0][0], atol=0.02)
    assert measured.noise_correlation_pix == pytest.approx(WIDTH, abs=0.03)


def test_headers_give_the_zero_point_and_colours_follow(measured):
    assert measured.zero_point == {"g": 29.0, "i": 29.0}
    medians = [v["value"] for name, v in measured.measured["colour"].items() if name.startswith("g-i")]
    # Apertures lose more of the broader g image: redder by up to a quarter magnitude.
    assert np.all((np.array(medians) > -2.5 * np.log10(0.4) - 0.1) & (np.array(medians) < -2.5 * np.log10(0.4) + 0.3))


def test_stars_are_counted_as_often_as_they_were_drawn(measured):
    got, error = value(measured, "star_density_per_arcmin2", "all")
    assert abs(got - 3.5 / (SIDE * SCALE / 60) ** 2) < 3 * error


def test_every_number_names_its_source(measured):
    numbers = set(configuration.to_mapping(measured)) - {"name", "kind", "bands", "measured", "sources"}
    written = {
        n
        for n in numbers
        if getattr(measured, n) != SurveyFacts.__dataclass_fields__[n].default and getattr(measured, n)
    }
    assert written <= set(measured.sources)


def compact(width: FloatArray, index: FloatArray, image: FloatArray) -> match_stars.Compact:
    error = np.full(len(width), 0.01)
    return match_stars.Compact(width, error, np.log(index - 1), 20 * error, image)


def galaxies(rng: np.random.Generator, seeing: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Widths and Moffat indices as discs and spheroids have them in simulated DES images."""
    own = 10 ** (2 * rng.normal(-0.2, 0.15, len(seeing)))
    index = 1 + np.exp(rng.normal(np.where(rng.random(len(seeing)) < 0.5, np.log(0.8), np.log(2.2)), 0.3))
    return 0.5 * np.log10(10 ** (2 * seeing) * (1 + own)) + rng.normal(0, 0.01, len(seeing)), index


@pytest.mark.parametrize("seed", [5, 6])
def test_galaxies_alone_are_not_taken_for_stars(seed):
    rng = np.random.default_rng(seed)
    seeing = rng.normal(np.log10(0.8), 0.04, 120)
    width, index = galaxies(rng, seeing)
    assert not match_stars.star_locus(compact(width, index, np.arange(120.0))).found


def test_the_median_seeing_is_found_though_most_images_have_no_star_and_their_seeing_scatters():
    rng = np.random.default_rng(7)
    image = np.repeat(np.arange(90.0), 2)
    seeing = np.repeat(rng.normal(np.log10(0.8), 0.04, 90), 2)
    width, index = galaxies(rng, seeing)
    star = rng.random(180) < 0.25
    width[star] = seeing[star] + rng.normal(0, 0.01, star.sum())
    index[star] = 3.5 + rng.normal(0, 0.3, star.sum())
    locus = match_stars.star_locus(compact(width, index, image))
    assert locus.found
    assert locus.centre_error < 0.012
    assert abs(locus.centre - np.log10(0.8)) < 3 * locus.centre_error
    assert abs(locus.scatter - 0.04) < 3 * locus.scatter_error
    assert locus.stars[star].mean() > 0.75
    assert locus.stars[~star].mean() < 0.1


def test_a_moffat_profile_off_centre_is_fitted():
    image = galsim.ImageF(21, 21, scale=1.0)
    galsim.Moffat(beta=2.7, fwhm=3.4).shear(g1=0.1, g2=-0.05).withFlux(1e4).drawImage(image, offset=(0.3, -0.4))
    fit = match_psf.fit_moffat(image.array + 5.0, np.ones((21, 21), bool), 1.0)
    assert fit is not None
    assert (fit.x, fit.y) == pytest.approx((0.3, -0.4), abs=0.01)
    assert fit.beta == pytest.approx(2.7, abs=0.1)
    assert (fit.e1, fit.e2) == pytest.approx((0.1, -0.05), abs=0.01)


def test_masked_pixels_do_not_count_in_the_autocorrelation():
    rng = np.random.default_rng(7)
    data, kept = rng.normal(size=(80, 60)), rng.random((80, 60)) < 0.6
    correlation, pairs = match_noise.autocorrelation(np.where(kept, data, 1e9), kept)
    d = data - data[kept].mean()
    both = kept[:-1, 1:] & kept[1:, :-1]  # dy = 1, dx = -1
    assert pairs[1, 3] == both.sum()
    assert correlation[1, 3] == pytest.approx((d[1:, :-1] * d[:-1, 1:])[both].mean() / d[kept].var(), abs=1e-6)


def lupton(flux: FloatArray, scales: FloatArray, alpha: float, q: float) -> FloatArray:
    planes = flux * scales[:, None, None]
    total = planes.sum(axis=0) / 3
    return np.asarray(planes * np.arcsinh(alpha * q * total) / (q * total))


@pytest.mark.parametrize("truncated", [False, True])
def test_a_stretch_comes_back_from_a_pair_however_the_picture_lies(tmp_path, truncated):
    rng = np.random.default_rng(8)
    light = gaussian_filter(rng.exponential(1, (3, 90, 70)) ** 3, (0, 2, 2))
    level = 255 * np.clip(lupton(light, np.array([0.5, 0.8, 1.7]), 0.08, 5.0), 0, 1)
    picture = (np.floor(level) if truncated else np.round(level)).astype(np.uint8).transpose(1, 2, 0)[::-1]
    Image.fromarray(picture).save(tmp_path / "p.png")
    paths = []
    for plane, band in zip(light, "irg", strict=True):
        paths.append(tmp_path / f"f_{band}.fits")
        fits.PrimaryHDU(plane.astype(np.float32), fits.Header({"FILTER": band})).writeto(paths[-1])
    fit = match_stretch.fit_pair([*paths, tmp_path / "p.png"], rng)
    assert fit.stretch.bands == ("i", "r", "g")
    assert fit.flip == "upside down"
    assert fit.truncated == truncated
    np.testing.assert_allclose(
        np.array(fit.stretch.scales) * fit.stretch.alpha, np.array([0.5, 0.8, 1.7]) * 0.08, rtol=0.01
    )
    assert fit.stretch.q == pytest.approx(5.0, rel=0.02)


def compact_pictures(q: float, rng: np.random.Generator) -> FloatArray:
    """8-bit mean planes (n, 17, 17), 0 to 1, of stars, and of galaxies that are broader and have another index."""
    out: list[FloatArray] = []
    y, x = np.indices((85, 85)) / 5 - 8.4
    while len(out) < 90:
        star, fwhm = rng.random() < 0.6, 3.5 * np.exp(0.1 * rng.normal())
        fwhm, beta = (fwhm, 3.4) if star else (fwhm * rng.uniform(1.15, 1.8), rng.uniform(1.8, 5))
        radius = np.hypot(x - rng.uniform(-0.5, 0.5), y - rng.uniform(-0.5, 0.5)) / fwhm
        fine = (1 + (2 * radius) ** 2 * (2 ** (1 / beta) - 1)) ** -beta
        light = fine.reshape(17, 5, 17, 5).mean(axis=(1, 3)) * 10 ** rng.uniform(-0.7, 1.4)
        flux = np.array([1.1, 1.0, 0.8])[:, None, None] * light + 0.02 * rng.normal(size=(3, 17, 17))
        levels = np.floor(255 * np.clip(lupton(flux, np.ones(3), 1.0, q), 0, 1))
        if 0.15 * 255 < levels.max() < 250:
            out.append(levels.mean(axis=0) / 255)
    return np.array(out)


@pytest.mark.parametrize("q", [3.0, 5.1])
def test_the_softening_of_composites_comes_back_from_their_stars_alone(q):
    rng = np.random.default_rng(11)
    fit = match_softening.fit_softening([compact_pictures(q, rng)], rng)
    assert fit is not None
    assert abs(fit.q - q) < 2 * fit.error
    assert fit.error < 0.5 * q


def test_too_few_stars_give_no_softening():
    assert match_softening.fit_softening([np.zeros((3, 17, 17))], np.random.default_rng(1)) is None


def test_photon_transfer_is_not_misled_by_the_structure_of_objects():
    rng = np.random.default_rng(12)
    images, sigma, gain = [], 3.0, 5.0
    for _ in range(12):
        points = np.zeros((SIDE, SIDE))
        points[tuple(rng.integers(0, SIDE, (2, 400)))] = 10 ** rng.uniform(2, 3.3, 400)
        light = gaussian_filter(points, 1.4)
        data = light + rng.normal(size=light.shape) * np.sqrt(sigma**2 + light / gain)
        whole = np.ones(light.shape, bool)
        images.append((match_transfer.transfer_samples(data, whole, light < 0.05 * sigma, sigma, rng), sigma))
    found = match_transfer.photon_transfer(images, rng)
    assert found is not None
    assert found.error < 0.3 / gain
    assert abs(found.inverse_gain - 1 / gain) < 2 * found.error


def test_noise_and_shift_of_a_composite_come_back():
    stretch = Stretch(("i", "r", "g"), (0.5, 0.75, 2.1), 30.0, 0.08, 5.0)
    rng = np.random.default_rng(9)
    sigma = np.array([1.9, 1.3, 0.6])
    flux = gaussian_filter(rng.normal(size=(3, 400, 400)), (0, 0.45, 0.45))
    flux *= (sigma / flux.std(axis=(1, 2)))[:, None, None]
    levels = np.round(255 * np.clip(lupton(flux, np.array(stretch.scales), 0.08, 5.0), 0, 1)).transpose(1, 2, 0)
    moved = np.ceil(
        0.8 * (0.7 * levels[:-1, :-1] + 0.3 * levels[:-1, 1:])
        + 0.2 * (0.7 * levels[1:, :-1] + 0.3 * levels[1:, 1:])
        - 1e-6
    )
    picture = moved.astype(np.uint8)
    sky = match_noise.sky_mask(from_composite(picture, stretch).astype(float), np.ones((3, 399, 399), bool), True)
    fit = match_stretch.fit_quiet(match_stretch.quiet_statistics(picture, sky), stretch, 1)
    np.testing.assert_allclose(fit.sky_sigma, sigma, rtol=0.06)
    assert fit.shift_pix == pytest.approx((0.3, 0.2), abs=0.06)


def run(capsys, *arguments: str) -> tuple[int, str]:
    code = match.main(list(arguments))
    return code, capsys.readouterr().err


def test_a_folder_without_images_is_refused_in_one_line(tmp_path, capsys):
    code, said = run(capsys, "--survey-dir", str(tmp_path), "--out", str(tmp_path / "o.yaml"))
    assert code == 2
    assert said.strip().count("\n") == 0
    assert "Give a folder" in said


def test_an_out_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, said = run(capsys, "--survey-dir", str(tmp_path), "--out", str(tmp_path / "file" / "o.yaml"))
    assert code == 2
    assert "Choose another --out" in said


def test_unreadable_images_are_refused_with_the_first_reason(tmp_path, capsys):
    for k in range(3):
        (tmp_path / f"x{k}.fits").write_bytes(b"no fits at all")
    code, said = run(capsys, "--survey-dir", str(tmp_path), "--out", str(tmp_path / "o.yaml"))
    assert code == 2
    assert "Not a FITS file" in said
    assert not (tmp_path / "o.yaml").exists()


def test_blank_sky_without_stars_needs_a_base_and_says_what_was_taken(tmp_path, capsys):
    rng = np.random.default_rng(4)
    data = tmp_path / "in"
    data.mkdir()
    for k in range(3):
        plane = 5 * rng.normal(size=(1, 80, 80))
        plane[0, :20, :30] = np.nan
        write(data / f"b{k}.fits", plane, "r")
    arguments = ["--survey-dir", str(data), "--out", str(tmp_path / "o.yaml")]
    code, said = run(capsys, *arguments)
    assert code == 2
    assert "Give --survey" in said
    assert match.main([*arguments, "--survey", "des"]) == 0
    facts = configuration.load(SurveyFacts, tmp_path / "o.yaml")
    assert facts.sky_sigma["r"] == pytest.approx(5, rel=0.03)
    assert (
        facts.psf_fwhm_arcsec["r"]
        == configuration.load(SurveyFacts, configuration.CONFIG_DIR / "surveys/des.yaml").psf_fwhm_arcsec["r"]
    )
    notes = " ".join(facts.measured["notes"])
    assert "no stars found" in notes
    assert "not measured" in facts.sources["psf_fwhm_arcsec"]


def test_the_answer_does_not_depend_on_the_workers(tmp_path):
    rng = np.random.default_rng(5)
    data = tmp_path / "in"
    data.mkdir()
    for k in range(10):
        write(data / f"b{k}.fits", 5 * rng.normal(size=(1, 64, 64)), "r", PIXSCALE=0.263)
    for workers in ("1", "2"):
        out = tmp_path / f"w{workers}" / "o.yaml"
        assert match.main(["--survey-dir", str(data), "--out", str(out), "--survey", "des", "--workers", workers]) == 0
    assert (tmp_path / "w1/o.yaml").read_bytes() == (tmp_path / "w2/o.yaml").read_bytes()


@needs_real
def test_the_stretch_of_the_cfhtls_pair_is_found_to_the_rounding(tmp_path):
    field = REAL / "cfhtls_field"
    paths = [field / f"CFHTLS-test_{b}.fits" for b in "irg"] + [field / "CFHTLS-test_gri.png"]
    fit = match_stretch.fit_pair(paths, np.random.default_rng(1))
    assert fit.misfit < 0.3


@needs_real
def test_des_cutouts_give_the_published_seeing(tmp_path):
    arguments = ["--survey-dir", str(REAL / "des_fields"), "--out", str(tmp_path / "o.yaml"), "--limit", "46"]
    assert match.main(arguments) == 0
    facts = yaml.safe_load((tmp_path / "o.yaml").read_text())
    published = {"g": 1.11, "r": 0.95, "i": 0.88, "z": 0.83}  # DES DR2, Abbott et al. 2021, Table 1
    for band, fwhm in published.items():
        found = facts["measured"]["psf_fwhm_arcsec"][band]
        assert found["value"] == pytest.approx(fwhm, abs=2 * found["error"] + 0.01)
