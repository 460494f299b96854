"""Recipes are read strictly, written back the same, and made for models that are to be trained further."""

from __future__ import annotations

from pathlib import Path

import pytest

from restorekit.bundled import folder
from restorekit.data import create
from restorekit.data.steps import Step
from restorekit.errors import RestorekitError
from restorekit.train.recipe import SUFFIX, Recipe, fine_tuning, read_recipe, recipe_of
from restorekit.zoo import cards

RECIPE = """
summary: A small one
architecture: rlfn
config: {feature_channels: 8, upscale: 2, blocks: 1}
data: own pictures
degradation:
  - bicubic: {scale: 2}
  - gaussian_noise: {sigma: [0, 5]}
patch: 16
batch: 2
steps: 4
learning_rate: 1.0e-3
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(text)
    return path


def test_yaml_there_and_back(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, RECIPE))
    assert recipe.degradation == (Step(name="bicubic", parameters={"scale": 2}),
                                  Step(name="gaussian_noise", parameters={"sigma": [0, 5]}))  # fmt: skip
    assert read_recipe(written(tmp_path, recipe.written())) == recipe


def test_degradation_without_parameters_is_a_name(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, RECIPE.replace("gaussian_noise: {sigma: [0, 5]}", "gaussian_noise")))
    assert recipe.degradation[1] == Step(name="gaussian_noise")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps: 4", "steps: 0", "steps: "),
        ("patch: 16", "patches: 16", "patch"),
        ("learning_rate: 1.0e-3", "learning_rate: -1", "learning_rate"),
        ("steps: 4", "steps: 4\nlearning_rats: 3", "learning_rats"),
        ("data: own pictures", "data: [", "cannot be read"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = written(tmp_path, RECIPE.replace(old, new))
    with pytest.raises(RestorekitError, match=said) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RestorekitError, match="no recipe"):
        read_recipe(written(tmp_path, "just a text"))


def test_shipped_recipes_fit_their_cards() -> None:
    shipped = {path.name: read_recipe(path) for path in folder("models").glob(f"*{SUFFIX}")}
    named = {card.recipe: card for id in cards.files() if (card := cards.card(id)).recipe}
    for stage in ("first", "second"):  # from which that of the card goes on
        named |= {f"{card.id}.{stage}{SUFFIX}": card for card in list(named.values())}
    assert set(shipped) <= set(named), "a recipe without a card"
    for name, recipe in shipped.items():
        card = named[name]
        assert name.removesuffix(SUFFIX).removesuffix(".first").removesuffix(".second") == card.id
        assert (recipe.architecture, dict(recipe.config)) == (card.architecture, card.config)
        steps = [create(step.name, **step.parameters) for step in recipe.degradation]
        scale = 1
        for step in steps:
            scale *= step.scale
        assert scale == card.scale
        assert recipe_of(card) == shipped[f"{card.id}{SUFFIX}"]


def test_recipes_are_no_cards() -> None:
    assert not [id for id in cards.files() if id.endswith(".recipe")]


def test_model_is_trained_further_by_its_task() -> None:
    recipe = fine_tuning("rlfn.x2", paired=False)
    assert (recipe.start, recipe.architecture) == ("rlfn.x2", "rlfn")
    assert recipe.degradation == (Step(name="bicubic", parameters={"scale": 2}),)
    assert fine_tuning("rlfn.x2", paired=True).degradation == ()
    assert fine_tuning("rlfn.x2", paired=True).scale == 2


def test_recipe_is_a_value() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe(summary="", architecture="rlfn", data="", patch=8, batch=1, steps=1, learning_rate=1).steps = 2  # type: ignore[misc]
