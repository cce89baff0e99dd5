"""Tiles for the detector and what its boxes mean."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stages.config import WEIGHTS_DIR
from stages.counter import predict
from stages.counter.detector import (
    PSF_PIX,
    CounterConfig,
    Detections,
    boxes_of,
    build,
    detect,
    frame_of,
    in_field,
    loss_of,
    with_deflectors,
)
from stages.counter.evaluate import apart, confusion, true_kind
from stages.counter.predict import Predictor, count, load
from stages.counter.tiles import is_seen, tiles, true_boxes
from stages.counter.train import shifted
from stages.dataset import read_shards
from stages.records import Certificate, Cutout
from stages.scaling import Frame, network_inputs
from tests.counter.test_photometry import scene


def test_frame_spans_the_resolution_and_covers_the_cutout() -> None:
    frame = frame_of(scene([]))
    assert 0.3 / frame.pixel_arcsec == pytest.approx(PSF_PIX)
    assert frame.size_pix % 32 == 0
    assert frame.size_pix * frame.pixel_arcsec >= 4.0


def test_untrained_network_answers_for_every_size() -> None:
    torch.manual_seed(0)
    net = build(8).eval()
    cutouts = [scene([(20.0, 20.0, 90.0)]), scene([], fwhm_pix=6.0)]
    found = detect(net, cutouts)
    assert len(found) == 2
    assert all(f.xy_pix.shape == (len(f.confidence), 2) for f in found)


def test_deflectors_of_a_coarser_look_add_to_the_finer_and_keep_its_places() -> None:
    image, deflector = 0, 1
    fine = Detections(np.array([[9.0, 9.0], [20.0, 20.0]]), np.array([0.9, 0.3]), np.array([image, deflector]))
    coarse = Detections(
        np.array([[21.0, 20.0], [35.0, 5.0], [9.0, 9.0]]), np.array([0.8, 0.6, 0.7]),
        np.array([deflector, deflector, image]),
    )  # fmt: skip
    both = with_deflectors(fine, coarse, 3.0)
    np.testing.assert_array_equal(both.xy_pix, [[9, 9], [20, 20], [35, 5]])
    np.testing.assert_array_equal(both.confidence, [0.9, 0.8, 0.6])
    np.testing.assert_array_equal(both.kind, [image, deflector, deflector])
    np.testing.assert_array_equal(fine.confidence, [0.9, 0.3])
    assert with_deflectors(fine, Detections(np.empty((0, 2)), np.empty(0), np.empty(0, int)), 3.0).kind.size == 2


def test_a_galaxy_far_wider_than_the_psf_is_found() -> None:
    y, x = np.mgrid[:160, :160]
    radius = np.hypot(x - 78.0, y - 81.0) * 0.03
    flux = 2 * np.exp(-7.67 * ((np.hypot(radius, 0.02) / 2.0) ** 0.25 - 1))  # de Vaucouleurs, 2 arcsec
    for a, b in ((30, 60), (75, 128), (130, 90), (92, 32)):
        flux += 300 * np.exp(-0.5 * ((x - a) ** 2 + (y - b) ** 2))
    flux = (flux + np.random.default_rng(0).normal(0, 1, flux.shape))[None].astype(np.float32)
    cutout = Cutout(
        "wide", "wide", flux, np.ones_like(flux), np.ones(flux.shape, bool), ("F160W",), 0.03, np.array([0.07]),
        np.zeros((0, 0, 0), np.float32), np.array([79.5, 79.5]), np.zeros(2),
    )  # fmt: skip
    (seen,) = load(WEIGHTS_DIR / "counter.safetensors").predict([cutout])
    assert np.hypot(*(seen.deflector_xy_pix - (78, 81))) < 2
    assert seen.deflector_confidence > 0.75
    assert len(seen.xy_pix) == 4


def test_tiles_have_boxes_on_their_points(data_dir: Path, tmp_path: Path) -> None:
    shown = tiles(data_dir, tmp_path, CounterConfig(workers=1, plain_share=1.0))
    assert {float(b) for part in shown.values() for t in part for some in t.boxes for b in some[:, 0]} == {0.0, 1.0}
    lit = []
    for some in shown["train"]:
        size = some.pixels.shape[-1]
        pixels, boxes = some.batch(np.arange(len(some.boxes)))
        assert (boxes[:, 2:4] > 0).all()
        assert (boxes[:, 2:4] < size).all()
        for k, kind, x, y, _ in boxes:
            if kind == 0:
                plane = pixels[int(k), :3].max(axis=0)
                near = plane[max(int(y) - 2, 0) : int(y) + 4, max(int(x) - 2, 0) : int(x) + 4]
                lit.append(near.max() > np.median(plane) + 0.1)
    assert len(lit) > 3
    assert np.mean(lit) > 0.9
    assert tiles(tmp_path / "gone", tmp_path, CounterConfig())["train"][0].boxes[0].shape[1] == 4  # from disk


def test_two_points_are_learned_by_heart_and_the_order_of_boxes_does_not_matter() -> None:
    torch.manual_seed(0)
    net = build(8).train()
    seen = network_inputs([scene([(24.0, 15.0, 400.0), (14.0, 26.0, 300.0)])], Frame(96, 0.06))
    pixels = torch.from_numpy(np.repeat(seen.pixels, 2, axis=0))
    at = (np.array([[24.0, 15.0], [14.0, 26.0]]) - seen.origin_xy_pix[0]) / seen.step_pix[0]
    rows = [[float(k), 0.0, *xy, 8.0] for k in (0, 1) for xy in at]
    boxes = torch.tensor(rows, dtype=torch.float32)
    first = loss_of(net, pixels, boxes)
    torch.testing.assert_close(loss_of(net, pixels, boxes.flip(0)), first)
    optimiser = torch.optim.AdamW(net.parameters(), 5e-3)
    for _ in range(150):
        optimiser.zero_grad()
        loss_of(net, pixels, boxes).backward()
        optimiser.step()
    (found, _) = boxes_of(net.eval(), pixels)
    assert {int(np.argmin(np.hypot(*(at - xy).T))) for xy in found[:2, :2]} == {0, 1}
    assert all(np.hypot(*(at - xy).T).min() < 1.5 for xy in found[:2, :2])


def test_boxes_move_with_their_tiles() -> None:
    planes = torch.zeros(1, 6, 30, 30)
    planes[0, :, 20, 12] = 1  # y, x
    moved, boxes = shifted(planes + 0, torch.tensor([[0.0, 0.0, 12.0, 20.0, 8.0]]), np.array([-3, 5]))
    _, _, x, y, side = boxes[0].tolist()
    assert side == 8
    assert moved[0, :, int(y), int(x)].tolist() == [1.0] * 6
    whole, _ = shifted(torch.ones(1, 6, 30, 30), boxes, np.array([4, -2]))
    assert (whole[..., :4] == 0).all()
    assert (whole[..., -2:, :] == 0).all()
    assert (whole[..., :-2, 4:] == 1).all()


def test_what_is_masked_or_outside_is_not_asked_for() -> None:
    valid = np.ones((3, 20, 20), np.float32)
    valid[:, 10:, :] = 0
    xy = np.array([[5.0, 5.0], [5.0, 15.0], [0.2, 5.0], [25.0, 5.0]], np.float32)
    np.testing.assert_array_equal(is_seen(xy, valid), [True, False, False, False])


def test_true_boxes_merge_blends_and_leave_out_the_faint(data_dir: Path) -> None:
    shard = next(read_shards(data_dir))
    row = shard.truth.iloc[0].copy()
    row["point_x_pix"], row["point_y_pix"], row["point_snr"] = [5.0, 5.4, 30.0, 40.0], [5.0] * 4, [50.0, 20.0, 9.0, 2.0]
    row["deflector_x_pix"] = np.nan
    points, deflector = true_boxes(row, shard.cutouts[0], 6.0)
    np.testing.assert_array_equal(points, [[5, 5], [30, 5]])
    assert deflector.shape == (0, 2)


@pytest.mark.parametrize(("fwhm_arcsec", "half_arcsec"), [(0.11, 3.5), (0.06, 2.9), (0.7, 5.0)])
def test_images_are_looked_for_around_the_object(fwhm_arcsec: float, half_arcsec: float) -> None:
    cutout = replace(
        scene([]), flux=np.zeros((1, 401, 401), np.float32), variance=np.ones((1, 401, 401), np.float32),
        valid=np.ones((1, 401, 401), bool), xy_pix=np.array([200.0, 200.0]), pixel_scale_arcsec=0.03,
        psf_fwhm_arcsec=np.array([fwhm_arcsec]),
    )  # fmt: skip
    share = np.array([[0.0, 0.0], [0.95, 0.0], [-0.95, 0.95], [0.0, 1.4]])
    assert in_field(cutout, cutout.xy_pix + half_arcsec * share / 0.03).tolist() == [True, True, True, False]
    assert in_field(cutout, np.empty((0, 2))).shape == (0,)


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


def found_with(confidences: list[float]) -> tuple[Predictor, Cutout, Detections]:
    """A predictor whose confidences are the raw ones, and a plain quad with a detection on each image."""
    truth = np.array([[11.0, 19.0], [28.0, 21.0], [20.0, 10.0], [19.0, 29.5]])
    cutout = scene([(x, y, 60.0) for x, y in truth])
    found = Detections(truth[: len(confidences)], np.array(confidences), np.zeros(len(confidences), np.int64))
    return Predictor(build(8), np.array([[1.0, 0.0], [1.0, 0.0]])), cutout, found


def test_a_doubtful_detection_counts_where_it_makes_a_quad() -> None:
    predictor, cutout, found = found_with([0.9, 0.8, 0.7, 0.25])
    assert len(predictor._count(cutout, found).xy_pix) == 4
    weak = replace(found, confidence=np.array([0.9, 0.8, 0.7, 0.05]))
    assert 0.05 not in predictor._count(cutout, weak).confidence


def test_a_doubtful_detection_that_fits_no_lens_does_not_count() -> None:
    predictor, cutout, found = found_with([0.9, 0.8, 0.7, 0.6])
    there = np.vstack([found.xy_pix, [[36.0, 36.0]]])
    more = Detections(there, np.array([0.9, 0.8, 0.7, 0.6, 0.2]), np.zeros(5, np.int64))
    count = predictor._count(cutout, more)
    assert len(count.xy_pix) == 4
    assert np.hypot(*(count.xy_pix - there[4]).T).min() > 3


def test_three_images_mean_four_and_the_fourth_is_taken_from_the_pixels() -> None:
    predictor, cutout, found = found_with([0.9, 0.9, 0.9, 0.9])
    nowhere = np.full(2, np.nan)
    for k, place in enumerate(found.xy_pix):
        three = np.delete(found.xy_pix, k, axis=0)
        got = count(cutout, three, np.full(3, 0.9), nowhere, float("nan"), predictor.prior)
        assert len(got.xy_pix) == 4
        assert np.hypot(*(got.xy_pix - place).T).min() < 0.3
    alone = scene([(x, y, 60.0) for x, y in (*found.xy_pix[:3], (34.0, 6.0))])  # the fourth is a star beside them
    got = count(alone, found.xy_pix[:3], np.full(3, 0.9), nowhere, float("nan"), predictor.prior)
    assert len(got.xy_pix) == 3


@pytest.mark.parametrize(("verdict", "n"), [("inconsistent", 3), ("possible", 4)])
def test_light_at_a_predicted_place_counts_unless_no_lens_makes_it_an_image(
    verdict: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, cutout, found = found_with([0.9, 0.9, 0.9, 0.9])
    verdicts = iter([Certificate("possible", log_bayes_factor=1.0), Certificate(verdict, log_bayes_factor=0.0)])
    monkeypatch.setattr(predict, "_judged", lambda *_: next(verdicts))
    monkeypatch.setattr(predict, "_fourth", lambda *_: None)
    monkeypatch.setattr(predict, "_confirmed", lambda *_: found.xy_pix[3:])
    got = count(cutout, found.xy_pix[:3], np.full(3, 0.9), np.full(2, np.nan), float("nan"), predictor.prior)
    assert len(got.xy_pix) == n
    assert got.certificate.verdict == "possible"


def test_a_lens_counts_by_its_images_and_not_by_stars_beside_it() -> None:
    row = pd.Series({"kind": "lens_quasar", "image_x_pix": [1.0, 5.0, 9.0], "image_y_pix": [1.0, 5.0, 9.0]})
    images, star = np.array([[5.0, 5.0], [1.0, 1.0]]), np.array([[1.0, 9.0]])
    assert true_kind(row, np.vstack([images, star])) == "lens_2"
    assert true_kind(row, np.empty((0, 2))) == "lens_1"
    assert true_kind(pd.Series({**row, "kind": "star"}), star) == "lone_point"
    assert true_kind(pd.Series({**row, "kind": "lens_galaxy"}), star) == "field_points"
    assert true_kind(pd.Series({**row, "kind": "lens_galaxy"}), star[:0]) == "lens_galaxy"
    assert true_kind(pd.Series({**row, "kind": "spiral"}), star[:0]) == "other_galaxy"


def test_shares_of_the_verdicts_of_one_kind_sum_to_one() -> None:
    figures = confusion({"lens_4": Counter(supports=3, possible=1)})
    words = ("supports", "possible", "inconsistent", "single", "no_images")
    assert figures["verdict_lens_4_n"] == 4
    assert [figures[f"verdict_lens_4_{word}_n"] for word in words] == [3, 1, 0, 0, 0]
    assert sum(figures[f"verdict_lens_4_{word}"] for word in words) == pytest.approx(1.0)
