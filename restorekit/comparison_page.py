"""A comparison of two pictures as one HTML file, which needs nothing beside it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from restorekit.comparison_view import Box, View, views
from restorekit.contact_sheet import farthest
from restorekit.frame import Frame
from restorekit.io.encode import ENCODERS
from restorekit.io.formats import OutputSpec
from restorekit.io.write import SOFTWARE, replacing
from restorekit.metrics.difference_map import DifferenceMap, difference_map

LONG_EDGE_PX, CROP_PX = 2048, 1024
"""Larger pictures are reduced to the first; a square of the second is then shown pixel by pixel too."""

PNG_PIXELS = 1 << 21
"""Larger pictures are embedded as JPEG, a tenth of the size. Crops and whatever is smaller stay as they are."""

JPEG_QUALITY = 95

TOP_SHARE = 0.999
"""The colours of a difference map reach to what this share of the pixels does not exceed."""


def write_page(path: Path, first: Frame, second: Frame, measures: Mapping[str, Any], *, white_nits: float) -> None:
    """Write the page of two frames and of what :func:`restorekit.metrics.compare.compare_frames` measured of them.

    Raises InputError where colours cannot be shown, OutputError where the file cannot be written.
    """
    text = page(first, second, measures, white_nits=white_nits)
    with replacing(path) as file:
        file.write(text.encode(errors="replace"))  # names of files need not be text


def page(first: Frame, second: Frame, measures: Mapping[str, Any], *, white_nits: float) -> str:
    """The HTML text of :func:`write_page`."""
    scale = float(measures.get("scale", 1.0))
    first, second = first.upright(), second.upright()
    shown = views(first, second, scale=scale, long_edge=LONG_EDGE_PX)
    found = difference_map(first, second, white_nits=white_nits, scale=scale)
    overviews = (shown[0].overview(LONG_EDGE_PX), shown[1].overview(LONG_EDGE_PX))
    colors, values = (None, None) if found is None else (_Colors.of(found), found.values)
    box = _worst(found, overviews, (first.height, first.width))
    middle = (box[1] + box[3] / 2) / first.width, (box[0] + box[2] / 2) / first.height
    names = first.name, second.name
    viewers = [_viewer("The whole", names, overviews, colors, values, middle)]
    reduced = overviews[0].shape[1:] != (first.height, first.width)
    if reduced:
        top, left, height, width = box
        title = f"Where they differ most: {width} x {height} px of the full resolution, from column {left}, row {top}"
        part = None if values is None else values[top : top + height, left : left + width]
        viewers.append(_viewer(title, names, (shown[0].crop(box), shown[1].crop(box)), colors, part, (0.5, 0.5)))
    template = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    return template.substitute(
        software=escape(SOFTWARE),
        title=f"{escape(names[0])} and {escape(names[1])}",
        viewers="\n".join(viewers),
        measures="\n".join(_row(name, as_text(value)) for name, value in measures.items()),
        files="\n".join(_files(first, second)),
        notes="\n".join(f"<li>{note}</li>" for note in _notes(shown, found, overviews[0], reduced)),
    )


def as_text(value: object) -> str:
    """A measure as ``compare`` says it."""
    return "equal" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class _Colors:
    """How differences become colours: black for none, bright yellow from ``top`` on."""

    top: float
    largest: float
    measure: str

    @staticmethod
    def of(found: DifferenceMap) -> _Colors:
        values = found.values.numpy()
        usual = max(float(np.quantile(values, TOP_SHARE)), 2 * found.visible)
        power = 10.0 ** math.floor(math.log10(usual))
        top = next(step * power for step in (1, 2, 5, 10) if usual <= step * power * (1 + 1e-6))
        return _Colors(top, float(values.max()), found.measure)

    def picture(self, values: Tensor) -> Tensor:
        """Differences ``[H,W]`` as uint8 RGB ``[3,H,W]``."""
        levels = (values * (255 / self.top)).clamp(0, 255).round().to(torch.uint8).numpy()
        colored = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
        return torch.from_numpy(colored.copy()).permute(2, 0, 1)

    def legend(self) -> str:
        bar = self.picture(torch.linspace(0, self.top, 256)[None])
        marks = "".join(f"<span>{self.top * share:g}</span>" for share in (0, 0.25, 0.5, 0.75, 1))
        beyond = "; larger ones have the last colour" if self.largest > self.top else ""
        return (
            f'<div class="legend"><img src="{_embedded(bar)}" alt="colours of small to large differences">'
            f'<div class="scale">{marks}</div>{self.measure}, at most {self.largest:.4g}{beyond}</div>'
        )


def _worst(found: DifferenceMap | None, overviews: tuple[Tensor, Tensor], size: tuple[int, int]) -> Box:
    """The part at 100 % in which two pictures differ most, by the map or, without one, as they are shown."""
    if found is not None:
        return _centred(farthest(found.values[None], torch.zeros(1, 1, 1), CROP_PX), found.values)
    factor = size[0] / overviews[0].shape[1]
    top, left, height, width = farthest(*overviews, max(1, round(CROP_PX / factor)))
    height, width = (min(CROP_PX, side) for side in size)
    return min(round(top * factor), size[0] - height), min(round(left * factor), size[1] - width), height, width


def _centred(box: Box, values: Tensor) -> Box:
    """A part of a map, moved so that what is in it lies in its middle as far as the picture goes."""
    top, left, height, width = box
    weights = values[top : top + height, left : left + width].double().square_()
    total = float(weights.sum())
    if not total:
        return box
    row, column = (float((weights.sum(1 - axis) * torch.arange(weights.shape[axis])).sum()) / total for axis in (0, 1))
    middle = round(top + row - height / 2), round(left + column - width / 2)
    return (
        min(max(middle[0], 0), values.shape[0] - height),
        min(max(middle[1], 0), values.shape[1] - width),
        height,
        width,
    )


def _viewer(
    title: str,
    names: tuple[str, str],
    pictures: tuple[Tensor, Tensor],
    colors: _Colors | None,
    values: Tensor | None,
    middle: tuple[float, float],
) -> str:
    """Two pictures with a divider, and the map of their differences in their size; 1:1 begins at ``middle``."""
    _, height, width = pictures[0].shape
    labels = [escape(name) for name in names]
    layers = [
        f'<img class="{side}" src="{_embedded(picture)}" alt="{side.upper()}: {label}">'
        for side, picture, label in zip("ab", pictures, labels, strict=True)
    ]
    legend, choice = "", ""
    if colors is not None and values is not None:
        small = torch.nn.functional.adaptive_max_pool2d(values[None], (height, width))[0]
        layers.append(f'<img class="map" src="{_embedded(colors.picture(small))}" alt="map of the differences">')
        legend = colors.legend()
        group = escape(title)
        choice = (
            f'<label><input type="radio" name="{group}" value="pair" checked> A and B</label>'
            f'<label><input type="radio" name="{group}" value="map"> difference</label>'
        )
    lines = "\n".join(layers)
    return f"""<section class="viewer"><h2>{escape(title)}</h2>
