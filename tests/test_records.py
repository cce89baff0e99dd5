"""Records refuse arrays that do not fit."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from stages.records import Candidate, Certificate, ClassifierResult, ImageCount, Problem, RecordError
from tests.test_scaling import cutout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"flux": np.zeros((61, 67), np.float32)}, "expected \\(bands, rows, columns\\)"),
        ({"variance": np.zeros((3, 2, 2), np.float32)}, "variance"),
        ({"valid": np.ones((3, 61, 67))}, "expected bool"),
        ({"bands": ("g",)}, "planes but bands"),
        ({"psf_fwhm_arcsec": np.ones(2)}, "one per band"),
    ],
)
def test_a_cutout_that_does_not_fit(change: dict[str, object], says: str) -> None:
    with pytest.raises(RecordError, match=says):
        replace(cutout(), **change)  # type: ignore[arg-type]


def test_unknown_words_are_refused() -> None:
    with pytest.raises(RecordError):
        Certificate("maybe")
    with pytest.raises(RecordError):
        Problem("a", "a", "lost", "x", "y")
    with pytest.raises(RecordError):
        Candidate("a", "a", "fine", "")


def test_missing_images_need_names() -> None:
    with pytest.raises(RecordError):
        Certificate("possible", missing_xy_pix=np.zeros((2, 2)), missing_names=("below_limit",))


def test_image_counts_need_one_row_each() -> None:
    with pytest.raises(RecordError):
        ImageCount("a", np.zeros((2, 2)), np.zeros(2), np.zeros(3), np.zeros(2), 1.0, Certificate())


def test_one_value_per_object_of_a_batch() -> None:
    with pytest.raises(RecordError, match="p_lens_err"):
        ClassifierResult(("a", "b"), np.zeros(2), np.zeros(1), np.zeros(2, bool))
    assert len(ClassifierResult((), np.empty(0), np.empty(0), np.empty(0, bool)).ids) == 0


def test_what_did_not_run_is_nan_and_says_so() -> None:
    row = Candidate("a", "a", "ok", "")
    assert np.isnan([row.score, row.p_lens, row.n_images, row.arc_score, row.theta_e_arcsec]).all()
    assert row.theorem_verdict == Certificate().verdict == "not_run"


def test_records_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        cutout().id = "b"  # type: ignore[misc]
