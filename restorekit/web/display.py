"""What a browser can show of a frame: 8-bit sRGB, light of a scene through an exposure and a film-like curve."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from restorekit.engine import process
from restorekit.errors import OutputError
from restorekit.frame import Frame
from restorekit.io.write import quantise
from restorekit.pipeline import InputSpec, Pipeline
from restorekit.stages.color import Encode
from restorekit.stages.tone import Exposure, Filmic
from restorekit.state import SHORTHANDS

Picture = NDArray[np.uint8]
"""``[H,W,3]``, sRGB."""

_SCENE = SHORTHANDS["scene-linear"].changed({"primaries": "bt709"})
_OF_SCENES = Pipeline((Exposure(mode="auto"), Filmic(), Encode()), InputSpec(_SCENE))
_OF_OTHERS = Pipeline((), InputSpec(SHORTHANDS["display-srgb"]))


def shown(frame: Frame) -> Picture:
    """A frame as 8-bit sRGB, upright. RAW files are developed plainly, light of a scene is exposed and tone-mapped."""
    frame = frame.upright()
    if frame.state == SHORTHANDS["display-srgb"] and frame.pixels.dtype == torch.uint8:
        return frame.pixels.permute(1, 2, 0).contiguous().numpy()
    of_scene = frame.state.reference == "scene" and not frame.state.is_mosaic
    pixels = process(_OF_SCENES if of_scene else _OF_OTHERS, frame).pixels
    return quantise(pixels, 8).permute(1, 2, 0).contiguous().numpy()


def saved(picture: Picture, path: Path, *, lossless: bool = False) -> Path:
    """A picture in a file for the page: JPEG, or PNG where every pixel counts."""
    kind, settings = (".png", []) if lossless else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 92])
    done, data = cv2.imencode(kind, np.ascontiguousarray(picture[..., ::-1]), settings)
    if not done:
        raise OutputError(f"{path.name}: cannot be encoded for the page; use a smaller picture")
    target = path.with_suffix(kind)
    target.write_bytes(data.tobytes())
    return target


def with_clipping(picture: Picture) -> Picture:
    """The picture with red where a channel is at its maximum and blue where all are 0."""
    marked = picture.copy()
    marked[(picture == 255).any(2)] = (255, 0, 0)
    marked[(picture == 0).all(2)] = (0, 60, 255)
    return marked


def cut(picture: Picture, x: float, y: float, size_px: int) -> Picture:
    """A square of a picture about a place given in shares of its width and height, as far as it goes."""
    height, width = picture.shape[:2]
    left = min(max(round(x * width) - size_px // 2, 0), max(width - size_px, 0))
    top = min(max(round(y * height) - size_px // 2, 0), max(height - size_px, 0))
    return picture[top : top + size_px, left : left + size_px]


def fitted(picture: Picture, like: Picture) -> Picture:
    """A picture enlarged, or reduced, to the size of another."""
    if picture.shape == like.shape:
        return picture
    size = (like.shape[1], like.shape[0])
    smaller = picture.shape[0] > like.shape[0]
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return resized.astype(np.uint8, copy=False)


def histogram(picture: Picture) -> str:
    """The histogram of a picture as SVG: square roots of counts, red, green and blue."""
    lines = []
    planes = cv2.split(picture)
    for plane, color in zip(planes, ("#e5484d", "#30a46c", "#3e63dd"), strict=True):
        counts = cv2.calcHist([plane], [0], None, [256], [0, 256]).ravel() ** 0.5
        heights = counts / max(float(counts[1:255].max()), 1.0)
        points = " ".join(f"{x},{100 - 98 * min(float(h), 1.0):.1f}" for x, h in enumerate(heights))
        lines.append(
            f'<polyline points="0,100 {points} 255,100" fill="{color}" fill-opacity=".18" stroke="{color}" '
            'stroke-width="1.2" vector-effect="non-scaling-stroke"/>'
        )
    brightest = cv2.max(cv2.max(planes[0], planes[1]), planes[2])
    light, dark = (100.0 * np.count_nonzero(brightest == value) / brightest.size for value in (255, 0))
    return (
        '<svg class="rk-histogram" viewBox="0 0 255 100" preserveAspectRatio="none" role="img" '
        f'aria-label="Histogram">{"".join(lines)}</svg>'
        f'<div class="rk-clipped"><span>black {dark:.2f} %</span><span>clipped {light:.2f} %</span></div>'
    )
