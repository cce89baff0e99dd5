"""The stages' results on one cutout as a row of the candidates' table, positions in the input file's own pixels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from stages.records import ArcScore, Candidate, Certificate, Cutout, FloatArray, ImageCount


def row_of(
    cutout: Cutout,
    p_lens: float,
    p_lens_err: float,
    out_of_domain: bool,
    count: ImageCount | None = None,
    arc: ArcScore | None = None,
    peaks: tuple[Certificate, FloatArray] | None = None,
) -> Candidate:
    """A row without score and morphology; a stage that did not look leaves its columns empty.

    peaks : the certificate of the arcs' peaks and their positions (n, 2) in the cutout's pixels.
    """
    reasons = (*cutout.reasons, *(("out_of_domain",) if out_of_domain else ()))
    row = Candidate(
        cutout.id,
        cutout.source,
        "degraded" if reasons else "ok",
        ";".join(reasons),
        ra_deg=cutout.ra_deg,
        dec_deg=cutout.dec_deg,
        p_lens=p_lens,
        p_lens_err=p_lens_err,
    )
    if count is not None:
        row = dataclasses.replace(row, **counted(count, cutout.origin_xy_pix))
    if arc is not None:
        row = dataclasses.replace(row, **arcs_measured(arc, cutout.origin_xy_pix))
    if peaks is not None:
        theorem, xy = peaks[0], peaks[1] + cutout.origin_xy_pix
        row = dataclasses.replace(
            row,
            arc_theorem_verdict=theorem.verdict,
            arc_theorem_log_bayes_factor=theorem.log_bayes_factor,
            arc_theorem_sentence=theorem.sentence,
            arc_peak_x_pix=tuple(xy[:, 0].tolist()),
            arc_peak_y_pix=tuple(xy[:, 1].tolist()),
        )
    return row


def counted(count: ImageCount, origin_xy_pix: FloatArray) -> dict[str, Any]:
    """The counter's columns of a row."""
    theorem = count.certificate
    xy, deflector = count.xy_pix + origin_xy_pix, count.deflector_xy_pix + origin_xy_pix
    missing, ellipse = theorem.missing_xy_pix + origin_xy_pix, theorem.missing_ellipse_pix
    lists = {
        "image_x_pix": xy[:, 0],
        "image_y_pix": xy[:, 1],
        "image_confidence": count.confidence,
        "image_err_pix": count.xy_err_pix,
        "image_flux": count.flux,
        "image_flux_err": count.flux_err,
        "image_magnification": theorem.image_magnification,
        "image_arrival": theorem.image_arrival,
        "missing_x_pix": missing[:, 0],
        "missing_y_pix": missing[:, 1],
        "missing_magnification": theorem.missing_magnification,
        "missing_depth_mag": theorem.missing_depth_mag,
        "missing_mag_err": theorem.missing_mag_err,
        "missing_major_68_pix": ellipse[:, 0],
        "missing_minor_68_pix": ellipse[:, 1],
        "missing_major_95_pix": ellipse[:, 3],
        "missing_angle_deg": ellipse[:, 2],
        "missing_snr": theorem.missing_snr,
        "missing_probability": theorem.missing_probability,
    }
    numbers = {
        "n_images": float(len(xy)),
        "theorem_p_value": theorem.p_value,
        "theorem_log_bayes_factor": theorem.log_bayes_factor,
        "n_images_model": theorem.n_images_model,
        "n_positive": theorem.n_positive,
        "n_negative": theorem.n_negative,
        "parity_sum": theorem.parity_sum,
        "under_deflector_snr": count.under_snr,
        "deflector_x_pix": float(deflector[0]),
        "deflector_y_pix": float(deflector[1]),
    }
    words = {
        "theorem_verdict": theorem.verdict,
        "theorem_hypothesis": theorem.hypothesis,
        "theorem_sentence": theorem.sentence,
        "missing_names": theorem.missing_names,
    }
    return {name: tuple(np.asarray(values, float).tolist()) for name, values in lists.items()} | numbers | words


def arcs_measured(arc: ArcScore, origin_xy_pix: FloatArray) -> dict[str, Any]:
    """The arc stage's columns of a row."""
    ring = arc.ring_xy_pix + origin_xy_pix
    counter_images = sum(piece.is_counter_image for piece in arc.arcs)
    lists = {
        "arc_radius_arcsec": [piece.radius_arcsec for piece in arc.arcs],
        "arc_angle_deg": [piece.angle_deg for piece in arc.arcs],
        "arc_extent_deg": [piece.extent_deg for piece in arc.arcs],
        "arc_length_arcsec": [piece.length_arcsec for piece in arc.arcs],
        "arc_width_arcsec": [piece.width_arcsec for piece in arc.arcs],
    }
    return {name: tuple(values) for name, values in lists.items()} | {
        "arc_score": arc.score,
        "arc_coverage_deg": arc.coverage_deg,
        "arc_coverage_err_deg": arc.coverage_err_deg,
        "theta_e_arcsec": arc.theta_e_arcsec,
        "theta_e_err_arcsec": arc.theta_e_err_arcsec,
        "n_arcs": float(len(arc.arcs) - counter_images),
        "n_counter_images": float(counter_images),
        "arc_length_rel_err": arc.length_rel_err,
        "arc_width_rel_err": arc.width_rel_err,
        "arc_snr": arc.snr,
        "arc_colour_mag": arc.colour_mag,
        "arc_colour_err_mag": arc.colour_err_mag,
        "ring_x_pix": float(ring[0]),
        "ring_y_pix": float(ring[1]),
        "ring_err_pix": arc.ring_err_pix,
        "ring_axis_ratio": arc.ring_axis_ratio,
        "ring_axis_ratio_err": arc.ring_axis_ratio_err,
        "ring_angle_deg": arc.ring_angle_deg,
        "ring_radius_arcsec": arc.ring_radius_arcsec,
    }
