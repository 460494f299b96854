"""Time and size of writing and reading a 4K picture in each format, beside other Python libraries.

    python benchmarks/format_speed.py [PICTURE] [--rounds 2] [--only png,tiff] [--markdown FILE]

PICTURE is a photograph of at least 3840x2160 px whose middle is used; without one a picture with the spectrum of a
photograph and noise is made. Every library gets the same pixels in memory and the settings named beside it, writes a
file in the system's temporary folder, and reads back the file that it wrote itself. CPU time is that of the process
with all its threads, pinned to one core, the smallest of the rounds; elapsed time is taken in a second run with all
cores, of one round. Libraries that are not installed are left out. It takes about two minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 3840, 2160


@dataclass
class Contender:
    """A library with one setting: what it writes to a path, and how it reads that back."""

    format: str
    library: str
    settings: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]


def picture(source: Path | None) -> Any:
    """``[H,W,3]`` float32, 0..1."""
    import numpy as np

    if source is not None:
        import imagecodecs

        whole = imagecodecs.imread(source)
        top, left = (whole.shape[0] - HEIGHT) // 2, (whole.shape[1] - WIDTH) // 2
        if min(top, left) < 0:
            raise SystemExit(f"{source}: is smaller than {WIDTH}x{HEIGHT}; name a larger photograph")
        cut = whole[top : top + HEIGHT, left : left + WIDTH, :3].astype(np.float32)
        return np.ascontiguousarray(cut / np.iinfo(whole.dtype).max)
    rng = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]) + 1 / WIDTH
    planes = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(HEIGHT, WIDTH))) / frequency**1.2) for _ in range(2)]
    light, tint = ((plane - plane.mean()) / plane.std() for plane in planes)
    made = np.stack([0.45 + 0.15 * light + 0.03 * k * tint for k in (-1, 0, 1)], -1)
    return np.clip(made + rng.normal(0, 0.004, made.shape), 0, 1).astype(np.float32)


def contenders(floats: Any) -> Iterator[Contender]:
    """Everyone who is installed, ours first in each format."""
    import imagecodecs
    import numpy as np
    import torch

    from restorekit.frame import Frame
    from restorekit.io import OutputSpec, read, write
    from restorekit.state import ImageState

    byte = np.rint(floats * 255).astype(np.uint8)
    word = np.rint(floats * 65535).astype(np.uint16)
    half = floats.astype(np.float16)

    def opened(path: Path) -> Any:
        return read(path, sidecar=False)

    def ours(name: str, pixels: Any, settings: str = "", transfer: str = "srgb", **spec: Any) -> Contender:
        frame = Frame(torch.from_numpy(pixels).permute(2, 0, 1), ImageState(transfer=transfer))  # type: ignore[arg-type]
        output = OutputSpec(format=name.split()[0], **spec)  # type: ignore[arg-type]
        return Contender(name, "restorekit", settings or "default", lambda p: write(frame, p, output), opened)

    def coded(name: str, settings: str, encode: Callable[[], Any], decode: Callable[[bytes], Any]) -> Contender:
        return Contender(
            name, "imagecodecs", settings, lambda p: p.write_bytes(encode()), lambda p: decode(p.read_bytes())
        )

    def pillow(name: str, settings: str, **options: Any) -> Iterator[Contender]:
        if importlib.util.find_spec("PIL"):
            from PIL import Image

            image = Image.fromarray(byte)
            yield Contender(
                name, "Pillow", settings, lambda p: image.save(p, **options), lambda p: Image.open(p).load()
            )

    def opencv(name: str, settings: str, pixels: Any, *options: int) -> Contender:
        import cv2

        swapped = np.ascontiguousarray(pixels[..., ::-1])
        return Contender(
            name,
            "OpenCV",
            settings,
            lambda p: cv2.imwrite(str(p), swapped, options),
            lambda p: cv2.imread(str(p), cv2.IMREAD_UNCHANGED),
        )

    def tifffile(name: str, settings: str, pixels: Any, **options: Any) -> Contender:
        import tifffile

        return Contender(
            name,
            "tifffile",
            settings,
            lambda p: tifffile.imwrite(p, pixels, photometric="rgb", rowsperstrip=64, **options),
            tifffile.imread,
        )

    import cv2

    yield ours("jpeg 8", byte)
    yield from pillow("jpeg 8", "quality 95, 4:4:4", quality=95, subsampling=0)
    full = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    yield opencv("jpeg 8", "quality 95, 4:4:4", byte, cv2.IMWRITE_JPEG_QUALITY, 95, *full)

    yield ours("png 8", byte)
    yield ours("png 8", byte, "small", compression="small")
    yield from pillow("png 8", "default (level 6)")
    yield from pillow("png 8", "level 1", compress_level=1)
    yield opencv("png 8", "default", byte)
    yield coded("png 8", "default", lambda: imagecodecs.png_encode(byte), imagecodecs.png_decode)
    yield ours("png 16", word, bits=16)
    yield ours("png 16", word, "small", bits=16, compression="small")
    yield opencv("png 16", "default", word)
    yield coded("png 16", "default", lambda: imagecodecs.png_encode(word), imagecodecs.png_decode)

    for name, pixels, bits in (("tiff 8", byte, 8), ("tiff 16", word, 16), ("tiff 32", floats, 32)):
        for compression in ("none", "zstd", "deflate"):
            yield ours(name, pixels, compression, bits=bits, compression=compression)
            packed = {"compression": {"deflate": "zlib"}.get(compression, compression), "predictor": True}
            yield tifffile(name, compression, pixels, **(packed if compression != "none" else {}))
        yield opencv(name, "default", pixels)
    yield from pillow("tiff 8", "deflate", compression="tiff_adobe_deflate")

    yield ours("webp 8", byte)
    yield from pillow("webp 8", "quality 95", quality=95)
    yield opencv("webp 8", "quality 95", byte, cv2.IMWRITE_WEBP_QUALITY, 95)
    yield ours("webp 8", byte, "lossless", compression="lossless")
    yield from pillow("webp 8", "lossless, the same effort", lossless=True, method=3, quality=30)

    yield ours("avif 8", byte)
    yield from pillow("avif 8", "quality 95, 4:4:4, speed 9", quality=95, subsampling="4:4:4", speed=9)
    yield opencv("avif 8", "quality 95, 4:2:0, speed 9", byte, cv2.IMWRITE_AVIF_QUALITY, 95, cv2.IMWRITE_AVIF_SPEED, 9)
    yield ours("avif 10", word, bits=10)

    yield ours("jxl 8", byte)
    yield coded(
        "jxl 8", "distance 0.55", lambda: imagecodecs.jpegxl_encode(byte, distance=0.55), imagecodecs.jpegxl_decode
    )
    yield ours("jxl 8", byte, "lossless", compression="lossless")
    yield coded("jxl 8", "lossless", lambda: imagecodecs.jpegxl_encode(byte, lossless=True), imagecodecs.jpegxl_decode)
    yield ours("jxl 16", word, "linear", "linear", bits=16)

    for name, pixels in (("exr 16", half), ("exr 32", floats)):
        yield ours(name, pixels, "zip", "linear", bits=int(name[4:]))
        yield from openexr(name, pixels)


def openexr(name: str, pixels: Any) -> Iterator[Contender]:
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}

    def load(path: Path) -> Any:
        with OpenEXR.File(str(path)) as file:
            return file.channels()["RGB"].pixels

    yield Contender(name, "OpenEXR", "zip", lambda p: OpenEXR.File(header, {"RGB": pixels}).write(str(p)), load)
    if importlib.util.find_spec("OpenImageIO"):
        import OpenImageIO as oiio  # noqa: N813

        def save(path: Path) -> None:
            spec = oiio.ImageSpec(WIDTH, HEIGHT, 3, {"exr 16": "half", "exr 32": "float"}[name])
            spec.attribute("compression", "zip")
            output = oiio.ImageOutput.create(str(path))
            output.open(str(path), spec)
            output.write_image(pixels)
            output.close()

        def open_image(path: Path) -> Any:
            image = oiio.ImageInput.open(str(path))
            return image.read_image({"exr 16": "half", "exr 32": "float"}[name])

        yield Contender(name, "OpenImageIO", "zip", save, open_image)


def measure(each: Contender, folder: Path, rounds: int) -> dict[str, Any]:
    """Smallest CPU and elapsed seconds of writing and reading, and the size of the file."""
    path = folder / f"a.{each.format.split()[0]}"
    path = path.with_suffix({".jpeg": ".jpg"}.get(path.suffix, path.suffix))
    row: dict[str, Any] = {"format": each.format, "library": each.library, "settings": each.settings}
    for what, call in (("write", each.write), ("read", each.read)):
        cpu, wall = [], []
        for _ in range(rounds):
            started = time.process_time(), time.perf_counter()
            call(path)
            cpu.append(time.process_time() - started[0])
            wall.append(time.perf_counter() - started[1])
            if cpu[-1] > 1:
                break
        row |= {f"{what}_cpu_s": min(cpu), f"{what}_s": min(wall)}
    return row | {"mb": path.stat().st_size / 1e6}


def worker(arguments: argparse.Namespace) -> None:
    """All measurements of one run, a line of JSON each."""
    if arguments.worker == "one" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    floats = picture(arguments.picture)
    only = set(arguments.only.split(",")) if arguments.only else None
    with tempfile.TemporaryDirectory() as folder:
        for each in contenders(floats):
            if only is None or each.format.split()[0] in only:
                rounds = arguments.rounds if arguments.worker == "one" else 1
                print(json.dumps(measure(each, Path(folder), rounds)), flush=True)


def table(one: list[dict[str, Any]], every: list[dict[str, Any]]) -> Iterator[str]:
    yield "| format | library | settings | write, CPU s | read, CPU s | write, s | read, s | MB |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for single, free in zip(one, every, strict=True):
        cells = [single["format"], single["library"], single["settings"]]
        cells += [f"{row[key]:.2f}" for row, key in ((single, "write_cpu_s"), (single, "read_cpu_s"))]
        cells += [f"{free['write_s']:.2f}", f"{free['read_s']:.2f}", f"{single['mb']:.1f}"]
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("picture", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", help="formats, separated by commas")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--worker", choices=("one", "all"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments)
    runs = []
    for which in ("one", "all"):
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", which]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        runs.append([json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")])
    lines = [*table(*runs), "", f"{WIDTH}x{HEIGHT} px, {platform.machine()}, {os.cpu_count()} cores."]
    print("\n".join(lines))
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
