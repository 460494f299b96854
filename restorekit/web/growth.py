"""How large a picture becomes on its way through a pipeline: a server refuses what would fill its memory."""

from __future__ import annotations

from restorekit.errors import RestorekitError
from restorekit.pipeline import Pipeline
from restorekit.stages import Resize, Restore
from restorekit.web.settings import Settings

ENLARGED = 4
"""Results may have so many times the pixels of the largest picture that is taken."""


def largest(pipeline: Pipeline, width: int, height: int) -> tuple[int, int]:
    """Width and height of the largest picture that comes up, at most; crops do not count."""
    most = width, height
    for step in pipeline.steps:
        stage = step.stage
        if isinstance(stage, Resize):
            width, height = _resized(stage, width, height)
        elif isinstance(stage, Restore) and stage.card is not None:
            width, height = width * stage.card.scale, height * stage.card.scale
        most = max(most, (width, height), key=lambda size: size[0] * size[1])
    return most


def check(pipeline: Pipeline, size: tuple[int, int], settings: Settings) -> None:
    """Refuse a pipeline that would make a larger picture than the server bears. Raises RestorekitError."""
    width, height = largest(pipeline, *size)
    limit = ENLARGED * settings.megapixels
    if width * height > limit * 1e6:
        raise RestorekitError(
            f"the picture would become {width}x{height}, {width * height / 1e6:.0f} megapixels, this server makes at "
            f"most {limit:g}; enlarge it less, or run it on your own machine"
        )


def _resized(stage: Resize, width: int, height: int) -> tuple[int, int]:
    if stage.width is not None and stage.height is not None:
        return stage.width, stage.height
    factor = stage.scale or 1.0
    if stage.long_edge is not None:
        factor = stage.long_edge / max(width, height)
    elif stage.width is not None or stage.height is not None:  # of the turned picture, whichever side that is
        factor = max(stage.width or 0, stage.height or 0) / min(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))