<div class="bar">{choice}<label><input type="checkbox" class="pixels"> 1:1 pixels</label></div>
<div class="frame"><div class="stage" tabindex="0" data-x="{middle[0]:.4f}" data-y="{middle[1]:.4f}"
aria-label="pictures A and B">
<div class="sheet" style="--w: {width}; --h: {height}">
{lines}
<i></i></div></div>
<span class="chip a">A: {labels[0]}</span><span class="chip b">B: {labels[1]}</span></div>
<input class="cut" type="range" min="0" max="100" step="0.1" value="50" aria-label="divider between A and B">
{legend}</section>"""


def _embedded(picture: Tensor) -> str:
    """uint8 sRGB ``[3,h,w]`` as the address of an image in the page itself."""
    small = picture.shape[1] * picture.shape[2] <= PNG_PIXELS
    spec = OutputSpec(format="png", compression="small") if small else OutputSpec(format="jpeg", quality=JPEG_QUALITY)
    file = io.BytesIO()
    ENCODERS[spec.format](file, Frame(picture), spec, SOFTWARE)
    return f"data:image/{spec.format};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _row(name: str, *cells: str) -> str:
    return f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _files(first: Frame, second: Frame) -> Iterator[str]:
    frames = (first, second)
    yield _row("", "A, the reference", "B")
    yield _row("file", *(frame.name for frame in frames))
    yield _row("size", *(f"{frame.width} x {frame.height} px" for frame in frames))
    yield _row("state", *(str(frame.state) for frame in frames))


def _notes(shown: tuple[View, View], found: DifferenceMap | None, overview: Tensor, reduced: bool) -> Iterator[str]:
    """What was done to the pictures for the page, and how it is used."""
    yield "Drag in a picture, or move the control below it by mouse or arrow keys: A is on the left, B on the right."
    yield "1:1 shows each pixel as one of the screen; drag or scroll, or use the arrow keys, to move about."
    yield "Colours are converted to sRGB, those outside it are cut; what is measured are the files themselves."
    ev = next((view.ev for view in shown if view.hdr), None)
    if ev is not None:
        yield f"HDR light is tone-mapped for this page: exposed by {ev:+.2f} stops, filmic, colours fitted to sRGB."
    if reduced:
        _, height, width = overview.shape
        yield f"The whole is reduced to {width} x {height} px; each pixel of its map has the largest difference there."
    if overview.shape[1] * overview.shape[2] > PNG_PIXELS:
        yield f"Pictures of the whole are embedded as JPEG of quality {JPEG_QUALITY}; the other ones are exact."
    if found is None:
        yield "There is no map of differences: an HDR file and an SDR picture have no scale in common."
