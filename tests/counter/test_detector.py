"""Pictures for the detector and what its boxes mean."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.config import WEIGHTS_DIR
from stages.counter.detector import PSF_PIX, CounterConfig, build, detect, frame_of, picture
from stages.counter.evaluate import apart
from stages.counter.pictures import true_boxes, write_pictures
from stages.counter.predict import load
from stages.dataset import read_shards
from tests.counter.test_photometry import scene


def test_frame_spans_the_resolution_and_covers_the_cutout() -> None:
    frame = frame_of(scene([]))
    assert 0.3 / frame.pixel_arcsec == pytest.approx(PSF_PIX)
    assert frame.size_pix % 32 == 0
    assert frame.size_pix * frame.pixel_arcsec >= 4.0


def test_picture_places_a_point_where_origin_and_step_say() -> None:
    cutout = scene([(24.0, 15.0, 400.0)])
    shown, origin, step = picture(cutout, frame_of(cutout))
    row, column = np.unravel_index(int(shown[..., 1].argmax()), shown.shape[:2])
    np.testing.assert_allclose(origin + step * np.array([column, row]), [24, 15], atol=0.6)


def test_invalid_pixels_are_shown_as_zero_and_no_others() -> None:
    cutout = scene([(24.0, 15.0, 400.0)])
    valid = cutout.valid.copy()
    valid[:, :12] = False
    shown, origin, step = picture(type(cutout)(**{**cutout.__dict__, "valid": valid}), frame_of(cutout))
    native_row = origin[1] + step * np.arange(len(shown))
    inside = (native_row > 13) & (native_row < 38)
    middle = shown.shape[1] // 2
    assert (shown[native_row < 11, middle] == 0).all()
    assert (shown[inside, middle] > 0).all()


def test_untrained_network_answers_for_every_size() -> None:
    torch.manual_seed(0)
    net = build(8).eval()
    cutouts = [scene([(20.0, 20.0, 90.0)]), scene([], fwhm_pix=6.0)]
    found = detect(net, cutouts)
    assert len(found) == 2
    assert all(f.xy_pix.shape == (len(f.confidence), 2) for f in found)


def test_pictures_on_disk_have_boxes_on_their_points(data_dir: Path, tmp_path: Path) -> None:
    write_pictures(data_dir, tmp_path, CounterConfig(workers=1, plain_share=1.0))
    labels = sorted((tmp_path / "labels" / "train").glob("*.txt"))
    boxes = [line.split() for path in labels for line in path.read_text().splitlines()]
    assert {b[0] for b in boxes} == {"0", "1"}
    assert all(0 < float(v) < 1 for b in boxes for v in b[1:])
    assert len(labels) == len(list((tmp_path / "images" / "train").glob("*.png")))


def test_true_boxes_merge_blends_and_leave_out_the_faint(data_dir: Path) -> None:
    shard = next(read_shards(data_dir))
    row = shard.truth.iloc[0].copy()
    row["point_x_pix"], row["point_y_pix"], row["point_snr"] = [5.0, 5.4, 30.0, 40.0], [5.0] * 4, [50.0, 20.0, 9.0, 2.0]
    row["deflector_x_pix"] = np.nan
    points, deflector = true_boxes(row, shard.cutouts[0], 6.0)
    np.testing.assert_array_equal(points, [[5, 5], [30, 5]])
    assert deflector.shape == (0, 2)


def test_shipped_detector_counts_a_plain_quad() -> None:
    truth = np.array([[11.0, 19.0], [28.0, 21.0], [20.0, 10.0], [19.0, 29.5]])
    cutout = scene([(x, y, 60.0) for x, y in truth])
    (count,) = load(WEIGHTS_DIR / "counter.safetensors").predict([cutout])
    assert len(count.xy_pix) == 4
    for position in truth:
        assert np.hypot(*(count.xy_pix - position).T).min() < 0.3
    assert count.certificate.verdict in ("supports", "possible")


def test_pairs_are_told_by_their_distance() -> None:
    assert apart(np.array([[0.0, 0.0], [3.0, 4.0]]), 5.0) == "clear"
    assert apart(np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]]), 4.0) == "close"
    assert apart(np.array([[0.0, 0.0], [2.0, 0.0]]), 4.0) == "merged"
    assert apart(np.empty((0, 2)), 4.0) == "clear"
