"""The folder of a run: opened new or to be completed, and described by its `run.json`."""

from __future__ import annotations

import json
import platform
import secrets
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages import __version__
from stages.report.parts import Parts


class RunError(ValueError):
    """A run that cannot start; the message says what to do."""


def open_run(run_dir: Path, request: dict[str, Any], resume: bool) -> Parts:
    """Open the run's folder for writing, new or to be completed."""
    path = run_dir / "run.json"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe = run_dir / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RunError(
            f"{run_dir}: cannot be written ({error.strerror}). Name another folder with --output."
        ) from error
    parts = Parts(run_dir)
    if path.is_file():
        old = json.loads(path.read_text())
        if not resume:
            raise RunError(f"{run_dir}: holds a run already. Add --resume to complete it, or name another --output.")
        if old["request"] != json.loads(json.dumps(request)):
            raise RunError(f"{run_dir}: was begun with other inputs, settings or weights. Name another --output.")
    else:
        run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        write_json(path, {"status": "running", "run_id": run_id, "request": request})
    return parts


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write JSON whole or not at all."""
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n")
    partial.replace(path)


def versions() -> dict[str, str]:
    """Versions of what a run's numbers depend on."""
    return {"oddlens": __version__, "python": platform.python_version()} | {
        name: version(name) for name in ("torch", "ultralytics", "lenstronomy", "scikit-learn")
    }


def read_summary(run_dir: Path) -> dict[str, Any]:
    """What `run.json` holds."""
    summary: dict[str, Any] = json.loads((run_dir / "run.json").read_text())
    return summary


def describe(summary: dict[str, Any], run_dir: Path) -> str:
    """The run on one screen."""
    n = summary["counts"]
    lines = [
        f"{summary['status']}: {n['read']} objects read: {n['ok']} ok, {n['degraded']} degraded, "
        f"{n['skipped']} skipped; {n['flagged']} flagged by stage 1, {n['selected']} selected",
        f"  candidates  {run_dir / 'candidates.csv'} (and .parquet)",
        f"  problems    {run_dir / 'problems.csv'}",
        f"  report      {run_dir / 'report' / 'index.html'}",
        "  seconds     " + ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items()),
    ]
    if summary["status"] == "partial":
        lines.append("Stopped early: these results are valid. The same command with --resume completes them.")
    return "\n".join(lines)
