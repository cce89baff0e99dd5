"""Instrument facts of a survey, read from `configs/surveys/NAME.yaml`: the one home of each number."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stretch:
    """How a colour composite was made from flux (Lupton et al. 2004).

    bands : the filters shown as red, green and blue; scales : their factors.
    zero_point : AB magnitude of one flux unit; alpha, q : softening of the asinh stretch.
    """

    bands: tuple[str, ...]
    scales: tuple[float, ...]
    zero_point: float
    alpha: float
    q: float
    kind: str = "lupton"

    def __post_init__(self) -> None:
        if self.kind not in ("lupton", "linear"):
            raise ValueError(f"stretch kind {self.kind!r}: expected lupton or linear")
        if len(self.bands) != 3 or len(self.scales) != 3:
            raise ValueError("stretch: expected three bands and three scales, red first")


@dataclass(frozen=True)
class SurveyFacts:
    """What is known of a survey's images; mappings are by band.

    psf_fwhm_arcsec : median seeing; psf_fwhm_scatter : its fractional scatter; psf_beta : Moffat index (ground).
    zero_point : AB magnitude of one flux unit; sky_sigma : background rms per pixel in flux units;
    gain : effective electrons per flux unit; noise_correlation_pix : Gaussian sigma of the noise's correlation;
    composite_shift_pix : (x, y), by how much of a pixel the 8-bit composite was moved after its stretch, by linear
    interpolation: neighbouring pixels are averaged with weights 1 - shift and shift, and rounded up.
    sources : where each number comes from.
    """

    name: str
    kind: str
    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    psf_fwhm_arcsec: dict[str, float]
    zero_point: dict[str, float]
    sky_sigma: dict[str, float] = field(default_factory=dict)
    gain: dict[str, float] = field(default_factory=dict)
    saturation: dict[str, float] = field(default_factory=dict)
    psf_fwhm_scatter: float = 0.1
    psf_beta: float = 3.0
    noise_correlation_pix: float = 0.0
    composite_shift_pix: tuple[float, float] = (0.0, 0.0)
    cutout_arcsec: float = 12.0
    density_per_arcmin2: float = 40.0
    stretch: Stretch | None = None
    sources: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in ("ground", "space"):
            raise ValueError(f"kind {self.kind!r}: expected ground or space")
        if not 0.001 < self.pixel_scale_arcsec < 10:
            raise ValueError(f"pixel_scale_arcsec {self.pixel_scale_arcsec}: expected arcsec per pixel")
        for name in ("psf_fwhm_arcsec", "zero_point"):
            absent = sorted(set(self.bands) - set(getattr(self, name)))
            if absent:
                raise ValueError(f"{name}: no value for bands {absent}")
