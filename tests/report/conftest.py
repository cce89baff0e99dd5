"""Synthetic objects for the report: a deflector with arcs or point images, in one or three bands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from stages.records import ArcScore, Candidate, Certificate, Cutout, ImageCount


@dataclass(frozen=True, eq=False)
class Scene:
    """One object and what the stages would say of it."""

    cutout: Cutout
    image_count: ImageCount
    arc_score: ArcScore
    candidate: Candidate


def make_scene(
    rng: np.random.Generator,
    id: str = "lens-1",
    bands: tuple[str, ...] = ("g", "r", "i"),
    kind: str = "ring",
    shape: tuple[int, int] = (51, 57),
    source: str = "survey/lens-1.fits",
    masked: bool = False,
) -> Scene:
    """Draw a deflector at the middle with an arc (`ring`), four images (`quad`) or nothing around it (`none`)."""
    height, width = shape
    scale, radius = 0.2, 8.0
    x0, y0 = (width - 1) / 2 + 0.4, (height - 1) / 2 - 0.3
    y, x = np.indices(shape, float)
    r, phi = np.hypot(x - x0, y - y0), np.arctan2(y - y0, x - x0)
    deflector = 60.0 * np.exp(-(((r + 0.3) / 2.2) ** 0.7))
    turn = rng.uniform(-np.pi, np.pi)
    nearness = np.exp(-((np.angle(np.exp(1j * (phi - turn))) / 0.9) ** 4))
    arc = 16.0 * np.exp(-0.5 * ((r - radius) / 1.4) ** 2) * nearness
    angles = turn + np.array([0.0, 1.2, 2.9, 4.6])
    spots = np.stack([x0 + radius * np.cos(angles), y0 + radius * np.sin(angles)], axis=1)
    quad = sum(
        f * np.exp(-0.5 * ((x - a) ** 2 + (y - b) ** 2) / 1.6**2)
        for f, (a, b) in zip((30, 24, 14, 8), spots, strict=True)
    )
    blue = {"ring": arc, "quad": np.asarray(quad), "none": np.zeros(shape)}[kind]
    red_weight = np.linspace(0.35, 1.3, len(bands)) if len(bands) > 1 else np.ones(1)
    flux = red_weight[:, None, None] * deflector + (1.6 - red_weight)[:, None, None] * blue
    flux = (flux + rng.normal(0, 1, (len(bands), *shape))).astype(np.float32)
    valid = np.ones(flux.shape, bool)
    if masked:
        valid[:, 4:13, 30:44] = False
        valid[0, :, 5] = False
        flux[:, 4:13, 30:44] = np.nan
    cutout = Cutout(
        id=id, source=source, flux=flux, variance=np.ones_like(flux), valid=valid, bands=bands,
        pixel_scale_arcsec=scale, psf_fwhm_arcsec=np.full(len(bands), 0.8), psf=np.zeros((0, 0, 0), np.float32),
        xy_pix=np.array([(width - 1) / 2, (height - 1) / 2]), origin_xy_pix=np.zeros(2), ra_deg=150.1, dec_deg=-2.2,
        reasons=("masked_pixels",) if masked else (),
    )  # fmt: skip
    seen = spots[:3] if kind == "quad" else np.empty((0, 2))
    certificate = {
        "quad": Certificate(
            "supports", 0.41, 5.0, 1.0, np.array([[x0 + 0.5, y0 + 0.2], spots[3]]),
            ("central_demagnified", "below_limit"), radius * scale,
            "Three images seen; a smooth lens makes five, one demagnified at the centre and one below the limit.",
        ),
        "ring": Certificate("no_images"),
        "none": Certificate("not_run"),
    }[kind]  # fmt: skip
    image_count = ImageCount(
        id, seen, np.full(len(seen), np.nan), np.array([0.97, 0.93, 0.71])[: len(seen)],
        np.array([x0, y0]), 0.9, certificate,
    )  # fmt: skip
    grid = np.indices((48, 48), float)[::-1]  # x, y
    gx, gy = (g * 1.05 + 2.0 for g in grid)
    g_phi = np.arctan2(gy - y0, gx - x0)
    mask = np.exp(-0.5 * ((np.hypot(gx - x0, gy - y0) - radius) / 1.6) ** 2)
    mask = mask * np.exp(-((np.angle(np.exp(1j * (g_phi - turn))) / 0.95) ** 4)) * (kind == "ring")
    theta_e = radius * scale if kind == "ring" else float("nan")
    arc_score = ArcScore(
        id, 0.94 if kind == "ring" else 0.03, 108.0 if kind == "ring" else 0.0, 14.0, theta_e, 0.07,
        np.array([x0, y0]), mask.astype(np.float16), np.array([2.0, 2.0]), 1.05,
    )  # fmt: skip
    score = {"ring": 0.93, "quad": 0.97, "none": 0.08}[kind] - 0.04 * float(rng.uniform())
    candidate = Candidate(
        id=id, source=source, status="degraded" if masked else "ok", reason="masked_pixels" if masked else "",
        ra_deg=150.1, dec_deg=-2.2, score=score, p_lens=score, p_lens_err=0.02, selected=kind != "none",
        morphology={"ring": "arc", "quad": "quad", "none": ""}[kind], n_images=float(len(seen)),
        image_x_pix=tuple(seen[:, 0].tolist()), image_y_pix=tuple(seen[:, 1].tolist()),
        image_confidence=tuple(image_count.confidence.tolist()), theorem_verdict=certificate.verdict,
        theorem_p_value=certificate.p_value, n_images_model=certificate.n_images_model,
        parity_sum=certificate.parity_sum, missing_x_pix=tuple(certificate.missing_xy_pix[:, 0].tolist()),
        missing_y_pix=tuple(certificate.missing_xy_pix[:, 1].tolist()), missing_names=certificate.missing_names,
        arc_score=arc_score.score, arc_coverage_deg=arc_score.coverage_deg, arc_coverage_err_deg=14.0,
        theta_e_arcsec=radius * scale if kind != "none" else float("nan"), theta_e_err_arcsec=0.07,
        deflector_x_pix=x0, deflector_y_pix=y0, theorem_sentence=certificate.sentence,
    )  # fmt: skip
    return Scene(cutout, image_count, arc_score, candidate)


@pytest.fixture(scope="session")
def scene() -> Callable[..., Scene]:
    """Make scenes, the same for the same settings: `scene(seed=1, id="x", kind="quad")`."""
    return lambda seed=7, **settings: make_scene(np.random.default_rng(seed), **settings)
