"""One object's picture and what is drawn on it, small enough to keep for every row of the report."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates
from skimage.measure import approximate_polygon, find_contours

from stages.records import ArcScore, BoolArray, Cutout, FloatArray, ImageCount
from stages.report.render import colour_order, colour_picture, encode, hatched, shrink, sky_and_noise

Point = tuple[float, float]

MAX_SIDE_ARCSEC = 12.0
_MAX_SIDE_UNKNOWN_PIX = 160  # crop where the pixel scale is unknown
_MAX_PICTURE_PIX = 240
_CONTOUR_LEVEL = 0.5
_LIKELY = 0.5  # arc score from which on a ring is believed
_CONTOUR_TOLERANCE_PIX = 0.2
_N_SECTORS = 72
_COMPOSITE = re.compile(r"\.(png|jpe?g|gif|bmp|webp)$", re.IGNORECASE)


@dataclass(frozen=True)
class Stamp:
    """A picture with vector overlays, in a frame whose origin is the picture's top left corner.

    All positions are (x, y) in cutout pixels from that corner, y down, so that overlays stay on the picture however it
    is scaled; `width` and `height` are its size in the same unit.

    image, mime : the encoded picture.
    images, confidence : detected images in the counter's order, and their confidences.
    deflector : the detected deflector, or none.
    missing : images of the fitted model that were not seen: x, y and the reason's name.
    missing_ellipses : for each the semi-axes of the ellipse that holds it with 68%, the angle in degrees of the longer,
        clockwise from the picture's right, and the semi-major axis of that with 95%; or none.
    arcs : outlines of the arc mask at 0.5.
    sectors : part of the ring (0..1) that the mask covers in equal sectors, counterclockwise from the picture's right.
    ring : the Einstein circle's centre and radius, or none.
    ellipse : centre, semi-axes and angle, as above, of the ellipse on which likely arcs lie, or none.
    north_deg : direction of north, counterclockwise from the picture's up; NaN where unknown.
    north_assumed : True where north up, east left is only the convention, not read from the file.
    """

    id: str
    image: bytes
    mime: str
    width: float
    height: float
    pixel_scale_arcsec: float
    images: tuple[Point, ...] = ()
    confidence: tuple[float, ...] = ()
    deflector: Point | None = None
    missing: tuple[tuple[float, float, str], ...] = ()
    missing_ellipses: tuple[tuple[float, float, float, float] | None, ...] = ()
    arcs: tuple[tuple[Point, ...], ...] = ()
    sectors: tuple[float, ...] = ()
    ring: tuple[float, float, float] | None = None
    ellipse: tuple[float, float, float, float, float] | None = None
    north_deg: float = math.nan
    north_assumed: bool = True


@dataclass(frozen=True)
class _Window:
    """The part of a cutout that is shown: columns x0..x1, rows y0..y1 (ends excluded), and whether row 0 is below."""

    x0: int
    x1: int
    y0: int
    y1: int
    row_0_below: bool

    def points(self, xy_pix: FloatArray) -> tuple[Point, ...]:
        """Cutout positions (n, 2) in the picture's frame."""
        x = xy_pix[:, 0] - self.x0 + 0.5
        y = self.y1 - 0.5 - xy_pix[:, 1] if self.row_0_below else xy_pix[:, 1] - self.y0 + 0.5
        return tuple((round(float(a), 2), round(float(b), 2)) for a, b in zip(x, y, strict=True))

    def clockwise_deg(self, angle_deg: float) -> float:
        """An angle from +x to +y of the cutout, clockwise from the picture's right."""
        return round((-angle_deg if self.row_0_below else angle_deg) % 180.0, 1)


def is_composite(source: str) -> bool:
    """Whether a source is a picture file, whose row 0 is at the top (FITS and arrays have it at the bottom)."""
    return bool(_COMPOSITE.search(re.split(r"[#\[]", source)[0].rstrip()))


