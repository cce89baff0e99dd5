"""Labelled data of your own survey in three parts that share no place: sim/own_sky.py --survey-dir DIR --out DATA.

From your images alone: whole simulated lenses and impostors on empty places (cutouts about objects have none), lensed
light on galaxies that could be deflectors, your own objects as non-lenses, and plain simulations beside them. `python
-m stages.classifier adapt` trains on what it writes. The same command goes on with a stopped data set.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.draw import SimConfig
from sim.generate import Given, generate, ingredients, load_survey
from sim.real_sky.cutouts import BackgroundError, BackgroundOptions, band_order
from sim.real_sky.places import read_places, split
from stages import config as configuration
from stages.dataset import PARTS
from stages.ingest import IngestOptions, Survey
from stages.survey import SurveyFacts

SHARES = {  # of the time, in the order in which the sets are made
    "sky-test": 0.14, "painted-test": 0.05, "sky-validation": 0.1, "painted-validation": 0.1, "painted-train": 0.1,
    "sky-train": 0.43, "plain-train": 0.18,
}  # fmt: skip
_GUESS_PER_S = 6.0  # cutouts of one process
_PER_DEFLECTOR = 24  # uses of one real galaxy
_MOST_OBJECTS = 4000
_PIXEL_TOLERANCE = 0.03
_LEAST_THETA_E_SEEING = 1.0  # smaller rings look like lone objects; the classifier is not trained on them


@dataclass(frozen=True)
class OwnSky:
    """What is asked for; minutes : about how long all may take; smallest, largest : cutouts of a simulated set."""

    survey_dir: Path
    survey: SurveyFacts
    out: Path
    catalogue: Path | None = None
    exclude: Path | None = None
    minutes: float = 8.0
    seed: int = 1
    workers: int = 2
    smallest: int = 64
    largest: int = 6144


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code (2: the request cannot be carried out)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--survey-dir", type=Path, required=True, help="your cutouts or tiles, as for pipeline.py")
    parser.add_argument("--survey", help="a name in configs/surveys or a survey file; else by bands and pixels")
    parser.add_argument("--catalogue", type=Path, help="objects on your tiles")
    parser.add_argument("--exclude", type=Path, help="known candidates: a file of ids or ra, dec")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--smallest", type=int, default=64, help="cutouts of a simulated set at least")
    o = parser.parse_args(argv)
    folder, out = o.survey_dir.absolute(), o.out.absolute()
    catalogue, exclude = (None if path is None else path.absolute() for path in (o.catalogue, o.exclude))
    try:
        survey = named_survey(o.survey) if o.survey else nearest_survey(folder, catalogue)
        make(OwnSky(folder, survey, out, catalogue, exclude, o.minutes, o.seed, o.workers, o.smallest))
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make(o: OwnSky) -> None:
    """Write every set of every part below `o.out`; those that are complete are kept."""
    o.out.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    real = BackgroundOptions(o.survey_dir, o.survey, o.catalogue, o.exclude)
    parts = split(read_places(real), o.seed)
    parts.to_csv(o.out / "parts.csv", index=False)
    count = parts["part"].replace("", "left out").value_counts()
    print(f"places: {', '.join(f'{name} {n}' for name, n in count.items())}")
    config = configuration.load(SimConfig, configuration.CONFIG_DIR / "training" / "sim.yaml")
    config = replace(config, selection=replace(config.selection, min_theta_e_seeing=_LEAST_THETA_E_SEEING))
    for part in ("test", "validation", "train"):
        _write(o, config, f"objects-{part}", _MOST_OBJECTS, _given(o, "objects", part))
    budget, has_sky = Budget(o, begun), True
    for name in SHARES:
        kind, _, part = name.partition("-")
        if has_sky if name == "painted-validation" else kind == "sky" and not has_sky:
            continue
        most = o.largest
        if kind == "painted":
            most = _PER_DEFLECTOR * _n_deflectors(_given(o, kind, part))
        if most:
            try:
                with budget.of(name, most, config.shard_size) as n:
                    _write(o, config, name, n, _given(o, kind, part))
            except BackgroundError as error:
                if kind != "sky":
                    raise
                has_sky = False
                print(f"{name}: {error} Lenses are painted on your galaxies alone.")


@dataclass
class Budget:
    """Shares out the time among the sets that are still to be made, by how fast the last one went.

    What was decided is kept in `sizes.json`, so that a stopped data set goes on as it was begun.
    """

    o: OwnSky
    begun: float
    per_s: float = 0.0

    @contextmanager
    def of(self, name: str, most: int, shard_size: int) -> Iterator[int]:
        """How many cutouts a set is to have, at most so many; the time until the end of the block is the set's."""
        path = self.o.out / "sizes.json"
        sizes: dict[str, int] = json.loads(path.read_text()) if path.is_file() else {}
        if name not in sizes:
            names = list(SHARES)
            share = SHARES[name] / sum(SHARES[later] for later in names[names.index(name) :])
            left = 60 * self.o.minutes - (time.perf_counter() - self.begun)
            n = share * left * (self.per_s or _GUESS_PER_S * self.o.workers)
            sizes[name] = 2 * int(min(max(n, self.o.smallest), most) / 2)
            path.write_text(json.dumps(sizes, indent=1) + "\n")
        made = shard_size * len(list((self.o.out / name).glob("shard-*.npz")))
        start = time.perf_counter()
        yield sizes[name]
        if sizes[name] > made and not name.startswith("painted"):  # which goes two to three times as fast
            self.per_s = (sizes[name] - made) / (time.perf_counter() - start)


