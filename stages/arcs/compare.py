"""What stage 3 reads from its mask against the same numbers of the true mask, which simulations know."""

from __future__ import annotations

import json

import numpy as np

from stages.arcs.measure import find_arcs, fit_ring
from stages.records import ArcScore, FloatArray
from stages.scaling import slots

MEASURED = ("length", "width", "ring_x", "ring_axis_ratio", "colour")  # each with an error: NAME_wrong and NAME_err
_AT_THE_CENTRE_ARCSEC = 0.3  # a deflector's light further out is another galaxy's


def against(
    said: ArcScore, true: FloatArray, centre: FloatArray, pixel_arcsec: float, colour_mag: float
) -> dict[str, float]:
    """Differences from a true polar mask (R, T) about a centre (2,) on the grid, and from a true colour.

    NaN where either has nothing.

    length, width : of the largest arc, natural logarithm of said over true; ring_x : of the ring's centre, in arcsec;
    same_arcs, same_counter_images : whether there are as many, 1 or 0.
    """
    arcs, ring = find_arcs(true, pixel_arcsec), fit_ring(true)
    counters = [sum(a.is_counter_image for a in some) for some in (said.arcs, arcs)]
    out = {f"{name}_{part}": float("nan") for name in MEASURED for part in ("wrong", "err")} | {
        "same_arcs": float(len(said.arcs) - counters[0] == len(arcs) - counters[1]),
        "same_counter_images": float(counters[0] == counters[1]),
    }
    if not said.arcs or not arcs:
        return out
    unit = pixel_arcsec / said.mask_step_pix  # arcsec of a cutout's pixel
    ring_x = said.mask_origin_xy_pix[0] + said.mask_step_pix * (centre[0] + ring.dx)
    return out | {
        "length_wrong": float(np.log(said.arcs[0].length_arcsec / arcs[0].length_arcsec)),
        "length_err": said.length_rel_err,
        "width_wrong": float(np.log(said.arcs[0].width_arcsec / arcs[0].width_arcsec)),
        "width_err": said.width_rel_err,
        "ring_x_wrong": float(said.ring_xy_pix[0] - ring_x) * unit,
        "ring_x_err": said.ring_err_pix * unit,
        "ring_axis_ratio_wrong": said.ring_axis_ratio - ring.axis_ratio,
        "ring_axis_ratio_err": said.ring_axis_ratio_err,
        "colour_wrong": said.colour_mag - colour_mag,
        "colour_err": said.colour_err_mag,
    }


def true_colour(drawn: str, bands: tuple[str, ...]) -> float:
    """Colour of a simulated lens's first source against its deflector's, as `stages.arcs.measure.colour`; NaN: none.

    drawn : the truth's column of that name.
    """
    used = [k for k in slots(bands) if k >= 0]
    what = json.loads(drawn)
    if len(set(used)) < 2 or "sources" not in what:
        return float("nan")
    source = what["sources"][0]
    arc = sum((np.array(part["flux"]) for part in source["light"]), np.zeros(len(bands)))
    arc = arc + np.array(source["stamp_flux"] or 0.0)
    light = what["deflector"]["light"]
    galaxy = sum(
        (np.array(part["flux"]) for part in light if np.hypot(part["x"], part["y"]) < _AT_THE_CENTRE_ARCSEC),
        np.zeros(len(bands)),
    )
    ratio = (arc / galaxy)[[used[0], used[-1]]] if galaxy.all() else np.zeros(2)
    return float(-2.5 * np.log10(ratio[0] / ratio[1])) if ratio.all() else float("nan")
