"""A labelled data set written as a survey is read back with what an image brings."""

from pathlib import Path

import numpy as np

from sim.export import write_cutout
from stages.dataset import read_shards
from stages.ingest import IngestOptions, Survey


def test_pixels_noise_and_psfs_come_back(data_dir: Path, tmp_path: Path) -> None:
    written = {c.id: c for c in next(read_shards(data_dir)).cutouts[:4]}
    for cutout in written.values():
        write_cutout(tmp_path / f"{cutout.id}.fits", cutout)
    read = [c for batch in Survey(tmp_path, IngestOptions()).batches() for c in batch.cutouts]
    assert {c.id for c in read} == set(written)
    for cutout in read:
        true = written[cutout.id]
        np.testing.assert_array_equal(cutout.flux[cutout.valid], true.flux[cutout.valid])
        np.testing.assert_allclose(np.nan_to_num(cutout.variance), np.nan_to_num(true.variance), rtol=1e-5)
        unit = true.psf / true.psf.sum(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(cutout.psf / cutout.psf.sum(axis=(1, 2), keepdims=True), unit, atol=1e-6)
        np.testing.assert_allclose(cutout.psf_fwhm_arcsec, true.psf_fwhm_arcsec, rtol=0.08)
