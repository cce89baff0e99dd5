"""Every format that users hold: read, named, scaled and masked as its files say."""

import os
import signal
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from PIL import Image

from stages.ingest import IngestOptions, InputError, Survey
from stages.records import Cutout, CutoutBatch, Problem


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def read(path: Path, **options: object) -> tuple[list[Cutout], list[Problem]]:
    got = list(Survey(path, IngestOptions(workers=0, **options)).batches())
    return [c for b in got for c in b.cutouts], [p for b in got for p in b.problems]


def write(path: Path, data: np.ndarray, **header: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(data, fits.Header({k.replace("__", "-"): v for k, v in header.items()})).writeto(path)
    return path


def test_cube_with_bands_scale_and_unit(tmp_path: Path) -> None:
    data = noise(3, 40, 50)
    write(tmp_path / "a.fits", data, BANDS="gri", PIXSCALE=0.25, BUNIT="nJy", SEEING=0.9)
    (cutout,), problems = read(tmp_path)
    assert not problems
    assert (cutout.id, cutout.bands, cutout.unit, cutout.reasons) == ("a", ("g", "r", "i"), "nJy", ())
    assert cutout.pixel_scale_arcsec == 0.25
    np.testing.assert_array_equal(cutout.flux, data)
    np.testing.assert_allclose(cutout.psf_fwhm_arcsec, 0.9)
    np.testing.assert_allclose(cutout.xy_pix + cutout.origin_xy_pix, [24.5, 19.5])


def test_numbered_seeing_belongs_to_the_plane_of_its_number(tmp_path: Path) -> None:
    write(
        tmp_path / "a.fits", noise(3, 30, 30), BANDS="gri", PIXSCALE=0.25, FWHM1=1.1, FWHM2=0.9, FWHM3=0.8, SEEING=0.9
    )
    (cutout,), _ = read(tmp_path)
    np.testing.assert_allclose(cutout.psf_fwhm_arcsec, [1.1, 0.9, 0.8])


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_extensions_error_mask_and_psf(tmp_path: Path, suffix: str) -> None:
    data, error = noise(30, 30), np.ones((30, 30), np.float32)
    error[3, 4] = 1e9
    mask = np.zeros((30, 30), np.int16)
    mask[5, 6] = 4
    y, x = np.mgrid[-7:8, -7:8]
    psf = np.exp(-0.5 * (x**2 + y**2) / 1.5**2)
    units = [fits.PrimaryHDU(data), fits.ImageHDU(error, name="ERR"), fits.ImageHDU(psf, name="PSF")]
    fits.HDUList([*units, fits.ImageHDU(mask, name="MASK")]).writeto(tmp_path / f"obj{suffix}")
    (cutout,), _ = read(tmp_path)
    assert cutout.id == "obj"
    assert "assumed_pixel_scale" in cutout.reasons
    assert {(r, c) for _, r, c in np.argwhere(~cutout.valid).tolist()} == {(3, 4), (5, 6)}
    assert np.isnan(cutout.flux[~cutout.valid]).all()
    np.testing.assert_allclose(cutout.variance[cutout.valid], 1)
    np.testing.assert_allclose(cutout.psf.sum((1, 2)), 1, rtol=1e-5)
    assert cutout.psf_fwhm_arcsec[0] / cutout.pixel_scale_arcsec == pytest.approx(2.3548 * 1.5, rel=0.05)


@pytest.mark.parametrize(
    ("header", "scale"),
    [
        ({"CD1_1": -7e-5, "CD2_2": 7e-5}, 0.252),
        ({"CDELT1": -5e-5, "CDELT2": 5e-5, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}, 0.18),
        (
            {"CDELT1": 1.0, "CDELT2": 1.0, "PC1_1": -6e-5, "PC2_2": 6e-5, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"},
            0.216,
        ),
        ({"PIXSCALE": 0.03}, 0.03),
    ],
)
def test_pixel_scale(tmp_path: Path, header: dict[str, object], scale: float) -> None:
    write(tmp_path / "a.fits", noise(32, 32), **header)
    (cutout,), _ = read(tmp_path)
    assert cutout.pixel_scale_arcsec == pytest.approx(scale, rel=1e-4)
    assert "assumed_pixel_scale" not in cutout.reasons


def test_one_file_per_band_with_companions(tmp_path: Path) -> None:
    for k, band in enumerate("gri"):
        write(tmp_path / f"X_{band}_sci.fits", noise(40, 40, seed=k) * 2, PIXSCALE=0.2)
        write(tmp_path / f"X_{band}_var.fits", np.full((40, 40), 4, np.float32))
        write(tmp_path / f"Y_{band}_sci.fits", noise(40, 40, seed=k + 5), PIXSCALE=0.2)
        write(tmp_path / f"Y_{band}_rms.fits", np.ones((40, 40), np.float32))
    (tmp_path / "Y_g_sci.fits").unlink()
    (x, y), problems = read(tmp_path)
    assert not problems
    assert (x.id, x.bands, x.reasons) == ("X", ("g", "r", "i"), ())
    np.testing.assert_allclose(x.variance, 4)
    assert (y.id, y.bands, y.reasons) == ("Y", ("r", "i"), ("missing_band",))


def test_folder_per_object_and_implausible_weights(tmp_path: Path) -> None:
    for band in "gi":
        write(tmp_path / "J1234" / f"{band}_sci.fits", noise(40, 40), PIXSCALE=0.4)
        write(tmp_path / "J1234" / f"{band}_wht.fits", np.full((40, 40), 1e-6, np.float32))
    (cutout,), _ = read(tmp_path)
    assert (cutout.id, cutout.reasons) == ("J1234", ("noise_map_ignored",))
    assert np.isnan(cutout.variance).all()


def test_tile_with_catalogue_pads_edges_as_invalid(tmp_path: Path) -> None:
    tile = noise(100, 120) + np.arange(100, dtype=np.float32)[:, None]
    write(tmp_path / "tiles" / "t1.fits", tile, PIXSCALE=0.2, FILTER="r")
    (tmp_path / "cat.csv").write_text(
        "id,tile,x,y\na,tiles/t1.fits,60,50\nb,tiles/t1.fits,1,2\nc,tiles/t1.fits,400,2\n"
    )
    (a, b), problems = read(tmp_path, catalogue=tmp_path / "cat.csv", cutout_arcsec=8.0)
    assert [(p.id, p.reason) for p in problems] == [("c", "outside_tile")]
    np.testing.assert_array_equal(a.flux[0], tile[30:71, 40:81])
    np.testing.assert_allclose(a.origin_xy_pix + a.xy_pix, [60, 50])
    assert b.flux.shape == a.flux.shape
    assert np.isnan(b.flux[~b.valid]).all()
    assert b.valid.sum() == (1 + 20 + 1) * (2 + 20 + 1)
    assert "masked_pixels" in b.reasons


@pytest.mark.parametrize("format", ["csv", "fits", "votable"])
def test_catalogue_formats_and_sky_positions(tmp_path: Path, format: str) -> None:
    header = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 51.0, "CRPIX2": 51.0,
        "CD1_1": -0.2 / 3600, "CD2_2": 0.2 / 3600,
    }  # fmt: skip
    write(tmp_path / "t.fits", noise(101, 101), **header)
    table = Table({"id": ["n"], "tile": ["t.fits"], "ra": [150.0], "dec": [2.0 + 10 * 0.2 / 3600]})
    path = tmp_path / f"cat.{'xml' if format == 'votable' else format}"
    table.write(path, format="ascii.csv" if format == "csv" else format)
    (cutout,), _ = read(tmp_path, catalogue=path)
    np.testing.assert_allclose(cutout.xy_pix + cutout.origin_xy_pix, [50, 60], atol=1e-3)
    assert (cutout.ra_deg, cutout.pixel_scale_arcsec) == (150.0, pytest.approx(0.2, rel=1e-4))


def test_picture_by_survey_name_and_unknown(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 90, (60, 70, 3)).astype(np.uint8)
    picture[10:30, 10:30] = 0
    Image.fromarray(picture).save(tmp_path / "CFHTLSJ1.png")
    Image.fromarray(picture).save(tmp_path / "other.png")
    (known, other), _ = read(tmp_path)
    assert (known.survey, known.pixel_scale_arcsec) == ("cfhtls_composite", 0.186)
    assert "assumed_stretch" not in known.reasons
    assert not known.valid[:, 12:28, 12:28].any()
    assert {"assumed_stretch", "assumed_pixel_scale"} <= set(other.reasons)


@pytest.mark.parametrize(
    ("shape", "ids", "planes"),
    [
        ((5, 3, 40, 40), ["0", "1", "2", "3", "4"], 3),
        ((7, 40, 40), [str(k) for k in range(7)], 1),
        ((4, 40, 40, 3), list("0123"), 3),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
def test_arrays_of_objects(tmp_path: Path, shape: tuple[int, ...], ids: list[str], planes: int, kind: str) -> None:
    data = noise(*shape)
    if kind == "npy":
        np.save(tmp_path / "a.npy", data)
    elif kind == "npz":
        np.savez(tmp_path / "a.npz", images=data, labels=np.zeros(len(data)))
    else:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["images"] = data
    cutouts, _ = read(tmp_path, batch_size=3)
    assert [c.id for c in cutouts] == ids
    assert all(c.flux.shape == (planes, 40, 40) for c in cutouts)
    last = data[-1] if shape[-1] != 3 else np.moveaxis(data[-1], -1, 0)
    np.testing.assert_array_equal(cutouts[-1].flux.reshape(last.shape), last)


def test_folder_of_single_arrays(tmp_path: Path) -> None:
    (tmp_path / "axion").mkdir()
    np.save(tmp_path / "axion" / "s1.npy", noise(1, 64, 64))
    np.save(tmp_path / "s2.npy", noise(64, 64))
    cutouts, _ = read(tmp_path)
    assert sorted(c.id for c in cutouts) == ["s1", "s2"]


def test_survey_facts_fill_what_files_lack(tmp_path: Path) -> None:
    from stages import config
    from stages.survey import SurveyFacts

    facts = config.load(SurveyFacts, config.CONFIG_DIR / "surveys" / "des.yaml")
    np.save(tmp_path / "a.npy", noise(4, len(facts.bands), 40, 40))
    cutouts, _ = read(tmp_path, survey=facts)
    assert {(c.bands, c.pixel_scale_arcsec, c.reasons) for c in cutouts} == {
        (facts.bands, facts.pixel_scale_arcsec, ())
    }


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: p.write_bytes(b""), "empty_file"),
        (lambda p: p.write_text("not a FITS file"), "wrong_type"),
        (lambda p: write(p, np.full((30, 30), np.nan, np.float32)), "no_valid_pixels"),
        (lambda p: write(p, np.zeros((30, 30), np.float32)), "no_valid_pixels"),
        (lambda p: write(p, noise(4, 4)), "too_small"),
        (lambda p: write(p, np.full((30, 30), 7, np.float32)), "constant_image"),
        (lambda p: p.write_bytes(write(p.parent / ".whole", noise(90, 90)).read_bytes()[:9000]), "truncated"),
        (lambda p: Table({"x": [1, 2]}).write(p), "no_image"),
    ],
)
def test_bad_file_has_a_reason_and_loses_nobody(tmp_path: Path, make: object, reason: str) -> None:
    write(tmp_path / "good.fits", noise(30, 30), PIXSCALE=0.2)
    make(tmp_path / "bad.fits")  # type: ignore[operator]
    cutouts, problems = read(tmp_path)
    assert [c.id for c in cutouts] == ["good"]
    assert [(p.id, p.reason, p.status) for p in problems] == [("bad", reason, "skipped")]
    assert problems[0].message.endswith(".")


