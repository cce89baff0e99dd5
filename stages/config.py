"""Strict YAML to frozen dataclass: one error lists every fault and every unknown key."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG_DIR = REPOSITORY / "configs"
WEIGHTS_DIR = REPOSITORY / "weights"


class ConfigError(ValueError):
    """A configuration that cannot be used; the message lists every fault found."""


def load(cls: type[T], path: Path | str) -> T:
    """Read a YAML file into the frozen dataclass `cls`; keys left out keep the class's defaults.

    Raises ConfigError naming every unknown key, absent key and value of the wrong type.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Check the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file. Check the path.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({error}). Correct the line named above.") from error
    return from_mapping(cls, {} if data is None else data, str(path))


def from_mapping(cls: type[T], data: Any, where: str = "configuration") -> T:
    """Build the frozen dataclass `cls` from plain YAML data; raises ConfigError with all faults."""
    faults: list[str] = []
    value = _build(cls, data, "", faults)
    if faults:
        raise ConfigError(f"{where}: " + "; ".join(faults) + ". Correct these keys.")
    return typing.cast(T, value)


def to_mapping(config: Any) -> dict[str, Any]:
    """The plain data of a configuration, ready for YAML or JSON."""
    return dataclasses.asdict(config)


def _build(kind: Any, data: Any, at: str, faults: list[str]) -> Any:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, data, at, faults)
    if origin in (typing.Union, types.UnionType):
        choices = typing.get_args(kind)
        if data is None and type(None) in choices:
            return None
        return _build(next(c for c in choices if c is not type(None)), data, at, faults)
    if origin is tuple:
        if not isinstance(data, list | tuple):
            faults.append(f"{at}: expected a list, got {data!r}")
            return ()
        kinds = typing.get_args(kind)
        if kinds[-1] is not Ellipsis and len(data) != len(kinds):
            faults.append(f"{at}: expected {len(kinds)} values, got {data!r}")
        return tuple(_build(kinds[0], v, f"{at}[{k}]", faults) for k, v in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict):
            faults.append(f"{at}: expected a mapping, got {data!r}")
            return {}
        return {str(k): _build(typing.get_args(kind)[1], v, f"{at}.{k}", faults) for k, v in data.items()}
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if kind is not Any and (not isinstance(data, kind) or (kind is int and isinstance(data, bool))):
        faults.append(f"{at}: expected {kind.__name__}, got {data!r}")
    return data


def _build_dataclass(kind: Any, data: Any, at: str, faults: list[str]) -> Any:
    if not isinstance(data, dict):
        faults.append(f"{at or 'top level'}: expected a mapping, got {data!r}")
        return None
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    prefix = f"{at}." if at else ""
    before = len(faults)
    faults += [f"unknown key {prefix}{key}" for key in data if key not in fields]
    values: dict[str, Any] = {}
    for name, spec in fields.items():
        if name in data:
            values[name] = _build(hints[name], data[name], prefix + name, faults)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            faults.append(f"missing key {prefix}{name}")
    if len(faults) > before:
        return None
    try:
        return kind(**values)
    except ValueError as error:
        faults.append(f"{at or 'top level'}: {error}")
        return None
