"""How a file names the colour space of its pixels: by an ICC profile or by the code points of ITU-T H.273."""

from __future__ import annotations

from restorekit.frame import Frame
from restorekit.io import icc
from restorekit.io.colorimetry import H273_PRIMARIES, H273_TRANSFERS
from restorekit.state import ImageState


def code_points(state: ImageState) -> tuple[int, int] | None:
    """Colour primaries and transfer characteristics of a state by ITU-T H.273, ``None`` where it has no code."""
    primaries = next((code for code, name in H273_PRIMARIES.items() if name == state.primaries), None)
    transfer = next((code for code, name in H273_TRANSFERS.items() if name == state.transfer), None)
    return None if primaries is None or transfer is None else (primaries, transfer)


def profile(frame: Frame) -> bytes:
    """The profile the picture came with, where it tells the state of the pixels, else one made for that state."""
    own, state = frame.metadata.icc, frame.state
    if state.primaries == "icc":
        return own
    fits = bool(own) and (own[16:20] == b"GRAY") == (state.layout == "gray")
    if fits and icc.space_of(own) == (state.primaries, state.transfer):
        return own
    return icc.profile_of(state)


def is_srgb(state: ImageState) -> bool:
    """Whether pixels are sRGB, the space that files without a name for theirs are taken for."""
    return (state.primaries, state.transfer) == ("bt709", "srgb")
