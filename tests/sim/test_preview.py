"""Contact sheets: one per kind and stratum, lenses beside their twins, pictures the right way up."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sim import preview
from sim.picture import picture, sheet
from stages.dataset import read_shards
from stages.records import Cutout


def cutout(flux: np.ndarray, bands: tuple[str, ...], variance: float = 1.0) -> Cutout:
    return Cutout(
        id="a",
        source="",
        flux=flux.astype(np.float32),
        variance=np.full(flux.shape, variance, np.float32),
        valid=np.isfinite(flux),
        bands=bands,
        pixel_scale_arcsec=0.2,
        psf_fwhm_arcsec=np.ones(len(bands)),
        psf=np.zeros((0, 0, 0), np.float32),
        xy_pix=np.zeros(2),
        origin_xy_pix=np.zeros(2),
    )


def test_north_is_up_and_the_reddest_band_is_red_whatever_the_order_of_bands() -> None:
    flux = np.zeros((3, 20, 30))
    flux[0, 18, 5] = 500.0  # i, high up on the left
    image = picture(cutout(flux, ("i", "g", "r")))
    assert image.shape == (20, 30, 3)
    assert image[1, 5, 0] > 100
    assert image[1, 5, 1:].max() < 50


@pytest.mark.parametrize("variance", [1.0, float("nan")])
def test_the_picture_is_the_same_in_any_unit_and_on_any_sky(variance: float) -> None:
    flux = np.random.default_rng(1).normal(size=(3, 40, 50))
    flux[:, 20, 20] += 40
    plain = picture(cutout(flux, ("g", "r", "i"), variance)).astype(int)
    scaled = picture(cutout(5.0 + 7.0 * flux, ("g", "r", "i"), 49 * variance)).astype(int)
    assert np.abs(plain - scaled).max() <= 1


def test_absent_pixels_and_one_band_are_drawn() -> None:
    flux = np.random.default_rng(1).normal(size=(1, 12, 9))
    flux[0, :4] = np.nan
    image = picture(cutout(flux, ("r",)))
    assert np.array_equal(image[..., 0], image[..., 2])
    assert not np.isnan(image.astype(float)).any()
    picture(cutout(np.full((1, 5, 5), np.nan), ("r",)))


def test_a_sheet_has_room_for_every_tile_and_an_empty_one_is_a_picture() -> None:
    tile = np.full((8, 8, 3), 200, np.uint8)
    drawn = sheet([(tile, "a"), (tile, "b\nc"), (tile, "d")], 2, 32)
    assert (np.asarray(drawn)[:, :, 0] == 200).sum() == 3 * 32 * 32
    assert sheet([], 2, 32).size[0] > 0


def test_every_kind_and_stratum_of_a_data_set_has_a_sheet(data_dir: Path, tmp_path: Path) -> None:
    index = preview.write_sheets(data_dir / "des", tmp_path)
    page = index.read_text()
    truth = next(read_shards(data_dir / "des")).truth
    for kind in set(truth["kind"]):
        name = kind.replace("_", "-")
        assert f'src="{name}.png"' in page
        Image.open(tmp_path / f"{name}.png").verify()
    shown = sorted(p.name for p in tmp_path.glob("*.png"))
    assert all(f'src="{name}"' in page for name in shown)
    assert any(name.startswith("einstein-radius-over-seeing") for name in shown)


def test_the_overlay_outlines_the_mask_and_marks_each_parity(data_dir: Path) -> None:
    shard = next(read_shards(data_dir / "des"))
    lenses = np.nonzero((shard.truth["label"] == 1) & shard.arc_mask.any(axis=(1, 2)))[0]
    k = int(lenses[0])
    drawn = preview._annotated(shard.cutouts[k], shard.truth.iloc[k], shard.arc_mask[k])
    assert (drawn == (255, 255, 120)).all(axis=2).any()
    inside = (drawn == preview._PARITY_COLOUR[1]).all(axis=2)
    row = shard.truth.iloc[k]
    high = shard.arc_mask.shape[1]
    j = int(np.argmax(row["image_parity"]))
    v, u = (high - 0.5 - row["image_y_pix"][j]) * 3, (row["image_x_pix"][j] + 0.5) * 3
    assert inside[int(v) - 2 : int(v) + 3, int(u) - 2 : int(u) + 3].any()


def test_a_folder_without_data_is_an_error_that_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preview.main(["--data", str(tmp_path)]) == 2
    assert "Make one with" in capsys.readouterr().err
