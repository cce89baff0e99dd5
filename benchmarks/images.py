"""Image finder of the simulator measured: broken theorems, images that map elsewhere, miscounts, speed.

python benchmarks/images.py --lenses 3000

Sources lie anywhere and, every other one, beside a fold, 1e-7 to 0.1 Einstein radii from it. Counts are checked three
ways: by a triangulated ray-shooting map (count of its negative triangles; where a caustic is nearer than the mesh
resolves, the source is left out), by crossing folds (the count changes by two), and against lenstronomy's analytic
solver (singular power law + shear: all images but the central one).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver
from lenstronomy.Util.param_util import phi_q2_ellipticity
from scipy.spatial import Delaunay

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.lensing.images import ImageSearchError, solve
from sim.lensing.lens import Lens, PowerLaw, Subhalo

MODELS = ("single", "satellites", "subhaloes", "foreground", "everything")


def random_power_law(rng: np.random.Generator, theta_e: float, x: float = 0.0, y: float = 0.0) -> PowerLaw:
    """Slope 1.6-2.4, axis ratio 0.3-1, core 0.003-0.3 arcsec."""
    core = min(10 ** rng.uniform(-2.5, -0.5), 0.6 * theta_e)
    return PowerLaw(theta_e, rng.uniform(1.6, 2.4), rng.uniform(0.3, 1), rng.uniform(0, np.pi), x, y, core)


def random_lens(rng: np.random.Generator, model: str) -> Lens:
    """As wide as the finder must bear: shear to 0.25, foreground to 0.1, three satellites, six subhaloes."""
    theta_e, parts = rng.uniform(0.5, 2.0), []
    parts.append(random_power_law(rng, theta_e, *rng.normal(0, 0.1, 2)))
    if model in ("satellites", "everything"):
        for _ in range(rng.integers(1, 4)):
            parts.append(random_power_law(rng, theta_e * rng.uniform(0.1, 0.7), *rng.normal(0, theta_e, 2)))
    if model in ("subhaloes", "everything"):
        for _ in range(rng.integers(1, 7)):
            b, core = theta_e * 10 ** rng.uniform(-3, -0.7), 10 ** rng.uniform(-3, -1.5)
            parts.append(Subhalo(b, *rng.normal(0, 0.8 * theta_e, 2), core, core + 10 ** rng.uniform(-1.5, 0)))
    shear, turn = rng.uniform(0, 0.25), rng.uniform(0, 2 * np.pi)
    foreground = rng.normal(0, 0.05, 2).clip(-0.1, 0.1) if model in ("foreground", "everything") else (0.0, 0.0)
    return Lens(tuple(parts), shear * np.cos(turn), shear * np.sin(turn), *foreground)


def fold_point(lens: Lens, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """A point of a caustic and the unit normal to it there, from a ray about a part; None where it meets no fold.

    Near a cusp (the null direction runs along the critical curve) both branches may lie within a step: None.
    """
    part = lens.parts[rng.integers(len(lens.parts))]
    turn = rng.uniform(0, 2 * np.pi)
    c, n = np.cos(turn), np.sin(turn)

    def determinant(r: np.ndarray) -> np.ndarray:
        return 1 / lens.magnification(part.x + r * c, part.y + r * n)

    radius = np.geomspace(1e-3, 4 * lens.theta_e, 400)
    found = np.flatnonzero(np.diff(np.sign(determinant(radius))))
    if not len(found):
        return None
    k = rng.choice(found)
    low, high = radius[k], radius[k + 1]
    sign = np.sign(determinant(low))
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.sign(determinant(middle)) == sign else (low, middle)
    x, y = part.x + low * c, part.y + low * n
    a11, a12, a22 = (float(a) for a in lens.jacobian(x, y))
    values, vectors = np.linalg.eigh(np.array([[a11, a12], [a12, a22]]))
    null = vectors[:, np.argmin(np.abs(values))]
    h = 1e-5 * low
    det = 1 / lens.magnification(x + h * np.array([1, -1, 0, 0]), y + h * np.array([0, 0, 1, -1]))
    gradient = np.array([det[0] - det[1], det[2] - det[3]])
    if abs(gradient @ null) < 0.2 * np.hypot(*gradient):
        return None
    return np.array(lens.source_position(x, y), float), null


def crossed_by_two(lens: Lens, point: np.ndarray, normal: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether a source gains two images where it crosses a fold.

    The step is 1e-10 to 1e-8 Einstein radii: caustics of a subhalo can be as small as 1e-7.
    """
    step = lens.theta_e * 10 ** rng.uniform(-10, -8) * normal
    return abs(len(solve(lens, *(point + step))) - len(solve(lens, *(point - step)))) == 2


