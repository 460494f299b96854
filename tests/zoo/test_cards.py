"""The model cards that come with restorekit: complete, in order, honest, and each of a network that exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pydantic
import pytest
import torch
import yaml

from restorekit import bundled
from restorekit.architectures import BUILT_IN, create
from restorekit.errors import ModelError
from restorekit.zoo.card import ModelCard, Paper, Score, Weights, read_card

FILES = bundled.cards(bundled.folder("models"))
CHANNELS = {"rgb": 3, "ycbcr": 3, "y": 1, "y-full": 1}
PARTS = {"weights": Weights, "paper": Paper, "published": Score, "measured": Score}

PARAMETERS = {
    "hat.s_x2": 9_473_471,
    "hat.x3": 20_809_435,
    "hat.l_imagenet_x4": 40_846_575,
    "hat.real_x4": 20_772_507,
    "drct.x2": 13_991_867,
    "drct.l_imagenet_x4": 27_580_719,
    "craft.x2": 737_756,
    "craft.x4": 753_344,
    "rgt.s_x2": 10_051_055,
    "rgt.x4": 13_365_543,
    "dlgsanet.tiny_x2": 565_710,
    "dlgsanet.light_x3": 751_683,
    "dlgsanet.large_x4": 4_762_920,
    "cfsr.paper_x2": 291_324,
    "cfsr.paper_x4": 306_912,
    "espcn.lornatang_x2": 21_284,
    "espcn.yjn870_x3": 22_729,
    "espcn.leftthomas_x8": 38_624,
    "wavemixsr.x2": 1_704_385,
    "wavemixsr_v2.x4": 751_538,
    "drsformer.rain200h": 33_655_424,
    "drsformer.spa": 32_610_304,
    "histoformer.all_weather": 16_615_100,
    "rlfn.x2": 526_856,
    "rlfn.x4": 543_740,
    "retinexformer.lol_v1": 1_605_701,
    "rrformer.uhd4k": 20_355_130,
}
"""Parameters of the authors' networks, counted in their code, of those of ESPCN and RLFN in released weights."""

every_card = pytest.mark.parametrize("id", FILES)
every_network = pytest.mark.parametrize("id", [id for id in FILES if not id.startswith("illuminant.")])
"""Estimators of the light are no networks that make pictures."""


def content(id: str) -> dict[str, Any]:
    found = yaml.safe_load(FILES[id].read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def assert_kept_well(written: dict[str, Any], part: type[pydantic.BaseModel]) -> None:
    """Keys stand in the order of the schema, and none says what it would be without saying it."""
    fields = part.model_fields
    assert list(written) == [name for name in fields if name in written]
    for name, value in written.items():
        default = fields[name].get_default(call_default_factory=True)
        assert value != (list(default) if isinstance(default, tuple) else default), f"{name}: {value} is the default"


def test_every_network_has_a_card() -> None:
    assert {id.partition(".")[0] for id in FILES} - {"illuminant"} == set(BUILT_IN)


@every_card
def test_reads(id: str) -> None:
    card = read_card(FILES[id])
    assert card.id == id
    assert id.startswith(f"{card.architecture}.") or id == f"illuminant.{card.architecture}"
    if card.scale > 1:
        assert id.endswith(f"x{card.scale}") and card.summary.endswith(f", x{card.scale}")


@every_card
def test_file_is_kept_well(id: str) -> None:
    text = FILES[id].read_text(encoding="utf-8")
    assert text.isascii() and text.endswith("\n") and "\t" not in text
    assert max(len(line) for line in text.splitlines()) <= 120
    written = content(id)
    assert "id" not in written, "the file's name says it"
    assert_kept_well(written, ModelCard)
    for name, part in PARTS.items():
        found = written.get(name, [])
        for one in found if isinstance(found, list) else [found]:
            assert_kept_well(one, part)


@every_network
def test_describes_a_network(id: str) -> None:
    card = read_card(FILES[id])
    with torch.device("meta"):
        network = create(card.architecture, **card.config)
    assert network.scale == card.scale
    assert network.in_channels == CHANNELS[card.pixels]
    if network.tiling.support == "approximate":
        if card.recipe is None:
            assert card.tile == network.tiling.fixed, "the result depends on it"
        else:  # of our own models the tile is measured
            assert card.tile is not None and card.tile % network.tiling.step == 0
    elif card.tile is not None:
        assert card.tile % network.tiling.grid == 0 and card.tile >= network.tiling.minimum
    if id in PARAMETERS:
        assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[id]


def test_counted_models_are_there() -> None:
    assert set(PARAMETERS) <= set(FILES)


@every_card
def test_weights_can_be_had_as_the_card_says(id: str) -> None:
    card = read_card(FILES[id])
    weights = card.weights
    if weights is None:
        assert any("weights" in note for note in card.notes), "a card without weights says why"
        return
    assert weights.url is None or weights.page is None
    if weights.url is not None:
        assert weights.sha256 and weights.size
        assert re.search(r"/[0-9a-f]{40}/", weights.url), "an address of one version, not of the newest"
        assert weights.url.startswith("https://") and weights.url.endswith(f"/{weights.file}")
    elif weights.page is not None:
        assert weights.page.startswith("https://")
    else:
        assert weights.file == f"{id}.safetensors" and FILES[id].with_name(weights.file).is_file()


@every_card
def test_numbers_say_where_they_come_from(id: str) -> None:
    card = read_card(FILES[id])
    assert all(score.source for score in card.published)
    assert all(score.command for score in card.measured)
    for scores in (card.published, card.measured):
        assert len({(score.set, score.setting) for score in scores}) == len(scores)
        assert all(20 < score.psnr < 50 for score in scores if score.psnr is not None)
        assert all(0.6 < score.ssim < 1 for score in scores if score.ssim is not None)


def test_what_has_no_weights_has_no_numbers_of_ours() -> None:
    for path in FILES.values():
        card = read_card(path)
        assert card.weights is not None or not card.measured


def test_a_card_is_refused_for_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "cfsr.odd.yaml"
    path.write_text(FILES["cfsr.paper_x2"].read_text(encoding="utf-8") + "colour: red\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"cfsr\.odd\.yaml: colour: .*; mend the card"):
        read_card(path)
