"""The second look: is a detection a point? Judged by its pixels, the joint fit of all detections, and its company.

The detector sees patterns. What an expert asks next is measured here: what is left when a star is taken away, whether
it is broader or longer than the PSF, whether its neighbours have its colour, how bright and how far they and the
deflector are. Small networks, trained on simulations in natural proportions, turn that into a probability.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.counter.detector import Detections
from stages.counter.photometry import Photometry, measure
from stages.counter.proposals import images_of, logit
from stages.counter.shape import shapes
from stages.records import Cutout, FloatArray
from stages.scaling import resolution_arcsec

FEATURES = (
    "logit_confidence", "log_snr", "moved_fwhm", "parts",  # of the detection and its fit; parts: two where it is a pair
    "broad", "broad_sigma", "long", "long_sigma", "log_chi2", "log_chi2_point",  # see `stages.counter.shape`
    "surest_other", "sum_others", "log_brightest_other", "log_nearest_fwhm", "colour_mismatch",  # company
    "deflector_fwhm", "deflector_confidence", "log_resolution", "fwhm_pix", "bands", "bluest", "reddest",
)  # fmt: skip
_WORTH = 0.05  # a cutout is looked at where a detection is so probable; the least of its others
_LEAST, _MOST = 0.02, 12
_ALONE_FWHM = 9.0
_COLOUR_FLOOR = 0.05  # error of a log flux ratio below which none is believed
_MEMBERS, _WIDTH = 4, 32
_CONSTANT = 1e-6  # a feature that varies less is not scaled
_BATCH, _RATE, _DECAY = 512, 5e-3, 1.0


@dataclass(frozen=True, eq=False)
class Looked:
    """Detections (n, 2) in cutout pixels with the confidence (n,) they came with, and their features (n, F)."""

    xy_pix: FloatArray
    confidence: FloatArray
    features: FloatArray


def look(cutout: Cutout, found: Detections, confidence: FloatArray, deflector: FloatArray, trust: float) -> Looked:
    """Measure what may be images in a cutout, none of them where none is worth it."""
    rows = images_of(found, confidence, cutout, _LEAST, _MOST)
    if not len(rows) or confidence[rows[0]] < _WORTH:
        return Looked(np.empty((0, 2)), np.empty(0), np.empty((0, len(FEATURES))))
    xy, sure = found.xy_pix[rows], confidence[rows]
    return Looked(xy, sure, _features(cutout, xy, sure, measure(cutout, xy, deflector), deflector, trust))


def _features(
    cutout: Cutout, xy: FloatArray, sure: FloatArray, points: Photometry, deflector: FloatArray, trust: float
) -> FloatArray:
    n, fwhm = len(xy), resolution_arcsec(cutout) / cutout.pixel_scale_arcsec
    parts = np.bincount(points.detection, minlength=n)
    points = points.only(np.array([np.flatnonzero(points.detection == k)[0] for k in range(n)]))  # of a pair one half
    flux, error = points.flux, points.flux_err
    off = ~np.eye(n, dtype=bool)
    other = np.where(off, sure[None], 0.0)
    apart = np.where(off, np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1)) / fwhm, _ALONE_FWHM)
    shape = shapes(points)
    nan = np.full(n, np.nan)
    with np.errstate(all="ignore"):
        brighter = np.where(off & np.isfinite(flux[None, :, 0]), flux[None, :, 0] / flux[:, :1], 0.0)
        colours = np.log(flux[:, 1:] / flux[:, :1])
        features = {
            "logit_confidence": logit(sure),
            "log_snr": np.log(flux[:, 0] / error[:, 0]),
            "moved_fwhm": np.hypot(*(points.xy_pix - xy).T) / fwhm,
            "parts": parts,
            "broad": shape.broad,
            "broad_sigma": shape.broad_sigma,
            "long": shape.long,
            "long_sigma": shape.long_sigma,
            "log_chi2": np.log(shape.chi2),
            "log_chi2_point": np.log(shape.chi2_point),
            "surest_other": other.max(1),
            "sum_others": other.sum(1),
            "log_brightest_other": np.log(brighter.max(1)),
            "log_nearest_fwhm": np.log(apart.min(1)),
            "colour_mismatch": _mismatch(flux, error, other.argmax(1)) if n > 1 and colours.size else nan,
            "deflector_fwhm": np.hypot(*(xy - deflector).T) / fwhm,
            "deflector_confidence": np.full(n, trust),
            "log_resolution": np.full(n, np.log(resolution_arcsec(cutout))),
            "fwhm_pix": np.full(n, fwhm),
            "bands": np.full(n, len(cutout.bands)),
            "bluest": colours.min(1) if colours.size else nan,
            "reddest": colours.max(1) if colours.size else nan,
        }
        out = np.column_stack([features[name] for name in FEATURES])
    return np.where(np.isfinite(out), out, np.nan)


def _mismatch(flux: FloatArray, error: FloatArray, surest: npt.NDArray[np.intp]) -> FloatArray:
    """Log of the mean square, in errors, by which colours (n, B - 1) differ from the surest other's; NaN if unknown."""
    colour, relative = np.log(flux[:, 1:] / flux[:, :1]), (error / flux) ** 2
    variance = relative[:, 1:] + relative[:, :1]
    pull = (colour - colour[surest]) ** 2 / (variance + variance[surest] + _COLOUR_FLOOR**2)
    known = np.isfinite(pull)
    return np.asarray(np.log(np.where(known, pull, 0).sum(1) / known.sum(1) + 0.1))


