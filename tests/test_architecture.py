"""Who may import whom, held by reading the imports."""

import ast
from pathlib import Path

import pytest

from stages.config import REPOSITORY

STAGES = ("ingest", "classifier", "counter", "arcs", "ranking", "report")
FILES = sorted((REPOSITORY / "stages").rglob("*.py")) + sorted((REPOSITORY / "sim").rglob("*.py"))


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_imports_keep_the_directions(path: Path) -> None:
    names = imported(path)
    parts = path.relative_to(REPOSITORY).parts
    tops = {n.split(".")[0] for n in names}
    if parts[0] == "stages":
        assert "sim" not in tops, "no stage imports the simulator: data on disk is what they share"
        own = parts[1] if len(parts) > 2 else ""
        others = {n.split(".")[1] for n in names if n.startswith("stages.") and n.split(".")[1] in STAGES} - {own}
        assert not others, "stages never import each other"
    if path.name == "records.py":
        assert not tops & {"torch", "pandas", "astropy"}
    if path != REPOSITORY / "stages" / "counter" / "detector.py":
        assert "ultralytics" not in tops
    if parts[0] == "sim":
        assert not {n for n in names if n.startswith("stages.") and n.split(".")[1] in STAGES}