def make_stamp(
    cutout: Cutout,
    image_count: ImageCount | None = None,
    arc_score: ArcScore | None = None,
    north_deg: float = math.nan,
) -> Stamp:
    """Draw a cutout for the report.

    Parameters
    ----------
    cutout : Cutout
        Its central 12 arcsec (or all of it, if smaller) are shown.
    image_count, arc_score : optional
        Results of the counter and of the arc stage for the same id; what is None is not drawn.
    north_deg : float
        Direction of north counterclockwise from the displayed up. Where NaN and the sky position is known, north up and
        east left are drawn as assumed.

    Returns
    -------
    Stamp
        Picture and overlays. The same input gives the same bytes.
    """
    window = _window(cutout)
    image, mime = _picture(cutout, window)
    placed = math.isfinite(cutout.ra_deg) and math.isfinite(cutout.dec_deg)
    count = _count_overlay(image_count, window)
    ring = _ring(image_count, arc_score, window, cutout.pixel_scale_arcsec)
    return Stamp(
        id=cutout.id,
        image=image,
        mime=mime,
        width=float(window.x1 - window.x0),
        height=float(window.y1 - window.y0),
        pixel_scale_arcsec=cutout.pixel_scale_arcsec,
        images=count[0],
        confidence=() if image_count is None else tuple(round(float(c), 4) for c in image_count.confidence),
        deflector=count[1],
        missing=count[2],
        missing_ellipses=count[3],
        arcs=() if arc_score is None else _arcs(arc_score, window),
        sectors=() if arc_score is None or ring is None else _sectors(arc_score, window, ring),
        ring=ring,
        ellipse=None if arc_score is None else _ellipse(arc_score, window, cutout.pixel_scale_arcsec),
        north_deg=north_deg if math.isfinite(north_deg) else (0.0 if placed else math.nan),
        north_assumed=not math.isfinite(north_deg),
    )


def _window(cutout: Cutout) -> _Window:
    height, width = cutout.flux.shape[1:]
    scale = cutout.pixel_scale_arcsec
    known = math.isfinite(scale) and scale > 0
    side = max(int(MAX_SIDE_ARCSEC / scale), 1) if known else _MAX_SIDE_UNKNOWN_PIX
    below = not is_composite(cutout.source)
    at = np.where(np.isfinite(cutout.xy_pix), cutout.xy_pix, ((width - 1) / 2, (height - 1) / 2))
    x0, y0 = (
        int(np.clip(round(float(c) - (side - 1) / 2), 0, max(size - side, 0)))
        for c, size in zip(at, (width, height), strict=True)
    )
    wide, high = min(side, width), min(side, height)
    factor = _shrink_factor(wide, high)  # whole blocks only, so that the picture is exactly as large as its frame
    return _Window(x0, x0 + wide - wide % factor, y0, y0 + high - high % factor, below)


