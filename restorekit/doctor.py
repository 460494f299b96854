"""What can be wrong with an installation, each in one line with its cure."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from restorekit import bundled
from restorekit.errors import ModelError, RestorekitError, installing

MODULES = ("torch", "numpy", "pydantic", "yaml", "safetensors", "rawpy", "imagecodecs", "OpenEXR", "cv2", "tifffile")
"""What has to load."""

CODECS = {
    "JPEG8": "JPEG",
    "PNG": "PNG",
    "WEBP": "WebP",
    "AVIF": "AVIF",
    "JPEGXL": "JPEG XL",
    "GIF": "GIF",
    "ULTRAHDR": "Ultra HDR",
    "DEFLATE": "PNG and TIFF",
    "CMS": "colour profiles",
}
"""Parts of imagecodecs, which some builds of it lack, and what needs them."""

EXTRAS = (
    ("heif", "pillow_heif", "reads HEIC and HEIF"),
    ("lens", "lensfunpy", "lens corrections by lensfun"),
    ("train", "lightning", "trains models"),
    ("web", "gradio", "pipelines in a browser"),
    ("spandrel", "spandrel", "checkpoints of more architectures"),
    ("lpips", "lpips", "LPIPS on AlexNet and VGG"),
    ("cvvdp", "pycvvdp", "ColorVideoVDP"),
)
"""Optional parts: the extra's name, the module it brings, and what for."""

LEAST_BYTES = 1 << 30
"""Free memory and disk below which usual pictures fail."""


@dataclass(frozen=True)
class Finding:
    """What was found: a ``problem``, or something optional that is not there, which is worth knowing."""

    text: str
    problem: bool = True


def findings() -> Iterator[Finding]:
    """All that is wrong, or optional and absent, with this installation."""
    broken = list(_modules())
    yield from (*broken, *_versions())
    if broken:
        return  # what else there is cannot be looked at without them
    for check in (_codecs, _extras, _stages, _pipelines, _weights, _folders, _memory, _accelerator):
        yield from check()


def machine() -> dict[str, str]:
    """What restorekit runs on, in words; nothing where its packages do not load."""
    if any(_modules()):
        return {}
    from restorekit.device import describe
    from restorekit.io.limits import available_memory
    from restorekit.zoo import cards

    memory, home = available_memory(), cards.home()
    return {
        "processor": f"{os.cpu_count()} threads",
        "accelerator": describe(),
        "free memory": "not told" if memory is None else _gib(memory),
        "folder of the user": f"{home}, {_gib(shutil.disk_usage(_existing(home)).free)} free",
    }


def _modules() -> Iterator[Finding]:
    for module in MODULES:
        if said := _does_not_load(module):
            cure = "install restorekit again: pip install --force-reinstall restorekit"
            yield Finding(f"{module} does not load ({said}); {cure}")


