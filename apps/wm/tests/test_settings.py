from dataclasses import dataclass, field
from typing import Literal

import pytest
from wm.settings import merge, parse_override, structure, unstructure


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int = 4
    rate: float = 0.5
    codes: int | tuple[int, ...] = 8
    mode: Literal["fast", "slow"] = "fast"

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1; got {self.width}")


@dataclass(frozen=True, kw_only=True)
class Outer:
    names: tuple[str, ...]
    betas: tuple[float, float] = (0.9, 0.95)
    inner: Inner = field(default_factory=Inner)


def test_structure_fills_nested_dataclasses_and_keeps_tuples():
    built = structure(Outer, {"names": ["a"], "betas": [0, 1], "inner": {"codes": [1, 2], "rate": 1}})
    assert built == Outer(names=("a",), betas=(0.0, 1.0), inner=Inner(codes=(1, 2), rate=1.0))
    assert structure(Outer, unstructure(built)) == built


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"names": [], "inner": {"widht": 3}}, "unknown setting 'inner.widht'; did you mean 'width'?"),
        ({"names": [], "inner": {"width": "3"}}, "inner.width must be an integer; got '3'"),
        ({"names": [], "inner": {"width": True}}, "inner.width must be an integer; got True"),
        ({"names": [], "inner": {"rate": float("nan")}}, "inner.rate must be a finite number; got nan"),
        ({"names": [], "inner": {"rate": float("inf")}}, "inner.rate must be a finite number; got inf"),
        ({"names": [], "inner": {"rate": True}}, "inner.rate must be a number; got True"),
        ({"names": [], "inner": {"width": 0}}, r"\[inner\] width must be at least 1; got 0"),
        (
            {"names": [], "inner": {"mode": "medium"}},
            "inner.mode must be one of 'fast', 'slow'; got 'medium'",
        ),
        (
            {"names": [], "inner": {"codes": "x"}},
            "inner.codes must be an integer or a list of an integer; got 'x'",
        ),
        ({"names": [1]}, r"names\[0\] must be a string; got 1"),
        ({"names": [], "betas": [0.1]}, "betas must be a list of 2 values"),
        ({"names": [], "inner": 3}, "inner is a section with keys of its own; got 3"),
        ({}, "missing setting names"),
    ],
)
def test_errors_name_the_key_and_what_is_allowed(data, message):
    with pytest.raises(ValueError, match=message):
        structure(Outer, data)


def test_overrides_are_toml_values_laid_over_the_base():
    assert parse_override("a.b=4") == {"a": {"b": 4}}
    assert parse_override("a=[1, 2]") == {"a": [1, 2]}
    assert parse_override("a.b = rotation") == {"a": {"b": "rotation"}}
    base = {"a": {"b": 1, "c": 2}}
    assert merge(base, parse_override("a.b=4")) == {"a": {"b": 4, "c": 2}}
    assert base == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize("text", ["a.b", "=3", "a..b=1", "a.b=1\nc.d=2"])
def test_an_override_without_key_or_value_is_refused(text):
    with pytest.raises(ValueError, match=r"--set takes section\.key=value"):
        parse_override(text)
    with pytest.raises(ValueError, match=r"^--engine-set takes key=value; got "):
        parse_override(text, "--engine-set takes key=value")
