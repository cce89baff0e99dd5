"""Whatever bytes a survey holds, every file gets one answer and nothing crashes."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.ingest import IngestOptions
from stages.ingest.listing import Entry
from stages.ingest.reading import read_entry
from stages.records import Problem


def _fits_bytes(tmp: Path) -> bytes:
    path = tmp / "seed.fits"
    if not path.exists():
        data = np.random.default_rng(1).normal(size=(2, 20, 20)).astype(np.float32)
        header = fits.Header(
            {"PIXSCALE": 0.2, "BANDS": "gr", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0}
        )
        fits.HDUList([fits.PrimaryHDU(data, header), fits.ImageHDU(np.ones_like(data), name="ERR")]).writeto(path)
    return path.read_bytes()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=25),
    keep=st.floats(0.01, 1.0),
    in_header=st.booleans(),
)
def test_mutated_fits_gets_one_answer(
    tmp_path: Path, edits: list[tuple[float, int]], keep: float, in_header: bool
) -> None:
    data = bytearray(_fits_bytes(tmp_path))
    span = 2880 if in_header else len(data)
    for place, value in edits:
        data[int(place * span)] = value
    path = tmp_path / "mutated.fits"
    path.write_bytes(bytes(data[: max(1, int(keep * len(data)))]))
    answers = read_entry(Entry("fits", ("mutated",), "mutated.fits", ((("", ""), (path,)),)), IngestOptions())
    assert len(answers) == 1
    if isinstance(answers[0], Problem):
        assert answers[0].reason
        assert answers[0].message
    else:
        assert answers[0].valid.any()
        assert np.isfinite(answers[0].flux[answers[0].valid]).all()
        assert 1e-3 < answers[0].pixel_scale_arcsec < 10
