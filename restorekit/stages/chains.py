"""Chains that models were not made for: what stood before in a pipeline is not what a model was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from restorekit.zoo.card import ModelCard, Task

ORDER: dict[Task, int] = {
    "jpeg": 0,
    "denoising": 1,
    "deblurring": 2,
    "deraining": 2,
    "weather": 2,
    "dehazing": 2,
    "reflection": 2,
    "low-light": 3,
    "enhancement": 3,
    "super-resolution": 4,
}
"""Tasks as they should follow one another: first what was done to the picture last."""

MADE_WORSE: dict[Task, str] = {
    "denoising": "smooths noise, or takes detail for it",
    "low-light": "brightens noise too",
    "enhancement": "brightens noise too",
    "super-resolution": "enlarges what is wrong with a picture",
}
"""What a task does to a picture that another should have had first."""

EXACT: tuple[Task, ...] = ("jpeg", "denoising")
"""Tasks whose models know what is wrong pixel by pixel."""

ONCE: tuple[Task, ...] = (*EXACT, "low-light", "enhancement", "dehazing")
"""Tasks that are done when they were done once; others may differ in what they remove or go on."""

RESHAPING = {
    "geometry.resize": "resampling makes noise and blocks coarser or finer than any that it knows",
    "geometry.rotate": "resampling makes noise and blocks softer than any that it knows",
    "finish.sharpen": "sharpening makes noise and blocks stronger than they were",
    "denoise.nlmeans": "what noise is left there looks like none that it knows",
    "denoise.guided": "what noise is left there looks like none that it knows",
}
"""Stages after which noise and blocks are no longer what models were trained on."""


def warnings(card: ModelCard, before: Sequence[str], models: Sequence[ModelCard]) -> Iterator[str]:
    """What to say of a model behind these stages (their names) and these models, in the order they stand in."""
    if card.task in EXACT:
        for name, why in RESHAPING.items():
            if name in before:
                yield f"model {card.id} stands behind {name}: {why}; put that stage behind the model, or leave it out"
    for other in models:
        if other.task == card.task:
            if card.task in ONCE:
                yield f"model {card.id} does what {other.id} has done before it; one of them is enough"
        elif ORDER.get(card.task, 0) < ORDER.get(other.task, 0) and other.task in MADE_WORSE:
            yield f"model {card.id} stands behind {other.id}, which {MADE_WORSE[other.task]}; put it before"
