"""Who may import whom, held by reading the imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from stages.config import REPOSITORY

STAGES = ("ingest", "classifier", "counter", "arcs", "ranking", "report")
FILES = sorted((REPOSITORY / "stages").rglob("*.py")) + sorted((REPOSITORY / "sim").rglob("*.py"))


def imported(path: Path, text: str) -> set[str]:
    """Every module and name that a file imports, wherever in it, relative imports made absolute."""
    package = path.relative_to(REPOSITORY).parts[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def faults(path: Path, text: str) -> list[str]:
    """What a file imports that it must not."""
    names, parts = imported(path, text), path.relative_to(REPOSITORY).parts
    tops = {n.split(".")[0] for n in names}
    stages = {n.split(".")[1] for n in names if n.startswith("stages.")} & set(STAGES)
    own = {parts[1]} if parts[0] == "stages" and len(parts) > 2 else set()
    own |= {"ingest"} if parts[0] == "sim" else set()  # real sky is read as the pipeline reads it
    found = [f"stage {name}: stages never import each other, nor what they share them" for name in stages - own]
    found += [f"{name}: nothing below imports it" for name in tops & {"pipeline", "tests", "benchmarks"}]
    if parts[0] == "stages" and "sim" in tops:
        found.append("sim: data on disk is what stages share with it")
    if "ultralytics" in tops and parts != ("stages", "counter", "detector.py"):
        found.append("ultralytics: only the detector knows it")
    if "lenstronomy" in tops and parts != ("sim", "scene.py") and parts[:2] != ("stages", "counter"):
        found.append("lenstronomy: only the simulated scene and the counter know it")
    if parts == ("stages", "records.py"):
        found += [f"{name}: records know numpy alone" for name in tops - {"__future__", "dataclasses", "numpy"}]
    last = {n: n.split(".")[-1] for n in names if n.split(".")[0] in ("stages", "sim")}
    return found + [f"{n}: private" for n, word in last.items() if word.startswith("_") and not word.endswith("_")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_imports_keep_the_directions(path: Path) -> None:
    assert not faults(path, path.read_text())


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("stages/arcs/model.py", "from stages.counter import detector"),
        ("stages/arcs/model.py", "from stages import counter"),
        ("stages/arcs/model.py", "from ..counter.detector import Detector"),
        ("stages/arcs/model.py", "def f():\n    import stages.classifier.model as m"),
        ("stages/scaling.py", "from stages.arcs.model import FRAME"),
        ("stages/scaling.py", "from .arcs import model"),
        ("stages/dataset.py", "import sim.draw"),
        ("stages/report/page.py", "from pipeline import main"),
        ("stages/counter/predict.py", "from ultralytics import YOLO"),
        ("stages/arcs/model.py", "import lenstronomy.LensModel"),
        ("stages/records.py", "import torch"),
        ("sim/draw.py", "from stages.classifier.model import FRAME"),
        ("stages/arcs/predict.py", "from stages.training import _average"),
    ],
)
def test_forbidden_imports_are_found(file: str, text: str) -> None:
    assert len(faults(REPOSITORY / file, text)) == 1


def test_reading_a_survey_does_without_torch() -> None:
    """Reading processes start in a fraction of the time that torch takes to import."""
    code = "import sys, stages.ingest.reading; sys.exit('torch' in sys.modules or 'ultralytics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