def test_duplicate_ids_side_files_and_unknown_types(tmp_path: Path) -> None:
    for folder in "ab":
        write(tmp_path / folder / "same.fits", noise(30, 30), PIXSCALE=0.2)
    (tmp_path / "README.txt").write_text("hello")
    (tmp_path / "movie.avi").write_bytes(b"x")
    cutouts, problems = read(tmp_path)
    assert [c.source for c in cutouts] == ["a/same.fits"]
    assert {(p.id, p.reason) for p in problems} == {
        ("same", "duplicate_id"),
        ("", "not_an_image"),
        ("movie", "wrong_type"),
    }


def test_missing_band_plane_is_invalid_not_zero(tmp_path: Path) -> None:
    data = noise(3, 40, 40)
    data[1] = np.nan
    write(tmp_path / "a.fits", data, BANDS="gri", PIXSCALE=0.2)
    (cutout,), _ = read(tmp_path)
    assert "missing_band" in cutout.reasons
    assert not cutout.valid[1].any()
    assert np.isnan(cutout.flux[1]).all()


def test_zeroed_block_among_noise_is_invalid(tmp_path: Path) -> None:
    data = noise(40, 40)
    data[:, :9] = 0
    write(tmp_path / "a.fits", data, PIXSCALE=0.2)
    (cutout,), _ = read(tmp_path)
    assert not cutout.valid[0, :, :9].any()
    assert cutout.valid[0, :, 9:].all()