def _shrink_factor(width: int, height: int) -> int:
    return -(-max(width, height) // _MAX_PICTURE_PIX)


def _picture(cutout: Cutout, window: _Window) -> tuple[bytes, str]:
    rows, columns = slice(window.y0, window.y1), slice(window.x0, window.x1)
    valid = cutout.valid & np.isfinite(cutout.flux)
    factor = _shrink_factor(window.x1 - window.x0, window.y1 - window.y0)
    planes, good, scales = [], [], []
    for k in colour_order(cutout.bands):
        if k < 0:
            continue
        plane, mask = shrink(cutout.flux[k, rows, columns].astype(float), valid[k, rows, columns], factor)
        sky, noise = sky_and_noise(cutout.flux[k], valid[k])
        planes.append(plane)
        good.append(mask)
        scales.append((sky, noise / math.sqrt(factor)))  # pixels are seldom independent: less gain than 1/factor
    if len(planes) == 2:  # no middle band: leave it invalid, so that it takes the mean of the others
        planes.insert(1, np.zeros_like(planes[0]))
        good.insert(1, np.zeros_like(good[0]))
        scales.insert(1, (0.0, 1.0))
    flux, mask = np.stack(planes), np.stack(good)
    if is_composite(cutout.source) and _is_8_bit(cutout.flux, valid):
        picture = hatched(
            np.clip(flux, 0, 255).round().astype(np.uint8).transpose(1, 2, 0), np.asarray(mask.any(axis=0))
        )
    else:
        picture = colour_picture(flux, mask, np.array(scales))
    return encode(picture[::-1] if window.row_0_below else picture)


def _is_8_bit(flux: FloatArray, valid: BoolArray) -> bool:
    """Whether values are the display's own levels, not flux recovered from them."""
    values = flux[valid]
    return bool(values.size and values.min() >= 0 and 1 < values.max() <= 255 and (values == np.rint(values)).all())


def _count_overlay(
    count: ImageCount | None, window: _Window
) -> tuple[
    tuple[Point, ...], Point | None, tuple[tuple[float, float, str], ...],
    tuple[tuple[float, float, float, float] | None, ...],
]:  # fmt: skip
    """Images, deflector, missing images and their search ellipses."""
    if count is None:
        return (), None, (), ()
    deflector = window.points(count.deflector_xy_pix[None])[0] if np.isfinite(count.deflector_xy_pix).all() else None
    certificate = count.certificate
    seen = np.asarray(np.isfinite(certificate.missing_xy_pix).all(axis=1))
    names = [name for name, keep in zip(certificate.missing_names, seen, strict=True) if keep]
    missing = window.points(certificate.missing_xy_pix[seen])
    searched = certificate.missing_ellipse_pix
    searched = searched[seen] if len(searched) else np.full((len(missing), 4), np.nan)
    ellipses = tuple(
        (round(float(a), 2), round(float(b), 2), window.clockwise_deg(float(t)), round(float(far), 2))
        if np.isfinite([a, b, t, far]).all()
        else None
        for a, b, t, far in searched
    )
    marks = tuple((x, y, n) for (x, y), n in zip(missing, names, strict=True))
    return window.points(count.xy_pix), deflector, marks, ellipses


def _ring(
    count: ImageCount | None, arc: ArcScore | None, window: _Window, scale: float
) -> tuple[float, float, float] | None:
    """The ring of an arc that is likelier than not, else the fitted lens model's, else the arc stage's as it is."""
    choices = []
    if arc is not None:
        choices.append((arc.centre_xy_pix, arc.theta_e_arcsec))
    if count is not None:
        at = 0 if arc is not None and arc.score < _LIKELY else len(choices)
        choices.insert(at, (count.deflector_xy_pix, count.certificate.theta_e_arcsec))
    for centre, theta_e in choices:
        radius = theta_e / scale
        if np.isfinite(centre).all() and math.isfinite(radius) and radius > 0:
            return (*window.points(centre[None])[0], round(radius, 2))
    return None


def _ellipse(arc: ArcScore, window: _Window, scale: float) -> tuple[float, float, float, float, float] | None:
    known = (*arc.ring_xy_pix, arc.ring_radius_arcsec / scale, arc.ring_axis_ratio, arc.ring_angle_deg)
    if arc.score < _LIKELY or not np.isfinite(known).all():
        return None
    x, y = window.points(arc.ring_xy_pix[None])[0]
    longer = 2 * known[2] / (1 + arc.ring_axis_ratio)
    return x, y, round(longer, 2), round(longer * arc.ring_axis_ratio, 2), window.clockwise_deg(arc.ring_angle_deg)


def _arcs(arc: ArcScore, window: _Window) -> tuple[tuple[Point, ...], ...]:
    mask = np.pad(np.nan_to_num(arc.mask.astype(float)), 1)  # a border of zeros closes outlines at the edge
    outlines = []
    for contour in find_contours(mask, _CONTOUR_LEVEL):
        polygon = approximate_polygon(contour, _CONTOUR_TOLERANCE_PIX)
        if len(polygon) > 3:
            outlines.append(window.points(arc.mask_origin_xy_pix + arc.mask_step_pix * (polygon[:, ::-1] - 1)))
    return tuple(outlines)


def _sectors(arc: ArcScore, window: _Window, ring: tuple[float, float, float]) -> tuple[float, ...]:
    """Highest mask value within half a radius of the ring in each sector, zero below the contour's level."""
    up = 1.0 if window.row_0_below else -1.0
    centre = np.array([ring[0] - 0.5 + window.x0, window.y1 - 0.5 - ring[1] if up > 0 else ring[1] - 0.5 + window.y0])
    angle = 2.0 * np.pi * (np.arange(_N_SECTORS) + 0.5) / _N_SECTORS
    radius = ring[2] * np.linspace(0.5, 1.5, 41)
    xy = centre[:, None, None] + np.stack([np.cos(angle), up * np.sin(angle)])[:, :, None] * radius
    ij = (xy - arc.mask_origin_xy_pix[:, None, None]) / arc.mask_step_pix
    mask = np.nan_to_num(arc.mask.astype(float))
    highest = map_coordinates(mask, ij[::-1], order=1, mode="constant").max(axis=1)
    return tuple(round(float(v), 2) if v >= _CONTOUR_LEVEL else 0.0 for v in highest)
