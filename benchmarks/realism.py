"""Simulated against real for four real sets: python benchmarks/realism.py --real REAL --out runs/realism.

For each set: simulate what benchmarks/realism/SET.yaml asks for, then compare with sim/realism.py; one line a set.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim import generate, realism

CONFIGS = Path(__file__).resolve().parent / "realism"


@dataclass(frozen=True)
class RealSet:
    """A real set: folder, name of the survey, how many cutouts to simulate, further options of sim/realism.py."""

    folder: str
    survey: str
    n: int
    options: tuple[str, ...] = ()


SETS = {
    "des": RealSet("des_fields", "des", 600),
    "slacs": RealSet("slacs", "hst_acs", 500, (
        "--sim-where", "kind == 'lens_galaxy'", "--max-invalid", "0.2", "--mask-neighbours", "2.5")),
    "jwst": RealSet("jwst_galaxies", "jwst_nircam", 900, ("--max-invalid", "0.1")),
    "cfhtls": RealSet("cfhtls", "cfhtls_composite", 900, ("--where", "kind == 'field'")),
}  # fmt: skip


def main() -> int:
    """Run the sets asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="the folder that holds the real sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20, help="of the small network; 0 leaves it out")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    lines = []
    for name in options.sets:
        chosen, data = SETS[name], options.out / name / "data"
        real = options.real / chosen.folder
        common = ["--seed", str(options.seed), "--workers", str(options.workers)]
        config = ["--config", str(CONFIGS / f"{name}.yaml"), "--survey", chosen.survey, "--n", str(chosen.n)]
        made = generate.main([*config, "--out", str(data), *common])
        catalogue = real / "catalogue.csv"
        code = made or realism.main(
            ["--real", str(real), "--survey", chosen.survey, "--sim", str(data), "--out", str(options.out / name)]
            + ["--epochs", str(options.epochs), "--limit", "300", *chosen.options, *common]
            + (["--catalogue", str(catalogue)] if catalogue.is_file() else [])
        )
        if code:
            return code
        found = json.loads((options.out / name / "realism.json").read_text())
        auc = "  ".join(f"{k} {v['auc']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for k, v in found["auc"].items())
        lines.append(f"{name:8s} {found['pairs']:4d} real x {found['simulated_per_real']}  {auc}")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