class SecondLook(nn.Module):
    """Mean probability of small networks that see scaled features and which of them are missing."""

    middle: Tensor
    spread: Tensor
    slope_offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        n = len(FEATURES)
        self.register_buffer("middle", torch.zeros(n))
        self.register_buffer("spread", torch.ones(n))
        self.register_buffer("slope_offset", torch.tensor([1.0, 0.0]))  # of the logit, as learned by heart is too sure
        self.members = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * n, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, 1)
            )
            for _ in range(_MEMBERS)
        )  # fmt: skip

    def seen(self, features: Tensor) -> Tensor:
        """What the members see (n, 2 F) of features (n, F), NaN where unknown."""
        missing = torch.isnan(features)
        scaled = torch.asinh((features - self.middle) / self.spread)
        return torch.cat([torch.where(missing, 0.0, scaled), missing.float()], 1)

    def forward(self, features: Tensor) -> Tensor:
        """Probabilities (n,) of being a point."""
        seen = self.seen(features)
        mean = torch.stack([member(seen)[:, 0].sigmoid() for member in self.members]).mean(0)
        slope, offset = self.slope_offset
        probability: Tensor = (slope * torch.logit(mean, 1e-6) + offset).sigmoid()
        return probability

    def judge(self, features: FloatArray) -> FloatArray:
        """The same of an array."""
        with torch.inference_mode():
            return np.asarray(self(torch.from_numpy(features.astype(np.float32))).double().numpy())


def learn(features: FloatArray, is_point: npt.NDArray[np.bool_], steps: int, seed: int) -> SecondLook:
    """Train on features (n, F) of detections and which of them are points; both kinds must be there."""
    out = SecondLook()
    known = np.where(np.isfinite(features).any(0), features, 0.0)
    low, middle, high = np.nanpercentile(known, (16, 50, 84), axis=0)
    out.middle.copy_(torch.from_numpy(middle))
    out.spread.copy_(torch.from_numpy(np.where(high - low > _CONSTANT, (high - low) / 2, 1.0)))
    seen = out.seen(torch.from_numpy(features.astype(np.float32)))
    truth = torch.from_numpy(is_point.astype(np.float32))
    for k in range(_MEMBERS):
        member = out.members[k]
        assert isinstance(member, nn.Sequential)
        draw = torch.Generator().manual_seed(seed + k)
        for layer in member:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear", generator=draw)
                nn.init.zeros_(layer.bias)
        optimiser = torch.optim.AdamW(member.parameters(), _RATE, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps)
        for _ in range(steps):
            rows = torch.randint(len(truth), (_BATCH,), generator=draw)
            optimiser.zero_grad()
            F.binary_cross_entropy_with_logits(member(seen[rows])[:, 0], truth[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return out.eval()
