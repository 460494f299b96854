"""Image restoration and HDR: RAW files, brackets and photographs in, finished pictures out.

>>> import restorekit as rk
>>> pipe = rk.Pipeline.load("raw-to-srgb").set("tone.exposure", ev=0.5)
>>> rk.write(pipe(rk.read("a.dng")), "a.png")

Names are imported on first use, so that ``import restorekit`` alone costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restorekit import stages as stages
    from restorekit.camera import CameraSession as CameraSession
    from restorekit.errors import RestorekitError as RestorekitError
    from restorekit.facts import Camera as Camera
    from restorekit.facts import Exposure as Exposure
    from restorekit.frame import Bracket as Bracket
    from restorekit.frame import Frame as Frame
    from restorekit.io.buffers import Packed as Packed
    from restorekit.io.buffers import nv12 as nv12
    from restorekit.io.buffers import yuyv as yuyv
    from restorekit.io.formats import OutputSpec as OutputSpec
    from restorekit.io.limits import Limits as Limits
    from restorekit.io.raw import Headerless as Headerless
    from restorekit.io.read import read as read
    from restorekit.io.read import read_bracket as read_bracket
    from restorekit.io.write import write as write
    from restorekit.pipeline import InputSpec as InputSpec
    from restorekit.pipeline import Pipeline as Pipeline
    from restorekit.stages.restore import Restore as Restore
    from restorekit.state import ImageState as ImageState
    from restorekit.zoo.model import load_model as load_model

__version__ = "0.1.0"

_PUBLIC = {
    "Bracket": "frame",
    "Camera": "frame",
    "CameraSession": "camera",
    "Exposure": "frame",
    "Frame": "frame",
    "Headerless": "io",
    "ImageState": "state",
    "InputSpec": "pipeline",
    "Limits": "io",
    "OutputSpec": "io",
    "Packed": "io.buffers",
    "Pipeline": "pipeline",
    "Restore": "stages.restore",
    "RestorekitError": "errors",
    "load_model": "zoo.model",
    "nv12": "io.buffers",
    "read": "io",
    "read_bracket": "io",
    "write": "io",
    "yuyv": "io.buffers",
}
__all__ = [*_PUBLIC, "stages"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"restorekit.{_PUBLIC[name]}"), name)
    if name == "stages":
        return importlib.import_module("restorekit.stages")
    raise AttributeError(f"module 'restorekit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