def mesh_counts(lens: Lens, sources: np.ndarray) -> np.ndarray:
    """Number of images (n,) of each source by a triangulated map; -1 where a caustic is too near to tell."""
    log_polar = np.geomspace(1e-3, 4 * lens.theta_e, 70)[:, None] * np.exp(2j * np.pi * np.arange(60) / 60)
    log_polar *= np.exp(1j * np.pi / 60 * (np.arange(70) % 2))[:, None]
    side = np.linspace(-9, 9, 60) * lens.theta_e
    points = [np.add.outer(side, 1j * side).ravel() * (1 + 1e-4j)]
    unbent = np.linalg.inv(np.eye(2) - [[lens.foreground1, lens.foreground2], [lens.foreground2, -lens.foreground1]])
    for part in lens.parts:  # where it appears behind the foreground
        x, y = (lens.main.x, lens.main.y) + unbent @ (part.x - lens.main.x, part.y - lens.main.y)
        points.append(np.append(log_polar.ravel(), 0) + x + 1j * y)
    z = np.concatenate(points)
    triangles = Delaunay(np.column_stack([z.real, z.imag])).simplices
    bx, by = lens.source_position(z.real, z.imag)
    beta = (bx + 1j * by)[triangles]
    negative = lens.magnification(z.real, z.imag)[triangles] < 0
    mixed = negative.any(1) & ~negative.all(1)
    area, out = orientation(z, triangles), []
    for source in sources @ np.array([1, 1j]):
        a, b, c = (beta - source).T
        cross = np.array([(np.conj(p) * q).imag for p, q in ((a, b), (b, c), (c, a))])
        hit = (np.sign(cross) == np.sign(cross.sum(0))).all(0)
        size = np.maximum(np.maximum(abs(a - b), abs(b - c)), abs(c - a))
        unclear = (mixed & (np.minimum(np.minimum(abs(a), abs(b)), abs(c)) < 1.5 * size)).any()
        minus = int((hit & (cross.sum(0) * area < 0)).sum())
        out.append(-1 if unclear else 1 + 2 * minus)
    return np.array(out)


def orientation(z: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Twice the signed area of triangles in the image plane."""
    a, b, c = z[triangles].T
    return np.asarray((np.conj(b - a) * (c - a)).imag)


def lenstronomy_counts(rng: np.random.Generator, lenses: int) -> tuple[int, int]:
    """Singular power laws: (lenses with other images than lenstronomy's analytic solver, lenses compared)."""
    model, bad = LensModel(["EPL", "SHEAR"]), 0
    for _ in range(lenses):
        q, pa, slope, theta_e = rng.uniform(0.4, 0.95), rng.uniform(0, np.pi), rng.uniform(1.7, 2.3), 1.0
        g1, g2 = rng.uniform(-0.1, 0.1, 2)
        sx, sy = rng.uniform(-0.4, 0.4, 2)
        ours = solve(Lens((PowerLaw(theta_e, slope, q, pa),), g1, g2), sx, sy)
        e1, e2 = phi_q2_ellipticity(pa, q)
        epl = {"theta_E": theta_e, "gamma": slope, "e1": e1, "e2": e2, "center_x": 0, "center_y": 0}
        theirs = LensEquationSolver(model).image_position_from_source(
            sx, sy, [epl, {"gamma1": g1, "gamma2": g2}], solver="analytical", magnification_limit=1e-6
        )
        real = np.hypot(ours.x, ours.y) > 1e-3
        mine, others = np.column_stack([ours.x, ours.y])[real], np.array(theirs).T
        others = others[np.hypot(*others.T) > 1e-3]
        near = np.hypot(*(mine[:, None] - others[None]).T) if len(mine) and len(others) else np.ones((1, 1))
        bad += len(mine) != len(others) or near.min(0).max() > 1e-5
    return bad, lenses


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lenses", type=int, default=1000, help="lenses of each model")
    parser.add_argument("--meshes", type=int, default=30, help="lenses of each model whose counts a mesh checks")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    print("model       solves  violations  worst |beta - source|  folds not crossed by 2  mesh miscounts  solves/s")
    for model in MODELS:
        lenses = [random_lens(rng, model) for _ in range(args.lenses)]
        solve(lenses[0], 0.1, 0.0)  # compile
        violations, worst, folds, odd_folds, miscounts, compared, seconds, solves = 0, 0.0, 0, 0, 0, 0, 0.0, 0
        for i, lens in enumerate(lenses):
            fold, sources = fold_point(lens, rng), [rng.uniform(-1, 1, 2) * lens.theta_e]
            if fold is not None:
                step = lens.theta_e * 10 ** rng.uniform(-7, -1)
                sources += [fold[0] + step * fold[1], fold[0] - step * fold[1]]
            for sx, sy in sources:
                start = time.process_time()
                try:
                    images = solve(lens, sx, sy)
                except ImageSearchError as error:
                    print(error)
                    violations += 1
                    continue
                seconds, solves = seconds + time.process_time() - start, solves + 1
                bx, by = lens.source_position(images.x, images.y)
                worst = max(worst, float(np.hypot(bx - sx, by - sy).max()))
                violations += images.parity_sum != 1
            if fold is not None:
                folds, odd_folds = folds + 1, odd_folds + (not crossed_by_two(lens, *fold, rng))
            if i < args.meshes:
                many = rng.uniform(-1, 1, (20, 2)) * lens.theta_e
                counts = mesh_counts(lens, many)
                ours = np.array([len(solve(lens, *s)) for s in many])
                miscounts += int((counts != ours)[counts > 0].sum())
                compared += int((counts > 0).sum())
        print(
            f"{model:12s}{solves:6d}{violations:12d}{worst:22.1e}{f'{odd_folds} of {folds}':>25s}"
            f"{f'{miscounts} of {compared}':>16s}{solves / seconds:10.0f}"
        )
    bad, compared = lenstronomy_counts(rng, min(args.lenses, 300))
    print(f"singular power law + shear: {bad} of {compared} differ from lenstronomy's analytic solver")


if __name__ == "__main__":
    main()
