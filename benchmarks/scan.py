"""Speed and memory of a scan: python benchmarks/scan.py [--sizes 1000 10000]; Linux only (reads /proc).

Makes FITS cutouts (three bands, 46 x 46, with ERR; one simulated object in a hundred is a lens), scans them with the
defaults and prints cutouts per second, seconds per stage and the peak memory of all processes together. For comparison
it also times reading the same files with astropy alone, in this process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from astropy.io import fits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.export import write_cutout
from sim.generate import main as generate
from stages.config import REPOSITORY
from stages.dataset import read_shards

LENS_EVERY = 100
ORDINARY = ("field", "star", "early_type", "edge_on")  # what a survey is made of; impostors are rare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        arguments = ["--survey", "des", "--n", "1024", "--out", str(root / "data"), "--seed", "3", "--workers", "2"]
        assert generate(arguments) == 0
        for n in options.sizes:
            survey = root / f"survey-{n}"
            make_survey(root / "data", survey, n)
            seconds, peak, stages = scan(survey, root / f"run-{n}", options.workers)
            reading = read_alone(survey, min(n, 1000))
            print(
                f"{n} cutouts: {n / seconds:.0f}/s wall, start-up included; peak memory {peak:.0f} MiB; "
                f"astropy alone reads {reading:.0f}/s; seconds: {stages}"
            )
    return 0


def make_survey(data: Path, survey: Path, n: int) -> None:
    """Write n cutouts with their own names, lenses as rare as asked."""
    survey.mkdir()
    shards = list(read_shards(data))
    rows = [(c, kind) for shard in shards for c, kind in zip(shard.cutouts, shard.truth["kind"], strict=True)]
    lenses = [c for c, kind in rows if kind.startswith("lens")]
    others = [c for c, kind in rows if kind in ORDINARY]
    for k in range(n):
        pool = lenses if k % LENS_EVERY == 0 else others
        write_cutout(survey / f"object-{k:06d}.fits", replace(pool[k % len(pool)], id=f"object-{k:06d}"))


def scan(survey: Path, run: Path, workers: int) -> tuple[float, float, dict[str, float]]:
    """Wall seconds, peak MiB over all processes and seconds by stage of one scan."""
    command = [sys.executable, "pipeline.py", "--input", str(survey), "--output", str(run), "--quiet"]
    begun = time.perf_counter()
    process = subprocess.Popen([*command, "--workers", str(workers)], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    peak = [0.0]
    watcher = threading.Thread(target=watch, args=(process, peak))
    watcher.start()
    if process.wait() != 0:
        raise SystemExit("the scan failed: run it by hand to see why")
    seconds = time.perf_counter() - begun
    watcher.join()
    return seconds, peak[0], json.loads((run / "run.json").read_text())["seconds"]


def watch(process: subprocess.Popen[bytes], peak: list[float]) -> None:
    """Keep the largest sum of proportional memory over a process and its children."""
    while process.poll() is None:
        pids, total = [process.pid], 0.0
        for pid in pids:
            try:
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                shares = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            pids += [int(c) for c in children]
            total += sum(float(line.split()[1]) / 1024 for line in shares if line.startswith("Pss:"))
        peak[0] = max(peak[0], total)
        time.sleep(0.2)


def read_alone(survey: Path, n: int) -> float:
    """Files per second that astropy opens and reads in this process."""
    paths = sorted(survey.iterdir())[:n]
    begun = time.perf_counter()
    for path in paths:
        with fits.open(path) as units:
            for unit in units:
                unit.data.sum()
    return n / (time.perf_counter() - begun)


if __name__ == "__main__":
    sys.exit(main())
