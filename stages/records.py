"""The few frozen records that flow through a run; numpy only.

Conventions: arrays are (band, row, column); positions are (x, y) in 0-based pixels, x along columns, pixel centres at
integers. `id` travels unchanged and results join on it. Empty is length 0, never None; "not run" is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]

VERDICTS = (
    "not_run",  # a gate skipped the counter for this row
    "no_images",  # no point-like image detected: the theorem says nothing
    "single",  # one image: not lensing evidence
    "supports",  # a smooth lens makes what is seen, every difference has a name
    "possible",  # too few constraints to test (doubles), or named differences only
    "inconsistent",  # no smooth lens makes these images
)


class RecordError(ValueError):
    """A record was built from arrays that do not fit together."""


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise RecordError(message)


@dataclass(frozen=True, eq=False)
class Cutout:
    """One object's pixels and what is known about them.

    flux : (B, H, W) float32, in the file's own unit; not finite where a pixel is absent.
    variance : (B, H, W) float32, flux unit squared; NaN where unknown.
    valid : (B, H, W) bool; False where a pixel must not be used (masked, NaN, off the edge of a tile).
    bands : B filter names, any order; see `stages.bands`.
    pixel_scale_arcsec : arcsec per pixel; NaN if unknown.
    psf_fwhm_arcsec : (B,) float, NaN if unknown.
    psf : (B, h, w) float32 kernels that sum to 1, or zeros in a band without; shape (0, 0, 0) where no band has one.
    xy_pix : (2,) the object's position in this cutout.
    origin_xy_pix : (2,) pixel of the input file that is pixel (0, 0) here (not zero for tiles).
    psf_beta : index of the Moffat that stands for the PSF in bands without a kernel; NaN if unknown.
    reasons : codes of what is wanting, such as "missing_band", "masked_pixels", "assumed_pixel_scale".
    """

    id: str
    source: str
    flux: FloatArray
    variance: FloatArray
    valid: BoolArray
    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    psf_fwhm_arcsec: FloatArray
    psf: FloatArray
    xy_pix: FloatArray
    origin_xy_pix: FloatArray
    ra_deg: float = float("nan")
    dec_deg: float = float("nan")
    survey: str = ""
    unit: str = ""
    reasons: tuple[str, ...] = ()
    psf_beta: float = float("nan")

    def __post_init__(self) -> None:
        _need(self.flux.ndim == 3, f"flux of {self.id!r} has shape {self.flux.shape}, expected (bands, rows, columns)")
        _need(
            self.variance.shape == self.flux.shape,
            f"variance of {self.id!r}: {self.variance.shape}, flux: {self.flux.shape}",
        )
        _need(self.valid.shape == self.flux.shape, f"valid of {self.id!r}: {self.valid.shape}, flux: {self.flux.shape}")
        _need(self.valid.dtype == np.bool_, f"valid of {self.id!r} is {self.valid.dtype}, expected bool")
        _need(len(self.bands) == len(self.flux), f"{self.id!r} has {len(self.flux)} planes but bands {self.bands}")
        _need(
            self.psf_fwhm_arcsec.shape == (len(self.bands),), f"psf_fwhm_arcsec of {self.id!r}: one per band expected"
        )
        _need(self.psf.ndim == 3, f"psf of {self.id!r} has shape {self.psf.shape}, expected (bands, rows, columns)")


@dataclass(frozen=True)
class Problem:
    """One input that was skipped or degraded, with a reason code and a message that says what to do next."""

    id: str
    source: str
    status: str
    reason: str
    message: str

    def __post_init__(self) -> None:
        _need(self.status in ("skipped", "degraded"), f"status {self.status!r}: expected skipped or degraded")


@dataclass(frozen=True, eq=False)
class CutoutBatch:
    """A handful of cutouts and the inputs met on the way that gave none."""

    cutouts: tuple[Cutout, ...]
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.cutouts)


@dataclass(frozen=True, eq=False)
class ClassifierResult:
    """Stage 1 for N cutouts: calibrated probability and its error.

    out_of_domain : the input is unlike the training data.
    """

    ids: tuple[str, ...]
    p_lens: FloatArray
    p_lens_err: FloatArray
    out_of_domain: BoolArray

    def __post_init__(self) -> None:
        n = len(self.ids)
        for name in ("p_lens", "p_lens_err", "out_of_domain"):
            _need(getattr(self, name).shape == (n,), f"{name} has shape {getattr(self, name).shape}, expected ({n},)")


@dataclass(frozen=True, eq=False)
class Certificate:
    """What the odd-number theorem says of one set of images.

    verdict : one of `VERDICTS`.
    p_value : of the fitted model's misfit; NaN where nothing was fitted.
    n_images_model : images of the fitted model, centre included (odd by the theorem); NaN where not fitted.
    parity_sum : sum of the model's image parities (+1 by the theorem); NaN where not fitted.
    missing_xy_pix : (M, 2) images of the fitted model without a detection, then other places where one may be, in
        cutout pixels.
    missing_names : M names for why each is not seen, such as "central_demagnified", "below_limit", "unexplained".
    theta_e_arcsec : Einstein radius of the fitted model; NaN where not fitted.
    sentence : the verdict as an astronomer would write it, with the assumptions.
    hypothesis : what the detections most likely are, such as "four_images" or "chance_alignment"; "" where not judged.
    log_bayes_factor : natural log of the evidence for all lens hypotheses over that for chance; NaN where not judged.
    n_positive, n_negative : images of the model of positive (minima, maxima) and negative parity (saddles), N+ and N-.
    image_magnification, image_arrival : (n,) of each detection, signed, and its number 1, 2, ... in order of arrival;
        NaN for contaminants.
    missing_magnification : (M,) signed.
    missing_depth_mag : (M,) predicted magnitude less that of a 5 sigma point; NaN where no flux was measured;
        missing_mag_err : (M,) error of the magnitude, microlensing and the like included.
    missing_ellipse_pix : (M, 4) search ellipse: semi-axes and angle (degrees from x) of 68%, semi-major axis of 95%.
    missing_snr : (M,) of the flux measured there; NaN where it was not looked for.
    missing_probability : (M,) that an image is there, in all lenses that the detections allow.
    """

    verdict: str = "not_run"
    p_value: float = float("nan")
    n_images_model: float = float("nan")
    parity_sum: float = float("nan")
    missing_xy_pix: FloatArray = field(default_factory=lambda: np.empty((0, 2)))
    missing_names: tuple[str, ...] = ()
    theta_e_arcsec: float = float("nan")
    sentence: str = ""
    hypothesis: str = ""
    log_bayes_factor: float = float("nan")
    n_positive: float = float("nan")
    n_negative: float = float("nan")
    image_magnification: FloatArray = field(default_factory=lambda: np.empty(0))
    image_arrival: FloatArray = field(default_factory=lambda: np.empty(0))
    missing_magnification: FloatArray = field(default_factory=lambda: np.empty(0))
    missing_depth_mag: FloatArray = field(default_factory=lambda: np.empty(0))
    missing_mag_err: FloatArray = field(default_factory=lambda: np.empty(0))
    missing_ellipse_pix: FloatArray = field(default_factory=lambda: np.empty((0, 4)))
    missing_snr: FloatArray = field(default_factory=lambda: np.empty(0))
    missing_probability: FloatArray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        _need(self.verdict in VERDICTS, f"verdict {self.verdict!r}: expected one of {VERDICTS}")
        _need(self.missing_xy_pix.shape == (len(self.missing_names), 2), "one name per missing image expected")


@dataclass(frozen=True, eq=False)
class ImageCount:
    """Stage 2 for one cutout: point-like images and deflector, in cutout pixels, and the certificate.

    xy_pix : (n, 2); flux : (n,) relative, NaN if not measured; confidence : (n,) in 0..1.
    deflector_xy_pix : (2,), NaN where none was found; deflector_confidence : 0..1 or NaN.
    xy_err_pix, flux_err : (n,), the former per axis; NaN if not measured. Length 0: nothing was measured.
    under_snr : of a point under the deflector, fitted with all else; a nucleus has it as well as a central image.
    """

    id: str
    xy_pix: FloatArray
    flux: FloatArray
    confidence: FloatArray
    deflector_xy_pix: FloatArray
    deflector_confidence: float
    certificate: Certificate
    xy_err_pix: FloatArray = field(default_factory=lambda: np.empty(0))
    flux_err: FloatArray = field(default_factory=lambda: np.empty(0))
    under_snr: float = float("nan")

    def __post_init__(self) -> None:
        n = len(self.confidence)
        _need(self.xy_pix.shape == (n, 2), f"xy_pix of {self.id!r}: {self.xy_pix.shape}, expected ({n}, 2)")
        _need(self.flux.shape == (n,), f"flux of {self.id!r}: {self.flux.shape}, expected ({n},)")
        _need(self.deflector_xy_pix.shape == (2,), f"deflector_xy_pix of {self.id!r}: expected shape (2,)")


@dataclass(frozen=True)
class Arc:
    """One unbroken piece of lensed light, as seen (PSF included).

    radius_arcsec, angle_deg : its middle from the deflector, from +x to +y; extent_deg : angle that it covers;
    length_arcsec along it, width_arcsec across; is_counter_image : smaller and across the deflector from the main arc.
    """

    radius_arcsec: float
    angle_deg: float
    extent_deg: float
    length_arcsec: float
    width_arcsec: float
    is_counter_image: bool


@dataclass(frozen=True, eq=False)
class ArcScore:
    """Stage 3 for one cutout: how much of a ring, where, how large.

    score : probability of lensed extended light, 0..1.
    centre_xy_pix : (2,) the deflector's position in cutout pixels, about which all is measured.
    mask : (S, S) float16 probability of lensed light on a square grid whose pixel (i, j) = (x, y) lies at cutout pixel
        `mask_origin_xy_pix + mask_step_pix * (i, j)`.
    arcs : largest first; length_rel_err, width_rel_err : relative errors of their lengths and widths.
    snr : of the light within the mask, best band; colour_mag : its bluest less its reddest band, less the same of the
        deflector (negative: the arcs are bluer), colour_err_mag; NaN with one band or no signal.
    ring_xy_pix, ring_err_pix : (2,) centre in cutout pixels of the ellipse on which the arcs lie, and its error;
        ring_axis_ratio, ring_axis_ratio_err; ring_angle_deg of its long axis, from +x to +y; ring_radius_arcsec, the
        mean of its semi-axes. NaN without a mask.
    """

    id: str
    score: float
    coverage_deg: float
    coverage_err_deg: float
    theta_e_arcsec: float
    theta_e_err_arcsec: float
    centre_xy_pix: FloatArray
    mask: FloatArray
    mask_origin_xy_pix: FloatArray
    mask_step_pix: float
    arcs: tuple[Arc, ...] = ()
    length_rel_err: float = float("nan")
    width_rel_err: float = float("nan")
    snr: float = float("nan")
    colour_mag: float = float("nan")
    colour_err_mag: float = float("nan")
    ring_xy_pix: FloatArray = field(default_factory=lambda: np.full(2, np.nan))
    ring_err_pix: float = float("nan")
    ring_axis_ratio: float = float("nan")
    ring_axis_ratio_err: float = float("nan")
    ring_angle_deg: float = float("nan")
    ring_radius_arcsec: float = float("nan")


@dataclass(frozen=True, eq=False)
class Candidate:
    """One row of the candidate table: every input object has one, whatever became of it."""

    id: str
    source: str
    status: str
    reason: str
    ra_deg: float = float("nan")
    dec_deg: float = float("nan")
    score: float = float("nan")
    p_lens: float = float("nan")
    p_lens_err: float = float("nan")
    selected: bool = False
    morphology: str = ""
    n_images: float = float("nan")
    image_x_pix: tuple[float, ...] = ()
    image_y_pix: tuple[float, ...] = ()
    image_confidence: tuple[float, ...] = ()
    theorem_verdict: str = "not_run"
    theorem_p_value: float = float("nan")
    n_images_model: float = float("nan")
    parity_sum: float = float("nan")
    missing_x_pix: tuple[float, ...] = ()
    missing_y_pix: tuple[float, ...] = ()
    arc_score: float = float("nan")
    arc_coverage_deg: float = float("nan")
    arc_coverage_err_deg: float = float("nan")
    theta_e_arcsec: float = float("nan")
    theta_e_err_arcsec: float = float("nan")
    deflector_x_pix: float = float("nan")
    deflector_y_pix: float = float("nan")
    missing_names: tuple[str, ...] = ()
    theorem_sentence: str = ""
    theorem_hypothesis: str = ""
    theorem_log_bayes_factor: float = float("nan")
    n_positive: float = float("nan")
    n_negative: float = float("nan")
    image_err_pix: tuple[float, ...] = ()
    image_flux: tuple[float, ...] = ()
    image_flux_err: tuple[float, ...] = ()
    image_magnification: tuple[float, ...] = ()
    image_arrival: tuple[float, ...] = ()
    missing_magnification: tuple[float, ...] = ()
    missing_depth_mag: tuple[float, ...] = ()
    missing_major_68_pix: tuple[float, ...] = ()
    missing_minor_68_pix: tuple[float, ...] = ()
    missing_major_95_pix: tuple[float, ...] = ()
    missing_angle_deg: tuple[float, ...] = ()
    missing_snr: tuple[float, ...] = ()
    n_arcs: float = float("nan")
    n_counter_images: float = float("nan")
    arc_radius_arcsec: tuple[float, ...] = ()
    arc_angle_deg: tuple[float, ...] = ()
    arc_extent_deg: tuple[float, ...] = ()
    arc_length_arcsec: tuple[float, ...] = ()
    arc_width_arcsec: tuple[float, ...] = ()
    arc_length_rel_err: float = float("nan")
    arc_width_rel_err: float = float("nan")
    arc_snr: float = float("nan")
    arc_colour_mag: float = float("nan")
    arc_colour_err_mag: float = float("nan")
    ring_x_pix: float = float("nan")
    ring_y_pix: float = float("nan")
    ring_err_pix: float = float("nan")
    ring_axis_ratio: float = float("nan")
    ring_axis_ratio_err: float = float("nan")
    ring_angle_deg: float = float("nan")
    arc_theorem_verdict: str = "not_run"
    arc_theorem_log_bayes_factor: float = float("nan")
    arc_theorem_sentence: str = ""
    arc_peak_x_pix: tuple[float, ...] = ()
    arc_peak_y_pix: tuple[float, ...] = ()
    ring_radius_arcsec: float = float("nan")
    missing_mag_err: tuple[float, ...] = ()
    under_deflector_snr: float = float("nan")
    missing_probability: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _need(self.status in ("ok", "degraded", "skipped"), f"status {self.status!r}: expected ok, degraded or skipped")
