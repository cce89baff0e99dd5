"""Image finder, fit and certificate measured: violations, speed, real quads kept, chance look-alikes rejected.

python benchmarks/theorem.py --lenses 10000 --sets 300 [--workers 2] [--quads truth.csv]

Every share has its 95% interval in brackets. "Rejected at 5% loss" cuts the Bayes factor of a reading of all four
points as images where 95% of the lensed quads stay. Rates are per core: seconds of processor time.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.mocks import (
    MASSES,
    PLACES,
    QUARTETS,
    Place,
    about_galaxy,
    double,
    in_three_bands,
    lensed,
    on_ring,
    quad,
    random_lens,
    source_near_caustic,
    triple,
)  # fmt: skip
from stages import metrics
from stages.counter.images import all_images
from stages.counter.lens_fit import fit
from stages.counter.lens_model import LensModel
from stages.counter.theorem import Detections, certificate
from stages.records import Certificate

NAN2 = (np.nan, np.nan)
CHUNK = 500


def solve_chunk(seed: tuple[int, int, int, str]) -> Counter[str]:
    """What `all_images` finds for some random lenses, every other source near a caustic."""
    rng, out = np.random.default_rng(seed[:2]), Counter[str]()
    all_images(LensModel(1.0), (0.1, 0.0))  # machine code is loaded before the clock runs
    for k in range(seed[2]):
        model = random_lens(rng, seed[3])
        source = rng.uniform(-0.7, 0.7, 2) * model.theta_e_arcsec if k % 2 else source_near_caustic(model, rng)
        source = np.where(np.isfinite(source), source, 0.01)
        start = time.process_time_ns()
        images = all_images(model, source)
        out["ns"] += time.process_time_ns() - start
        out["lenses"] += 1
        out["even"] += len(images.kind) % 2 == 0
        out["parity sum not 1"] += images.parity_sum != 1
        out["winding known"] += images.expected[0] >= 0
        out["winding mismatch"] += not images.complete and images.parity_sum == 1
        out["elsewhere"] += bool(np.abs(model.ray_shoot(images.xy_arcsec) - source).max(initial=0) > 1e-8)
        out[f"{len(images.kind)} images"] += 1
    return out


def measure_images(n: int, seed: int, workers: int, mass: str) -> None:
    """Violations of the theorem and of the caustics' counts, and solves per second; streamed over processes."""
    jobs = [(seed, k, min(CHUNK, n - k * CHUNK), mass) for k in range(-(-n // CHUNK))]
    total = Counter[str]()
    all_images(LensModel(1.0), (0.1, 0.0))  # compiled once, not by every process
    with get_context("spawn").Pool(workers) as pool, tqdm(total=n, unit="lens", desc="images") as bar:
        for part in pool.imap_unordered(solve_chunk, jobs):
            total += part
            bar.update(part["lenses"])
    print(f"images: {n} lenses ({mass}), half the sources within 0.1 theta_E of a caustic: even {total['even']},")
    print(f"  parity sum not 1 {total['parity sum not 1']}, images that map elsewhere {total['elsewhere']},", end=" ")
    print(f"mismatch with winding numbers {total['winding mismatch']},")
    print(f"  critical curves not followed (parity alone known) in {100 * (1 - total['winding known'] / n):.3g}%")
    counts = {name: total[name] for name in sorted(total) if name[0].isdigit()}
    print(f"  {1e9 * total['lenses'] / total['ns']:.0f} solves/s; {counts}")


def measure_fits(n: int, rng: np.random.Generator) -> None:
    """Fits per second, images of the model included."""
    quads = [quad(rng, PLACES["space"])[0] for _ in range(n)]
    for name, size, deflector in (("quad", 4, (0, 0)), ("quad, deflector unseen", 4, NAN2), ("double", 2, (0, 0))):
        fit(quads[0][:size], np.full(size, 0.03), deflector, 0.03)
        start = time.process_time()
        for xy in quads:
            fit(xy[:size], np.full(size, 0.03), deflector, 0.03)
        print(f"fit, {name}: {n / (time.process_time() - start):.0f} fits/s")


def judge(
    xy: np.ndarray, flux: np.ndarray, place: Place, rng: np.random.Generator, seen: bool, limit: float = np.nan
) -> Certificate:
    """Certificate of points whose deflector, at 0, is seen with the place's error or not; fluxes (n,) or (n, bands)."""
    deflector = rng.normal(0, place.deflector_error, 2) if seen else NAN2
    error, noise = np.full(len(xy), place.error), flux * place.flux_error / 1.086 if flux.ndim == 2 else None
    points = Detections(xy, flux, np.ones(len(xy)), deflector, 1.0, 1.0, place.fwhm, limit, noise, error)
    return certificate(points)


def all_four(result: Certificate) -> float:
    """Log Bayes factor, or a low number where the best reading takes one of the points for a contaminant."""
    return -99.0 if result.hypothesis.endswith(("contaminant", "contaminants")) else result.log_bayes_factor


def share(k: int, n: int) -> str:
    """k of n in per cent with its exact 95% interval."""
    interval = binomtest(k, n).proportion_ci()
    return f"{100 * k / n:5.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def measure_quartets(n: int, rng: np.random.Generator) -> None:
    """Verdicts on lensed quads, chance quartets and quads with one image replaced."""
    for name, place in PLACES.items():
        for seen in (True, False):
            cut = -np.inf
            for kind, make in QUARTETS.items():
                results = [judge(*make(rng, place), place, rng, seen) for _ in range(n)]
                factor, verdicts = np.array([all_four(r) for r in results]), Counter(r.verdict for r in results)
                cut = float(np.quantile(factor, 0.05)) if kind == "lensed quads" else cut
                words = "  ".join(f"{v} {share(verdicts[v], n)}" for v in ("supports", "possible", "inconsistent"))
                print(f"{name:6} {kind:17} deflector {'seen  ' if seen else 'unseen'} %: {words}", end="")
                print("" if kind == "lensed quads" else f"  rejected at 5% loss {share(int((factor < cut).sum()), n)}")


def measure_few(n: int, rng: np.random.Generator) -> None:
    """AUC of triples and doubles against chance points, deflector seen; doubles without fluxes, with, and with colours.

    The same doubles are judged each time.
    """
    for name, place in PLACES.items():
        lens = [judge(*triple(rng, place)[:2], place, rng, True) for _ in range(n)]
        limited = [(lambda t: judge(t[0], t[1], place, rng, True, t[2]))(triple(rng, place)) for _ in range(n)]
        for kind, make in (
            ("ring, jitter 0.2", lambda p: on_ring(rng, p, 0.2, 3)),
            ("about a galaxy", lambda p: about_galaxy(rng, p, 3)),
        ):
            chance = [judge(*make(place), place, rng, True) for _ in range(n)]
            print(f"{name:6} triples against {kind}: {auc(lens, chance)}; depth known {auc(limited, chance)}")
        pairs = [[double(rng, place) for _ in range(n)], [about_galaxy(rng, place, 2) for _ in range(n)]]
        colours = [[in_three_bands(rng, place, f, side == 0) for _, f in pairs[side]] for side in (0, 1)]
        for what, bands in (("geometry", 0), ("geometry and fluxes", 1), ("geometry, fluxes and colours", 3)):
            lens, chance = (
                [
                    judge(xy, flux[:, :bands] if bands else np.full(2, np.nan), place, rng, True)
                    for (xy, _), flux in zip(pairs[side], colours[side], strict=True)
                ]
                for side in (0, 1)
            )
            verdicts = [dict(Counter(r.verdict for r in some)) for some in (lens, chance)]
            print(f"{name:6} doubles from {what}: {auc(lens, chance)}; verdicts of lenses {verdicts[0]},", end=" ")
            print(f"of chance points {verdicts[1]}")


def auc(lens: list[Certificate], chance: list[Certificate]) -> str:
    """AUC of the log Bayes factor with its bootstrap interval."""
    a, b = (np.array([max(r.log_bayes_factor, -99) for r in side]) for side in (lens, chance))
    low, high = metrics.bootstrap(metrics.auroc, a, b, np.random.default_rng(0), 500)
    return f"AUC {metrics.auroc(a, b):.3f} [{low:.3f}, {high:.3f}]"


def measure_missing(n: int, rng: np.random.Generator) -> None:
    """Where a fourth image is predicted and whether the search ellipse holds it; any of the four taken away.

    In the rest no fourth is predicted: the best reading is a double with a contaminant.
    """
    for name, place in PLACES.items():
        near = []
        for _ in range(n):
            xy, flux, _ = lensed(rng, place, 4, 0.3)
            k = rng.integers(4)
            result = judge(np.delete(xy, k, 0), np.delete(flux, k), place, rng, True)
            known = np.isfinite(result.missing_ellipse_pix).all(1)
            if result.hypothesis not in ("one_contaminant", "two_images"):
                near.append(min(ellipses(result, known, xy[k]), default=(9.0, 9.0, 9.0), key=lambda f: f[2]))
        in68, in95, offset = np.array(near).T
        print(f"{name:6} removed image: a fourth predicted in % {share(len(near), n)}, median offset", end=" ")
        print(
            f"{np.median(offset):.3f} arcsec; in the 68% ellipse % {share(int((in68 < 1).sum()), len(near))},", end=" "
        )
        print(f"in the 95% ellipse % {share(int((in95 < 1).sum()), len(near))}")


def ellipses(result: Certificate, known: np.ndarray, true: np.ndarray) -> Iterator[tuple[float, float, float]]:
    """A place's radius in units of each search ellipse (68%, 95%), and its distance."""
    for centre, (major, minor, angle, outer) in zip(
        result.missing_xy_pix[known], result.missing_ellipse_pix[known], strict=True
    ):
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        dx, dy = true - centre
        radius = np.hypot((c * dx + s * dy) / major, (c * dy - s * dx) / minor)
        yield float(radius), float(radius * major / outer), float(np.hypot(dx, dy))


def measure_real(path: Path) -> None:
    """Verdicts on real quads, deflector unseen; truth.csv with columns id, x_arcsec, y_arcsec, flux_ratio."""
    quads: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(path.open()):
        quads.setdefault(row["id"], []).append(row)
    verdicts, factors = Counter[str](), []
    for rows in quads.values():
        xy = np.array([(float(r["x_arcsec"]), float(r["y_arcsec"])) for r in rows])
        flux = np.array([float(r["flux_ratio"] or "nan") for r in rows])
        result = certificate(Detections(xy, flux, np.ones(len(xy)), NAN2, np.nan, 1.0, 0.1))
        verdicts[result.verdict] += 1
        factors.append(result.log_bayes_factor)
    print(f"real quads, deflector unseen: {dict(verdicts)} of {len(quads)}; lowest ln Bayes factor {min(factors):.1f}")


def main() -> None:
    """Parse the command line and print every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lenses", type=int, default=10_000)
    parser.add_argument("--mass", choices=MASSES, nargs="+", default=MASSES, help="of the lenses, --lenses of each")
    parser.add_argument("--sets", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2, help="processes for the lenses")
    parser.add_argument("--quads", type=Path, default=Path("../shared/real/quads/truth.csv"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for mass in arguments.mass if arguments.lenses else ():
        measure_images(arguments.lenses, arguments.seed, arguments.workers, mass)
    if not arguments.sets:
        return
    rng = np.random.default_rng(arguments.seed)
    measure_fits(arguments.sets, rng)
    if arguments.quads.exists():
        measure_real(arguments.quads)
    measure_missing(arguments.sets, rng)
    measure_few(arguments.sets, rng)
    measure_quartets(arguments.sets, rng)


if __name__ == "__main__":
    main()