def _given(o: OwnSky, kind: str, part: str) -> Given:
    own = BackgroundOptions(o.survey_dir, o.survey, o.catalogue, o.exclude, parts=o.out / "parts.csv", part=part)
    return Given(
        backgrounds=own if kind == "painted" else None, sky=own if kind == "sky" else None,
        unpainted=own if kind == "objects" else None, part=part,
    )  # fmt: skip


def _write(o: OwnSky, config: SimConfig, name: str, n: int, given: Given) -> None:
    workers = o.workers if n > 2 * config.shard_size and given.unpainted is None else 1
    generate(config, o.survey, n, o.out / name, o.seed + PARTS.index(given.part), workers, given, resume=True)


def _n_deflectors(given: Given) -> int:
    """How many of a part's galaxies could be deflectors."""
    try:
        found = ingredients(given).backgrounds
    except BackgroundError as error:
        print(f"no galaxies to paint on: {error}")
        return 0
    return 0 if found is None else len(found)


def named_survey(name: str) -> SurveyFacts:
    """As `load_survey`; says which names there are."""
    if Path(name).suffix not in (".yaml", ".yml") and name not in _presets():
        raise ValueError(
            f"survey {name!r} is not known. Give one of {', '.join(_presets())}, or a survey file, "
            "such as sim/match.py measures from your images."
        )
    return load_survey(name)


def nearest_survey(folder: Path, catalogue: Path | None) -> SurveyFacts:
    """The survey of `configs/surveys` with the pixels and most of the bands of the first images."""
    first = next(Survey(folder, IngestOptions(catalogue, limit=64, workers=0)).batches())
    seen = {(c.bands, c.pixel_scale_arcsec) for c in first.cutouts}
    found = []
    for name in _presets():
        survey = load_survey(name)
        off = [abs(scale / survey.pixel_scale_arcsec - 1) for bands, scale in seen if band_order(bands, survey.bands)]
        if off and max(off) < _PIXEL_TOLERANCE and survey.stretch is None:
            found.append((-len(survey.bands), max(off), name))
    if not found:
        what = "; ".join(f"bands {', '.join(b) or '-'} at {s:.3g} arcsec" for b, s in sorted(seen)) or "no image"
        raise ValueError(
            f"{folder}: no survey in configs/surveys is like it ({what}). Give --survey: a name, or a file that "
            "sim/match.py measures from your images."
        )
    name = min(found)[2]
    print(f"survey: taken for {name} by bands and pixels; --survey says otherwise")
    return load_survey(name)


def _presets() -> list[str]:
    return sorted(path.stem for path in (configuration.CONFIG_DIR / "surveys").glob("*.yaml"))


if __name__ == "__main__":
    sys.exit(main())
