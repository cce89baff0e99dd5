"""Configuration: every fault at once, nothing unknown let through."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline import PipelineConfig
from sim.draw import SimConfig
from stages import config
from stages.arcs.model import ArcsConfig
from stages.classifier.model import ClassifierConfig
from stages.counter.detector import CounterConfig
from stages.survey import SurveyFacts


@dataclass(frozen=True)
class Inner:
    depth: float = 1.0
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    size: int
    on: bool = False
    inner: Inner = field(default_factory=Inner)
    table: dict[str, float] = field(default_factory=dict)


def test_values_and_defaults(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("size: 3\ninner: {depth: 2, names: [a, b]}\ntable: {x: 1}\n")
    assert config.load(Outer, path) == Outer(3, False, Inner(2.0, ("a", "b")), {"x": 1.0})


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(config.ConfigError) as error:
        config.from_mapping(Outer, {"on": 1, "sise": 4, "inner": {"depth": "deep", "width": 2}, "table": {"x": "y"}})
    for part in (
        "unknown key sise",
        "missing key size",
        "on: expected bool",
        "inner.depth",
        "unknown key inner.width",
        "table.x",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("text", ["size: [", "- 1\n- 2\n"])
def test_broken_files_name_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(config.ConfigError, match=r"c\.yaml"):
        config.load(Outer, path)


def test_round_trip() -> None:
    value = Outer(3, True, Inner(2.0, ("a",)), {"x": 1.0})
    assert config.from_mapping(Outer, {**config.to_mapping(value), "inner": {"depth": 2.0, "names": ["a"]}}) == value


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("pipeline", PipelineConfig),
        ("classifier", ClassifierConfig),
        ("counter", CounterConfig),
        ("arcs", ArcsConfig),
        ("sim", SimConfig),
    ],
)
def test_shipped_configurations_load(name: str, cls: type) -> None:
    config.load(cls, config.CONFIG_DIR / f"{name}.yaml")


@pytest.mark.parametrize("path", sorted((config.CONFIG_DIR / "surveys").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_surveys_name_their_sources(path: Path) -> None:
    facts = config.load(SurveyFacts, path)
    assert facts.name == path.stem
    assert {"pixel_scale_arcsec", "psf_fwhm_arcsec", "zero_point"} <= set(facts.sources)
