"""Image files in and out: RAW, DNG, pictures of 8 and 16 bits, EXR; with metadata.

Importing this package costs nothing: decoders are imported by the functions that need them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from restorekit.io.read import read as read
from restorekit.io.read import read_bracket as read_bracket
from restorekit.io.write import write as write

if TYPE_CHECKING:
    from restorekit.io.dng.write import write_dng as write_dng
    from restorekit.io.formats import FORMATS as FORMATS
    from restorekit.io.formats import OutputFormat as OutputFormat
    from restorekit.io.formats import OutputSpec as OutputSpec
    from restorekit.io.formats import format_of_path as format_of_path
    from restorekit.io.formats import refusal as refusal
    from restorekit.io.limits import Limits as Limits
    from restorekit.io.metadata import read_capture as read_capture
    from restorekit.io.raw import Headerless as Headerless
    from restorekit.io.ultrahdr import write_ultrahdr as write_ultrahdr
    from restorekit.io.write import quantise as quantise
    from restorekit.io.write import quantiser as quantiser

_LAZY = {
    "FORMATS": "formats",
    "Headerless": "raw",
    "Limits": "limits",
    "OutputFormat": "formats",
    "OutputSpec": "formats",
    "format_of_path": "formats",
    "quantise": "write",
    "quantiser": "write",
    "read_capture": "metadata",
    "refusal": "formats",
    "write_dng": "dng.write",
    "write_ultrahdr": "ultrahdr",
}
__all__ = ["read", "read_bracket", "write", *_LAZY]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"restorekit.io.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'restorekit.io' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