def _does_not_load(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a foreign module raises while it is imported
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _versions() -> Iterator[Finding]:
    """Packages, those of extras only where they are installed, against what restorekit asks for."""
    try:
        wanted = requires("restorekit") or []
    except PackageNotFoundError:
        return  # run from its source tree
    for line in wanted:
        found = re.match(r"([\w.-]+)\s*([<>=!,.\w\s]*)", line)
        if found is None:
            continue
        name, limits = found[1], found[2].strip()
        try:
            there = version(name)
        except PackageNotFoundError:
            if ";" not in line:
                yield Finding(f"the package {name} is missing; run: pip install '{name}{limits}'")
            continue
        if not _within(there, limits):
            yield Finding(f"{name} is {there}, restorekit needs {limits}; run: pip install '{name}{limits}'")


def _within(there: str, limits: str) -> bool:
    """Whether a version keeps limits such as ``>=2.6,<3``; other signs than these are not looked at."""
    tests = {">=": lambda a, b: a >= b, "<": lambda a, b: a < b}
    parts = [re.fullmatch(r"(>=|<)([\d.]+)", part.strip()) for part in limits.split(",")]
    return all(tests[part[1]](_numbers(there), _numbers(part[2])) for part in parts if part)


def _numbers(text: str) -> tuple[int, ...]:
    """The release of a version, without the zeros at its end: (2, 13) of 2.13.0+cpu."""
    release = re.match(r"\d+(\.\d+)*", text)
    numbers = [int(number) for number in release[0].split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _codecs() -> Iterator[Finding]:
    codecs = importlib.import_module("imagecodecs")
    cure = "install the build from PyPI: pip install --force-reinstall imagecodecs"
    for part, needed_for in CODECS.items():
        if not getattr(getattr(codecs, part, None), "available", False):
            yield Finding(f"imagecodecs was built without {part}, which {needed_for} needs; {cure}")


def _extras() -> Iterator[Finding]:
    for extra, module, gives in EXTRAS:
        cure = installing(extra)
        if importlib.util.find_spec(module) is None:
            yield Finding(f"the extra {extra} ({gives}) is not installed; if you want it: {cure}", problem=False)
        elif said := _does_not_load(module):
            yield Finding(f"the extra {extra} ({gives}) does not load ({said}); install it again: {cure}")


def _stages() -> Iterator[Finding]:
    from restorekit.registry import stage_class, stage_entries

    for name in stage_entries():
        try:
            stage_class(name)
        except RestorekitError as error:
            yield Finding(str(error))


def _pipelines() -> Iterator[Finding]:
    """Pipelines that do not load, and those whose models have no weights."""
    from restorekit.schema import load
    from restorekit.stages.restore import models_of
    from restorekit.zoo import store

    for name in bundled.pipelines():
        try:
            pipe = load(name)
        except RestorekitError as error:
            yield Finding(str(error))
            continue
        for card in store.without_weights(models_of(step.stage for step in pipe.steps)):
            if not _comes_along(card.id):
                said = f"the pipeline {name} needs weights of {card.id}, which are not installed"
                yield Finding(f"{said}; {store.cure(card)}", problem=False)


def _weights() -> Iterator[Finding]:
    """Cards that cannot be read, weights that should have come along, and installed ones that are damaged."""
    from restorekit.zoo import cards, store
    from restorekit.zoo.verify import problem

    known = cards.cards()
    for id in known:
        try:
            card = known[id]
        except ModelError as error:
            yield Finding(str(error))
            continue
        if store.weights_path(card) is not None:
            if said := problem(card):
                yield Finding(said)
        elif _comes_along(id):
            where = bundled.folder("models")
            cure = "install restorekit again: pip install --force-reinstall restorekit"
            yield Finding(f"the weights of {id}, which come with restorekit, are missing in {where}; {cure}")


def _comes_along(id: str) -> bool:
    """Whether the weights of a model are among the files of restorekit."""
    from restorekit.zoo import cards

    path = cards.files()[id]
    weights = cards.card(id).weights
    return path.parent == bundled.folder("models") and bool(weights and not weights.url and not weights.page)


def _folders() -> Iterator[Finding]:
    """The user's folder and that for temporary files: may they be written, and is there room?"""
    from restorekit.zoo import cards

    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError:
        yield Finding("no folder for temporary files can be written; make room, or set TMPDIR to one that can")
        return
    for folder, variable in ((temporary, "TMPDIR"), (cards.home(), "RESTOREKIT_HOME")):
        there = _existing(folder)
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            yield Finding(f"{there}: may not be written; change its permissions, or set {variable} to another folder")
            continue
        free = shutil.disk_usage(there).free
        if free < LEAST_BYTES:
            yield Finding(f"only {_gib(free)} are free in {there}; make room, or set {variable} to another folder")


def _existing(folder: Path) -> Path:
    """A folder, or the nearest above it that is there."""
    return next((path for path in (folder, *folder.parents) if path.exists()), folder)


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"


def _memory() -> Iterator[Finding]:
    from restorekit.io.limits import available_memory

    free = available_memory()
    if free is not None and free < LEAST_BYTES:
        said = f"only {_gib(free)} of memory are free"
        yield Finding(f"{said}, a RAW file of 24 megapixels takes 0.6 GiB and a bracket more; close other programs")


def _accelerator() -> Iterator[Finding]:
    from restorekit.device import unseen_gpu

    if said := unseen_gpu():
        yield Finding(said)
