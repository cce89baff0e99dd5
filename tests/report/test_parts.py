import numpy as np

from stages.records import Candidate
from stages.report.parts import could_be_shown


def test_all_that_the_page_shows_is_drawn_and_little_else() -> None:
    rng = np.random.default_rng(0)
    scores = [*rng.random(997).round(2), np.nan, np.nan, np.nan]  # many alike; some without a score
    rows = [Candidate(f"{k:04d}", f"{k:04d}.fits", "ok", "", score=float(s)) for k, s in enumerate(scores)]
    drawn: set[str] = set()
    for process in (rows[::2], rows[1::2]):
        highest: list[float] = []
        for start in range(0, len(process), 50):
            drawn |= could_be_shown(process[start : start + 50], highest, 20)
    best = sorted((r for r in rows if np.isfinite(r.score)), key=lambda r: (-r.score, r.id))[:20]
    assert {r.id for r in best} < drawn
    assert len(drawn) < 250
