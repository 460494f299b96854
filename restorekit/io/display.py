"""Finished pictures as frames: their colour space named or converted, their metadata clean, the right way up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restorekit.errors import InputError
from restorekit.facts import Metadata
from restorekit.frame import Frame
from restorekit.io import cms, colorimetry, icc, metadata
from restorekit.io.colorimetry import CHANNELS, SRGB, Meaning, Named
from restorekit.io.decoded import Decoded
from restorekit.io.read import PictureKind
from restorekit.io.samples import Samples, turned
from restorekit.planes import orient
from restorekit.state import ImageState


def read_picture(path: Path, kind: PictureKind, *, gain_map: bool = False) -> Frame:
    """A finished picture as a display-referred frame, upright.

    Where the colour space has a name, samples stay what they are (8 or 16 bit integers, floats), the state and
    ``Metadata.color`` name it, and ``pixels`` is a ``[C,H,W]`` view of interleaved memory. Colours of other spaces
    (ICC profiles with tables, other primaries or curves, CMYK, CIELAB) become linear Rec. 2020 in float32, unclamped;
    ``Metadata.color`` is then ``None``. Pictures that tell nothing are sRGB, floats of a TIFF file without a profile
    scene-referred. What had to be guessed is noted.

    With ``gain_map`` a JPEG file that carries one gives its HDR rendition: linear half floats, 1.0 = standard white.

    Raises InputError for damaged and cut off files, and for those with other than gray, RGB, CMYK or CIELAB colours.
    """
    found = _decoded(path, kind, gain_map)
    carried = found.embedded
    orientation = metadata.exif_orientation(carried.exif) if found.orientation is None else found.orientation
    samples = found.samples if found.samples.ndim == 3 else found.samples[..., None]
    colors = CHANNELS[found.model]
    if samples.shape[2] not in (colors, colors + 1):
        raise InputError(
            f"{path}: has {samples.shape[2]} channels for {found.model} colours; convert it to gray or RGB"
        )
    meaning, note = _meaning(found)
    color: Named | None = None
    alpha: Tensor | None = None
    if isinstance(meaning, tuple) and found.model in ("gray", "rgb"):
        color = meaning
        planes = _planes(samples, orientation)
        pixels, alpha = planes[:colors], planes[colors:] if planes.shape[0] > colors else None
    else:
        alpha = _planes(samples[..., colors:], orientation) if samples.shape[2] > colors else None
        if found.model == "lab":
            pixels = orient(torch.from_numpy(colorimetry.lab_to_working(samples[..., :3])), orientation)
        elif isinstance(meaning, tuple):
            color, pixels = meaning, _planes(colorimetry.ink_to_srgb(samples[..., :4]), orientation)
        else:
            light = colorimetry.working(samples[..., :colors], found.model, meaning)
            pixels = orient(torch.from_numpy(light), orientation)
    profile = carried.icc
    if color is not None and profile and icc.space_of(profile) not in (None, color):
        profile = b""
    primaries, transfer = color or (cms.WORKING.primaries, cms.WORKING.transfer)
    frame = Frame(
        pixels,
        ImageState(
            "gray" if pixels.shape[0] == 1 else "rgb", "scene" if found.scene else "display", transfer, primaries
        ),
        alpha=alpha,
        exposure=metadata.exposure_from_exif(carried.exif),
        metadata=Metadata(
            exif=metadata.clean_exif(carried.exif),
            icc=profile,
            xmp=metadata.clean_xmp(carried.xmp, orientation),
            iptc=carried.iptc,
            color=color,
        ),
        source=path,
    )
    for text in (*found.notes, note):
        frame = frame.with_note(f"{path.name}: {text}") if text else frame
    return frame


def _decoded(path: Path, kind: PictureKind, gain_map: bool) -> Decoded:
    if kind == "tiff":
        from restorekit.io import tiff_picture

        return tiff_picture.decode(path)
    if kind == "heif":
        from restorekit.io import heif

        return heif.decode(path)
    from restorekit.io import decoders

    return decoders.decode(path, kind, gain_map=gain_map)


def _meaning(found: Decoded) -> tuple[Meaning, str]:
    """The colour space of a picture, and a note where it is a guess: by its container, profile, or the EXIF mark."""
    carried = found.embedded
    if found.scene:
        return ("bt709", "linear"), ""
    if found.meaning is not None:
        return found.meaning, ""
    if carried.icc and found.model != "lab":
        return colorimetry.by_profile(carried.icc, found.model)
    if found.model == "cmyk":
        return SRGB, "has CMYK colours without a profile, they are turned to sRGB plainly, (1 - C)(1 - K)"
    return (("adobe-rgb", "gamma") if metadata.says_adobe_rgb(carried.exif) else SRGB), ""


def _planes(samples: Samples, orientation: int) -> Tensor:
    """``[C,H,W]`` of ``[H,W,C]``, turned; torch cannot flip 16-bit integers."""
    return torch.from_numpy(np.ascontiguousarray(turned(samples, orientation))).permute(2, 0, 1)
