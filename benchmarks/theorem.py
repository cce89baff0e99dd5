"""Image finder, fit and certificate measured: violations, speed, real quads kept, chance quartets rejected.

python benchmarks/theorem.py --lenses 10000 --sets 300 [--quads truth.csv]
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stages.counter.images import all_images
from stages.counter.lens_fit import fit
from stages.counter.lens_model import LensModel
from stages.counter.theorem import certificate

NAN2 = (np.nan, np.nan)
SETTINGS = {"space": (0.1, 0.03, 0.005), "ground": (0.7, 0.08, 0.03)}  # FWHM, deflector error, position error, arcsec


def random_lens(rng: np.random.Generator) -> LensModel:
    """As wide as the image finder must bear: e to 0.4 per component, shear to 0.15, cores 0.01-0.1 arcsec."""
    angle, shear = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.15)
    g1, g2 = shear * np.cos(angle), shear * np.sin(angle)
    return LensModel(rng.uniform(0.5, 2), *rng.uniform(-0.4, 0.4, 2), g1, g2, core_arcsec=10 ** rng.uniform(-2, -1))


def source_near_caustic(model: LensModel, rng: np.random.Generator) -> np.ndarray:
    """A source within 1e-7 to 0.1 Einstein radii of a caustic, or NaN where the ray meets none."""
    radius, angle = np.geomspace(1e-3, 4 * model.theta_e_arcsec, 2000), rng.uniform(0, 2 * np.pi)
    ray = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    crossings = np.flatnonzero(np.diff(np.sign(model.magnification(ray))))
    if not len(crossings):
        return np.full(2, np.nan)
    k = rng.choice(crossings)
    low, high = radius[k], radius[k + 1]
    sign = np.sign(model.magnification(ray[k])[0])
    for _ in range(45):
        mid = 0.5 * (low + high)
        inside = np.sign(model.magnification((mid * np.cos(angle), mid * np.sin(angle)))[0]) == sign
        low, high = (mid, high) if inside else (low, mid)
    caustic = model.ray_shoot((low * np.cos(angle), low * np.sin(angle)))[0]
    return caustic + rng.normal(size=2) * 10 ** rng.uniform(-7, -1) * model.theta_e_arcsec


def measure_images(n: int, rng: np.random.Generator) -> None:
    """Violations of the theorem and of the caustics' counts, and solves per second."""
    cases = []
    for k in range(n):
        model = random_lens(rng)
        source = rng.uniform(-0.7, 0.7, 2) * model.theta_e_arcsec if k % 2 else source_near_caustic(model, rng)
        cases.append((model, np.where(np.isfinite(source), source, 0.01)))
    all_images(*cases[0])
    start = time.perf_counter()
    found = [all_images(*case) for case in cases]
    rate = n / (time.perf_counter() - start)
    even = sum(len(images.kind) % 2 == 0 for images in found)
    parity = sum(images.parity_sum != 1 for images in found)
    known = [images for images in found if images.expected[0] >= 0]
    mismatch = sum(tuple(np.bincount(i.kind, minlength=3)) != i.expected for i in known)
    print(f"images: {n} lenses, half within 0.1 theta_E of a caustic: even {even}, parity sum not 1 {parity},")
    print(
        f"  winding mismatch {mismatch} of {len(known)} (others: curves not nested, parity only); {rate:.0f} solves/s"
    )
    print(f"  number of images: {dict(sorted(Counter(len(images.kind) for images in found).items()))}")


