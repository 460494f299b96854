"""Weather is one of four kinds, as often as their shares say, made in the ways that are asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from restorekit.data import create
from restorekit.data.degradation import quantized, seeded
from restorekit.data.haze import Haze
from restorekit.data.rain import Rain
from restorekit.data.raindrops import Raindrops
from restorekit.data.snow import Snow
from restorekit.data.weather import Generators, Weather
from restorekit.errors import RestorekitError

KINDS = {"rain": Rain, "raindrops": Raindrops, "snow": Snow, "haze": Haze}


def picture() -> Tensor:
    return quantized(torch.rand((3, 40, 40), generator=seeded(1)))


def only(kind: str, generators: Generators = "all") -> Weather:
    shares: dict[str, Any] = {name: float(name == kind) for name in KINDS}
    return Weather(**shares, generators=generators)


def test_each_is_drawn_by_its_share() -> None:
    """The same draws with a single kind tell which one it was."""
    mixed = Weather(rain=0.2, raindrops=0.1, snow=0.1, haze=0.6, generators="second")
    alone = {kind: only(kind, "second") for kind in KINDS}
    seen = dict.fromkeys(KINDS, 0)
    for seed in range(100):
        result = mixed.degrade(picture(), seeded(seed))
        kinds = [kind for kind, each in alone.items() if torch.equal(each.degrade(picture(), seeded(seed)), result)]
        assert len(kinds) == 1
        seen[kinds[0]] += 1
    assert all(count > 0 for count in seen.values())
    assert seen["haze"] == pytest.approx(60, abs=16) and seen["rain"] == pytest.approx(20, abs=13)


@pytest.mark.parametrize("kind", KINDS)
class TestGenerators:
    def test_first_and_second_share_no_method(self, kind: str) -> None:
        for seed in range(3):
            results = [only(kind, way).degrade(picture(), seeded(seed)) for way in ("first", "second", "all")]
            assert not torch.equal(results[0], results[1])
            assert any(torch.equal(results[2], each) for each in results[:2])

    def test_all_draws_either(self, kind: str) -> None:
        drawn = {
            torch.equal(*(only(kind, way).degrade(picture(), seeded(seed)) for way in ("first", "all")))
            for seed in range(10)
        }
        assert drawn == {True, False}

    def test_the_margin_is_the_kinds(self, kind: str) -> None:
        assert only(kind).margin == KINDS[kind]().margin


def test_the_methods_are_those_that_are_named() -> None:
    named = {"rain": "drops", "raindrops": "refraction", "snow": "flakes", "haze": "koschmieder"}
    for kind, method in named.items():
        assert KINDS[kind]().methods[0] == method and len(KINDS[kind]().methods) == 2


def test_the_margin_is_the_largest() -> None:
    assert Weather().margin == max(kind().margin for kind in KINDS.values())


def test_there_is_some_weather() -> None:
    with pytest.raises(RestorekitError, match=r"weather: .*all 0"):
        create("weather", rain=0, raindrops=0, snow=0, haze=0)
