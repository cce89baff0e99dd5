"""Apply stage 2: cutouts to counted images with their theorem certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from stages import config as configuration
from stages import weights
from stages.counter.arc_peaks import certify_arcs
from stages.counter.calibrate import taken_from
from stages.counter.detector import CounterConfig, Detections, build, detect
from stages.counter.missing import APART_FWHM, LEAST_PROBABILITY
from stages.counter.photometry import Photometry, measure
from stages.counter.prediction import places_in
from stages.counter.priors import TheoremConfig
from stages.counter.proposals import calibrated, deflector_of, distinct, images_of, logit, same_pix
from stages.counter.second_look import SecondLook, look
from stages.counter.theorem import CONFIRMED_SNR, LOOK_STEP_FWHM, certificate
from stages.counter.theorem import Detections as Seen
from stages.records import ArcScore, Certificate, Cutout, FloatArray, ImageCount
from stages.scaling import resolution_arcsec

LENS_VERDICTS = ("supports", "possible")
CONFIRMED_CONFIDENCE = 0.7  # of an image that a lens model predicted and the pixels show: 4 of 6 were true
_MIN_CONFIDENCE = 0.3  # of an image; with a higher one cutouts of none are counted right more often, of several less
_DOUBTFUL = 0.1  # confidence from which a detection counts where it speaks for a lens more than against itself
_HARDLY = 0.03  # and from which it does where a lens makes four images with it: their places test a lens
_MOST_DETECTIONS = 30
_MOST_IMAGES = 5  # as many as a lens makes, doubtful ones included
_FAINTER = 3.0  # errors by which light at a predicted place may be fainter than the image
_PEAK_CONFIDENCE = 0.3  # of what the joint fit leaves over
_MOST_PEAKS, _REACH = 4, 1.7  # how many of these, and how far beyond the three, in units of their distance


@dataclass(frozen=True, eq=False)
class Predictor:
    """Trained stage 2; `calibration` (2, 2) is slope and offset by class, `second_look` judges what is found (None: the
    detector's word counts), `prior` are the theorem's beliefs."""

    net: nn.Module
    calibration: FloatArray
    second_look: SecondLook | None = None
    prior: TheoremConfig = field(default_factory=TheoremConfig)

    def predict(self, cutouts: Sequence[Cutout]) -> list[ImageCount]:
        """Count the point-like images of N cutouts and ask whether a lens makes them."""
        found = detect(self.net, cutouts) if len(cutouts) else []
        return [self._count(cutout, detections) for cutout, detections in zip(cutouts, found, strict=True)]

    def certify_arcs(self, cutout: Cutout, count: ImageCount, arc: ArcScore) -> tuple[Certificate, FloatArray]:
        """The theorem on the peaks of a cutout's arcs, for sources that are no points; also these peaks (n, 2)."""
        return certify_arcs(cutout, arc, count.deflector_xy_pix, count.deflector_confidence, self.prior)

    def _count(self, cutout: Cutout, found: Detections) -> ImageCount:
        first = calibrated(found, self.calibration)
        deflector, trust = deflector_of(found, first, cutout)
        xy, sure = self._images(cutout, found, first, deflector, trust)
        n_sure = int((sure >= _MIN_CONFIDENCE).sum())
        best = count(cutout, xy[:n_sure], sure[:n_sure], deflector, trust, self.prior)
        best_odds = _odds(best.certificate)
        for n in range(max(n_sure + 1, 3), min(len(sure), _MOST_IMAGES) + 1):
            more = count(cutout, xy[:n], sure[:n], deflector, trust, self.prior)
            odds = _odds(more.certificate) + float(logit(sure[n_sure:n]).sum())
            tested = sure[n - 1] >= _DOUBTFUL or more.certificate.hypothesis == "four_images"
            lens = len(more.xy_pix) > len(best.xy_pix) and more.certificate.verdict in LENS_VERDICTS and tested
            if lens and odds > best_odds and _all_doubtful_are_images(more):
                best, best_odds = more, odds
        return best

    def _images(
        self, cutout: Cutout, found: Detections, first: FloatArray, deflector: FloatArray, trust: float
    ) -> tuple[FloatArray, FloatArray]:
        """Positions (n, 2) of what may be images and their confidences, surest first."""
        if self.second_look is None:
            rows = images_of(found, first, cutout, _HARDLY, _MOST_DETECTIONS)
            return found.xy_pix[rows], first[rows]
        seen = look(cutout, found, first, deflector, trust)
        sure = self.second_look.judge(seen.features)
        rows = np.argsort(-sure, kind="stable")[: int((sure >= _HARDLY).sum())]
        return seen.xy_pix[rows], sure[rows]


def _all_doubtful_are_images(count: ImageCount) -> bool:
    """Whether no doubtful detection of a count is a contaminant of its lens."""
    arrival = np.asarray(count.certificate.image_arrival, float)
    return len(arrival) == len(count.confidence) and bool(
        np.isfinite(arrival[count.confidence < _MIN_CONFIDENCE]).all()
    )


def _odds(certificate: Certificate) -> float:
    """Log Bayes factor of a lens against chance, 0 where nothing was judged."""
    return float(np.nan_to_num(certificate.log_bayes_factor))


def load(path: Path, device: str = "cpu", prior: TheoremConfig | None = None) -> Predictor:
    """Read weights onto a device."""
    state, card = weights.load(path)
    config = configuration.from_mapping(CounterConfig, card.config, str(path))
    calibration, second_look = taken_from(state)
    net: Any = build(config.width)  # of ultralytics, which has no types
    net.load_state_dict(state)
    return Predictor(net.fuse().eval().to(device), calibration, second_look, prior or TheoremConfig())


def count(
    cutout: Cutout,
    xy_pix: FloatArray,
    confidence: FloatArray,
    deflector: FloatArray,
    trust: float,
    prior: TheoremConfig,
) -> ImageCount:
    """Measure detections (n, 2), judge them, and look in the pixels for the images that a lens would add."""
    measured, sure = _measured(cutout, xy_pix, confidence, deflector)
    first = _judged(cutout, measured, sure, deflector, trust, prior)
    fourth = _fourth(cutout, measured, sure, deflector, trust, prior, first)
    if fourth is not None:
        return replace(fourth, certificate=_doubted(fourth.certificate, first))
    new = _confirmed(cutout, first, measured)
    if not len(new):
        return _record(cutout, measured, sure, deflector, trust, first)
    start, trusts = np.vstack([measured.xy_pix, new]), np.append(sure, np.full(len(new), CONFIRMED_CONFIDENCE))
    more, trusts = _measured(cutout, start, trusts, deflector)
    second = _judged(cutout, more, trusts, deflector, trust, prior)
    if first.verdict in LENS_VERDICTS and second.verdict not in LENS_VERDICTS:  # light, but not of the image predicted
        return _record(cutout, measured, sure, deflector, trust, first)
    if second.log_bayes_factor > first.log_bayes_factor:  # the new image lies where it was looked for: no news
        second = replace(second, log_bayes_factor=first.log_bayes_factor, verdict=first.verdict)
    return _record(cutout, more, trusts, deflector, trust, _doubted(second, first))


def _doubted(found: Certificate, before: Certificate) -> Certificate:
    """A certificate with an image that was found where it was looked for, and where it is if that is something else."""
    chance = (1 - CONFIRMED_CONFIDENCE) * before.missing_probability
    rows = [k for k, name in enumerate(before.missing_names) if name == "unexplained" and chance[k] > LEAST_PROBABILITY]
    both: dict[str, Any] = {
        name: np.concatenate([getattr(found, name), getattr(before, name)[rows]])
        for name in ("missing_xy_pix", "missing_magnification", "missing_depth_mag", "missing_mag_err",
                     "missing_ellipse_pix", "missing_snr")
    }  # fmt: skip
    names = (*found.missing_names, *(before.missing_names[k] for k in rows))
    probability = np.append(found.missing_probability, chance[rows])
    return replace(found, missing_names=names, missing_probability=probability, **both)


def _fourth(
    cutout: Cutout, points: Photometry, sure: FloatArray, deflector: FloatArray, trust: float, prior: TheoremConfig,
    three: Certificate,
) -> ImageCount | None:  # fmt: skip
    """Three points and the one among what the joint fit leaves over that makes them a lens, if any does.

    Three images mean four: places are not predicted but taken from the pixels, and the lens must be so much likelier
    with the fourth as such a place is unlikely to be an image.
    """
    if len(points.xy_pix) != 3 or points.leftover is None:
        return None
    fwhm = resolution_arcsec(cutout) / cutout.pixel_scale_arcsec
    known = np.vstack([points.xy_pix, deflector]) if np.isfinite(deflector).all() else points.xy_pix
    reach = _REACH * float(np.hypot(*(points.xy_pix - known.mean(0)).T).max())
    best, best_odds = None, _odds(three)
    for place in points.leftover.peaks(known, reach, APART_FWHM * fwhm)[:_MOST_PEAKS]:
        start = np.vstack([points.xy_pix, place])
        more, trusts = _measured(cutout, start, np.append(sure, _PEAK_CONFIDENCE), deflector)
        if len(more.xy_pix) != 4 or not (more.flux[:, 0] > CONFIRMED_SNR * more.flux_err[:, 0]).all():
            continue
        four = _judged(cutout, more, trusts, deflector, trust, prior)
        odds = _odds(four) + float(logit(np.array(_PEAK_CONFIDENCE)))
        if four.verdict in LENS_VERDICTS and four.hypothesis == "four_images" and odds > best_odds:
            best, best_odds = _record(cutout, more, trusts, deflector, trust, four), odds
    return best


def _measured(
    cutout: Cutout, xy_pix: FloatArray, confidence: FloatArray, deflector: FloatArray
) -> tuple[Photometry, FloatArray]:
    """Points fitted in the pixels, surest first, of which no two are the same, and their confidences."""
    points = measure(cutout, xy_pix, deflector)
    sure = confidence[points.detection]
    keep = distinct(points.xy_pix, sure, same_pix(cutout))
    return points.only(keep), sure[keep]


def _judged(
    cutout: Cutout, points: Photometry, sure: FloatArray, deflector: FloatArray, trust: float, prior: TheoremConfig
) -> Certificate:
    known_scale = "assumed_pixel_scale" not in cutout.reasons
    nan = float("nan")
    seen = Seen(
        points.xy_pix, points.flux, sure, deflector, trust, cutout.pixel_scale_arcsec if known_scale else nan,
        resolution_arcsec(cutout) if known_scale else nan, points.flux_limit, points.flux_err, points.xy_err_pix,
    )  # fmt: skip
    return certificate(seen, prior, points.leftover.look if points.leftover is not None else None)


def _confirmed(cutout: Cutout, judged: Certificate, points: Photometry) -> FloatArray:
    """Places (k, 2) of the images that were predicted and are there."""
    fwhm, out = resolution_arcsec(cutout) / cutout.pixel_scale_arcsec, []
    for k, (place, ellipse) in enumerate(zip(judged.missing_xy_pix, judged.missing_ellipse_pix, strict=True)):
        if points.leftover is None or not judged.missing_snr[k] > CONFIRMED_SNR:
            continue
        places, _ = places_in(place, ellipse, LOOK_STEP_FWHM * fwhm)
        apart = (np.hypot(*(places[:, None] - points.xy_pix[None]).transpose(2, 0, 1)) > APART_FWHM * fwhm).all(1)
        flux, error = points.leftover.look(places[apart])
        faintest = judged.missing_depth_mag[k] + _FAINTER * judged.missing_mag_err[k]  # than 5 sigma, mag
        like = flux > 5 * error * np.maximum(1.0, 10 ** (-0.4 * faintest))
        if like.any():
            out.append(places[apart][like][int(np.argmax((flux / error)[like]))])
    return np.array(out).reshape(-1, 2)


def _record(
    cutout: Cutout, points: Photometry, sure: FloatArray, deflector: FloatArray, trust: float, judged: Certificate
) -> ImageCount:
    return ImageCount(
        cutout.id, points.xy_pix, points.flux[:, 0], sure, deflector, trust, judged, points.xy_err_pix,
        points.flux_err[:, 0], points.under_snr,
    )  # fmt: skip
