"""Check that a scan of the example kept the contract of a run: python .ci/check_run.py RUN_DIR TRUTH.csv."""

import json
import sys
from pathlib import Path

import pandas as pd

COLUMNS = (
    "rank id source ra_deg dec_deg status reason score p_lens p_lens_err selected morphology n_images image_x_pix "
    "image_y_pix image_confidence theorem_verdict theorem_p_value n_images_model parity_sum missing_x_pix "
    "missing_y_pix "
    "arc_score arc_coverage_deg arc_coverage_err_deg theta_e_arcsec theta_e_err_arcsec"
).split()


def main() -> int:
    """Print every breach; returns 1 if there is any."""
    run, truth = Path(sys.argv[1]), pd.read_csv(sys.argv[2], dtype={"id": str})
    rows = pd.read_csv(run / "candidates.csv", dtype={"id": str})
    parquet = pd.read_parquet(run / "candidates.parquet")
    summary = json.loads((run / "run.json").read_text())
    page = (run / "report" / "index.html").read_text()
    scored = rows[rows["status"] != "skipped"]
    label = truth.set_index("id")["label"].reindex(scored["id"])
    lens, other = scored["score"][(label == 1).to_numpy()], scored["score"][(label == 0).to_numpy()]
    checks = {
        "every contract column": [c for c in rows.columns if c in COLUMNS] == COLUMNS,
        "the same columns in parquet": list(parquet.columns) == list(rows.columns),
        "one row per object": sorted(rows["id"]) == sorted(truth["id"]),
        "best first": scored["score"].is_monotonic_decreasing and (rows["rank"] == list(range(1, len(rows) + 1))).all(),
        "complete run": summary["status"] == "complete" and summary["counts"]["read"] == len(truth),
        "problems written": (run / "problems.csv").is_file(),
        "counter and arcs ran": scored["n_images"].notna().any() and scored["arc_score"].notna().any(),
        "lenses above impostors": lens.median() > other.median(),
        "page shows the best": str(scored["id"].iloc[0]) in page,
    }
    for name, kept in checks.items():
        print(f"{'kept ' if kept else 'BROKEN'} {name}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
