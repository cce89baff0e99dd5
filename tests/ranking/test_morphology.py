"""The word for what a candidate looks like."""

import pytest

from stages.ranking.morphology import morphology
from stages.records import Candidate

NAN = float("nan")


@pytest.mark.parametrize(
    ("n_images", "verdict", "arc_score", "coverage_deg", "word"),
    [
        (4.0, "supports", 0.9, 90.0, "quad+arc"),
        (2.0, "possible", 0.1, 90.0, "double"),
        (0.0, "no_images", 0.9, 300.0, "ring"),
        (0.0, "no_images", 0.9, 0.0, "none"),
        (1.0, "single", 0.1, 0.0, "none"),
        (4.0, "inconsistent", 0.1, 0.0, "none"),
        (9.0, "possible", 0.1, 0.0, "none"),
        (NAN, "not_run", 0.9, 40.0, "arc"),
        (3.0, "possible", NAN, NAN, "triple"),
        (NAN, "not_run", NAN, NAN, ""),
    ],
)
def test_words(n_images: float, verdict: str, arc_score: float, coverage_deg: float, word: str) -> None:
    row = Candidate(
        "a", "a", "ok", "", n_images=n_images, theorem_verdict=verdict, arc_score=arc_score,
        arc_coverage_deg=coverage_deg,
    )  # fmt: skip
    assert morphology(row, 0.5) == word
