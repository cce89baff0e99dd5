"""Configuration: every fault at once, nothing unknown let through."""

import json
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

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise ValueError(f"depth {self.depth}: expected 0 or more")


@dataclass(frozen=True)
class Outer:
    size: int
    on: bool = False
    inner: Inner = field(default_factory=Inner)
    table: dict[str, float] = field(default_factory=dict)
    pair: tuple[float, float] = (0.0, 1.0)
    spare: Inner | None = None


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


def test_a_value_out_of_range_does_not_hide_behind_other_faults() -> None:
    with pytest.raises(config.ConfigError) as error:
        config.from_mapping(Outer, {"sise": 4, "pair": [1.0], "inner": {"depth": -2.0}, "spare": {"depth": -3.0}})
    for part in ("unknown key sise", "pair: expected 2 values", "inner: depth -2.0", "spare: depth -3.0"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"), [("size", True), ("size", 2.0), ("size", "2"), ("size", None), ("table", [1]), ("pair", "ab")]
)
def test_wrong_types_are_faults(key: str, value: object) -> None:
    with pytest.raises(config.ConfigError, match=f"{key}: expected"):
        config.from_mapping(Outer, {"size": 1, key: value})


def test_an_optional_part_may_be_left_out_or_none() -> None:
    assert config.from_mapping(Outer, {"size": 1}) == config.from_mapping(Outer, {"size": 1, "spare": None})
    assert config.from_mapping(Outer, {"size": 1, "spare": {"depth": 2}}).spare == Inner(2.0)


@pytest.mark.parametrize("text", [b"size: [", b"- 1\n- 2\n", b"\x89PNG\xff\x00"])
def test_broken_files_name_the_file(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(text)
    with pytest.raises(config.ConfigError, match=r"c\.yaml"):
        config.load(Outer, path)


def test_round_trip() -> None:
    value = Outer(3, True, Inner(2.0, ("a",)), {"x": 1.0}, (2.0, 3.0), Inner(4.0))
    plain = config.to_mapping(value)
    assert config.from_mapping(Outer, plain) == value
    assert config.from_mapping(Outer, json.loads(json.dumps(plain))) == value


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("pipeline", PipelineConfig),
        ("classifier", ClassifierConfig),
        ("counter", CounterConfig),
        ("arcs", ArcsConfig),
        ("sim", SimConfig),
        ("training/sim", SimConfig),
        ("training/sim_lenses", SimConfig),
        ("training/sim_faint_arcs", SimConfig),
        ("training/sim_groups", SimConfig),
        ("training/sim_near", SimConfig),
    ],
)
def test_shipped_configurations_load(name: str, cls: type) -> None:
    config.load(cls, config.CONFIG_DIR / f"{name}.yaml")


@pytest.mark.parametrize("path", sorted((config.CONFIG_DIR / "surveys").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_surveys_name_their_sources(path: Path) -> None:
    facts = config.load(SurveyFacts, path)
    assert facts.name == path.stem
    assert {"pixel_scale_arcsec", "psf_fwhm_arcsec", "zero_point"} <= set(facts.sources)


def test_an_absent_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="cannot be read"):
        config.load(Outer, tmp_path / "none.yaml")