@pytest.mark.parametrize(
    ("prepare", "catalogue", "says"),
    [
        (lambda d: None, None, "holds no image"),
        (lambda d: d.rmdir(), None, "no such file or folder"),
        (
            lambda d: write(d / "t.fits", noise(30, 30)),
            "id,tile,x,y\na,absent.fits,1,2\n",
            "1 of 1 tiles are not there",
        ),
        (lambda d: write(d / "t.fits", noise(30, 30)), "id,tile\na,t.fits\n", "Give x and y"),
        (lambda d: write(d / "t.fits", noise(30, 30)), "id,tile,x,y\n", "no rows"),
    ],
)
def test_impossible_request_says_what_to_do(tmp_path: Path, prepare: object, catalogue: str | None, says: str) -> None:
    folder = tmp_path / "survey"
    folder.mkdir()
    prepare(folder)  # type: ignore[operator]
    path = None
    if catalogue is not None:
        path = tmp_path / "cat.csv"
        path.write_text(catalogue)
    with pytest.raises(InputError, match=says):
        read(folder, catalogue=path)


def test_batches_are_the_same_whatever_the_workers_and_can_be_skipped(tmp_path: Path) -> None:
    for k in range(11):
        write(tmp_path / f"o{k:02d}.fits", noise(30, 30, seed=k), PIXSCALE=0.2)
    (tmp_path / "o03.fits").write_bytes(b"")

    def ids(workers: int, first: int = 0) -> list[list[str]]:
        survey = Survey(tmp_path, IngestOptions(workers=workers, batch_size=4))
        return [[c.id for c in b.cutouts] + [p.id for p in b.problems] for b in survey.batches(first)]

    assert ids(0) == ids(2)
    assert ids(0)[1:] == ids(2, first=1)
    assert sorted(i for b in ids(0) for i in b) == [f"o{k:02d}" for k in range(11)]


def _deadly() -> Callable[[Callable[[], CutoutBatch]], int]:
    """Works on the first batch, and kills its process on the second."""
    return _work_then_die


def _work_then_die(read: Callable[[], CutoutBatch]) -> int:
    batch = read()
    if batch.cutouts[0].id == "o04":
        os.kill(os.getpid(), signal.SIGKILL)
    return len(batch.cutouts)


def test_a_killed_process_is_one_clear_error(tmp_path: Path) -> None:
    for k in range(8):
        write(tmp_path / f"o{k:02d}.fits", noise(30, 30, seed=k), PIXSCALE=0.2)
    with pytest.raises(InputError, match="run again with --resume"):
        list(Survey(tmp_path, IngestOptions(workers=1, batch_size=4)).mapped(_deadly))


def test_leaving_early_leaves_no_process_behind(tmp_path: Path) -> None:
    for k in range(12):
        write(tmp_path / f"o{k:02d}.fits", noise(30, 30, seed=k), PIXSCALE=0.2)
    stream = Survey(tmp_path, IngestOptions(workers=2, batch_size=2)).batches()
    next(stream)
    assert active_children()
    stream.close()
    assert not active_children()