def mock_quad(rng: np.random.Generator, fwhm: float, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Four bright images at least 1 FWHM apart, and fluxes; shapes unlike the fitter's priors, deflector at 0."""
    while True:
        e, g = rng.rayleigh(0.16), min(rng.exponential(0.06), 0.2)
        a, b = rng.uniform(0, 2 * np.pi, 2)
        shape = (min(e, 0.5) * np.cos(a), min(e, 0.5) * np.sin(a), g * np.cos(b), g * np.sin(b))
        model = LensModel(rng.uniform(0.6, 1.8), *shape, core_arcsec=0.003)
        images = all_images(model, rng.uniform(-0.3, 0.3, 2) * model.theta_e_arcsec)
        bright = images.kind < 2
        xy = images.xy_arcsec[bright] + rng.normal(0, error, (int(bright.sum()), 2))
        if len(xy) == 4 and closest(xy) > fwhm:
            return xy, np.abs(images.magnification[bright]) * 10 ** (0.4 * rng.normal(0, 0.35, 4))


def closest(xy: np.ndarray) -> float:
    """Smallest separation."""
    return float((np.hypot(*(xy[:, None] - xy).transpose(2, 0, 1)) + 99 * np.eye(len(xy))).min())


def on_ring(rng: np.random.Generator, fwhm: float, jitter: float) -> tuple[np.ndarray, np.ndarray]:
    """Four chance points on a ring about the deflector, radii scattered by `jitter`, fluxes by 0.8 mag."""
    while True:
        radius = rng.uniform(0.6, 1.8) * np.clip(1 + jitter * rng.normal(size=4), 0.2, None)
        angle = rng.uniform(0, 2 * np.pi, 4)
        xy = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
        if closest(xy) > fwhm:
            return xy, 10 ** (0.4 * rng.normal(0, 0.8, 4))


def one_replaced(rng: np.random.Generator, fwhm: float, error: float) -> tuple[np.ndarray, np.ndarray]:
    """A lensed quad one of whose images is put at a chance place on the ring."""
    while True:
        xy, flux = mock_quad(rng, fwhm, error)
        angle, radius = rng.uniform(0, 2 * np.pi), np.hypot(*xy.T).mean() * (1 + 0.2 * rng.normal())
        k = rng.integers(4)
        old, xy[k] = xy[k].copy(), (radius * np.cos(angle), radius * np.sin(angle))
        if closest(xy) > fwhm and np.hypot(*(old - xy[k])) > max(fwhm, 0.2):
            return xy, flux


def rates(verdicts: Counter[str]) -> str:
    """Verdict rates in per cent with exact 95% intervals."""
    n, parts = verdicts.total(), []
    for name in ("supports", "possible", "inconsistent"):
        interval = binomtest(verdicts[name], n).proportion_ci()
        parts.append(f"{name} {100 * verdicts[name] / n:5.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]")
    return "  ".join(parts)


def measure_sets(n: int, rng: np.random.Generator) -> None:
    """Verdicts on mock quads, chance quartets and quads with one image replaced."""
    for place, (fwhm, deflector_error, error) in SETTINGS.items():
        makers = {
            "mock quads": lambda f=fwhm, e=error: mock_quad(rng, f, e),
            "ring, jitter 0.1": lambda f=fwhm: on_ring(rng, f, 0.1),
            "ring, jitter 0.2": lambda f=fwhm: on_ring(rng, f, 0.2),
            "one of 4 replaced": lambda f=fwhm, e=error: one_replaced(rng, f, e),
        }
        for name, make in makers.items():
            for seen in (True, False):
                verdicts: Counter[str] = Counter()
                for _ in range(n):
                    xy, flux = make()
                    deflector = rng.normal(0, deflector_error, 2) if seen else NAN2
                    verdicts[certificate(xy, flux, np.ones(4), deflector, 1.0, 1.0, fwhm).verdict] += 1
                print(f"{place:6} {name:17} deflector {'seen  ' if seen else 'unseen'} %: {rates(verdicts)}")


def measure_fits(n: int, rng: np.random.Generator) -> None:
    """Fits per second, images of the model included, and where a removed image is predicted."""
    quads = [mock_quad(rng, 0.1, 0.005)[0] for _ in range(n)]
    for name, size, deflector in (("quad", 4, (0, 0)), ("quad, deflector unseen", 4, NAN2), ("double", 2, (0, 0))):
        fit(quads[0][:size], np.full(size, 0.03), deflector, 0.03)
        start = time.perf_counter()
        for xy in quads:
            fit(xy[:size], np.full(size, 0.03), deflector, 0.03)
        print(f"fit, {name}: {n / (time.perf_counter() - start):.0f} fits/s")
    offsets = []
    for xy in quads:
        k = rng.integers(4)
        rest = np.delete(xy, k, 0)
        result = certificate(rest, np.full(3, np.nan), np.ones(3), rng.normal(0, 0.03, 2), 1.0, 1.0, 0.1)
        offsets.append(np.hypot(*(result.missing_xy_pix - xy[k]).T).min(initial=9.0))
    print(f"removed image of a quad (space, deflector seen): median offset {np.median(offsets):.3f} arcsec")


def measure_real(path: Path) -> None:
    """Verdicts on real quads, deflector unseen; truth.csv with columns id, x_arcsec, y_arcsec, flux_ratio."""
    quads: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(path.open()):
        quads.setdefault(row["id"], []).append(row)
    for fwhm in (0.1, 0.3):
        verdicts, p_values = Counter[str](), []
        for rows in quads.values():
            xy = np.array([(float(r["x_arcsec"]), float(r["y_arcsec"])) for r in rows])
            flux = np.array([float(r["flux_ratio"] or "nan") for r in rows])
            result = certificate(xy, flux, np.ones(len(xy)), NAN2, np.nan, 1.0, fwhm)
            verdicts[result.verdict] += 1
            p_values.append(result.p_value)
        print(f"real quads, FWHM {fwhm}, deflector unseen %: {rates(verdicts)}; lowest p {min(p_values):.2f}")


def main() -> None:
    """Parse the command line and print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lenses", type=int, default=10_000)
    parser.add_argument("--sets", type=int, default=300)
    parser.add_argument("--quads", type=Path, default=Path("../shared/real/quads/truth.csv"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    measure_images(arguments.lenses, rng)
    measure_fits(arguments.sets, rng)
    if arguments.quads.exists():
        measure_real(arguments.quads)
    measure_sets(arguments.sets, rng)


if __name__ == "__main__":
    main()
