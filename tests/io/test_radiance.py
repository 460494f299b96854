"""Radiance pictures: pixels as imagecodecs and OpenCV have them, headers as their author describes them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from restorekit.color.primaries import conversion
from restorekit.errors import InputError
from restorekit.io import read
from restorekit.state import ImageState

WIDTH, HEIGHT = 40, 23


def light() -> NDArray[np.float32]:
    """Light that RGBE holds exactly: the largest channel of a pixel decides the exponent of all three."""
    values = np.random.default_rng(7).integers(0, 128, (HEIGHT, WIDTH, 3)).astype(np.float32)
    values[..., 1] += 128
    return np.ldexp(values, np.random.default_rng(8).integers(-16, 4, (HEIGHT, WIDTH, 1)).astype(np.int32))


def rgbe(samples: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Four bytes a pixel: mantissas of 8 bits and the exponent of the largest channel, with an offset of 128."""
    _, exponents = np.frexp(samples.max(-1))
    mantissas = np.ldexp(samples, 8 - exponents[..., None])
    return np.concatenate([mantissas, exponents[..., None] + 128], -1).astype(np.uint8)


def in_runs(pixels: NDArray[np.uint8]) -> bytes:
    """Scanlines channel by channel: runs (128 + length, value) and literal bytes (length, values)."""
    data = b""
    for row in pixels:
        data += bytes((2, 2, len(row) >> 8, len(row) & 255))
        for channel in row.T:
            at = 0
            while at < len(channel):
                run = next((n for n in range(1, 127) if at + n == len(channel) or channel[at + n] != channel[at]), 127)
                data += bytes((128 + run, channel[at])) if run > 1 else bytes((1, channel[at]))
                at += run
    return data


def written(path: Path, samples: NDArray[np.float32], *lines: str, resolution: str = "", rle: bool = True) -> Path:
    """A file whose scanlines are the rows of ``samples``."""
    packed = in_runs(rgbe(samples)) if rle else rgbe(samples).tobytes()
    resolution = resolution or f"-Y {samples.shape[0]} +X {samples.shape[1]}"
    head = "\n".join(("#?RADIANCE", "# a comment", "FORMAT=32-bit_rle_rgbe", *lines, "", resolution, ""))
    path.write_bytes(head.encode() + packed)
    return path


def test_light_of_a_scene_in_rec_709(tmp_path: Path) -> None:
    frame = read(written(tmp_path / "a.hdr", light()))
    assert frame.state == ImageState("rgb", "scene", "linear", "bt709")
    assert frame.metadata.color == ("bt709", "linear")
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy(), light())


def test_as_opencv_reads_and_writes_it(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((HEIGHT, WIDTH, 3), dtype=np.float32) * 30
    cv2.imwrite(str(tmp_path / "a.hdr"), values[..., ::-1])
    found = read(tmp_path / "a.hdr").pixels.permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, cv2.imread(str(tmp_path / "a.hdr"), cv2.IMREAD_UNCHANGED)[..., ::-1])
    np.testing.assert_allclose(found, values, atol=30 / 128)


@pytest.mark.parametrize(
    ("resolution", "turn"),
    [
        ("-Y {h} +X {w}", lambda image: image),
        ("-Y {h} -X {w}", lambda image: image[:, ::-1]),
        ("+Y {h} +X {w}", lambda image: image[::-1]),
        ("+Y {h} -X {w}", lambda image: image[::-1, ::-1]),
        ("+X {w} -Y {h}", lambda image: image.transpose(1, 0, 2)),
        ("+X {w} +Y {h}", lambda image: image[::-1].transpose(1, 0, 2)),
        ("-X {w} -Y {h}", lambda image: image[:, ::-1].transpose(1, 0, 2)),
        ("-X {w} +Y {h}", lambda image: image[::-1, ::-1].transpose(1, 0, 2)),
    ],
)
def test_scanlines_of_all_eight_orders_come_out_upright(tmp_path: Path, resolution: str, turn) -> None:  # type: ignore[no-untyped-def]
    path = written(tmp_path / "a.hdr", turn(light()), resolution=resolution.format(h=HEIGHT, w=WIDTH))
    np.testing.assert_array_equal(read(path).pixels.permute(1, 2, 0).numpy(), light())


def test_exposures_multiply_and_are_divided_out(tmp_path: Path) -> None:
    frame = read(written(tmp_path / "a.hdr", light(), "EXPOSURE=4", "EXPOSURE= 0.5"))
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy(), light() / 2)


def test_primaries(tmp_path: Path) -> None:
    p3 = read(written(tmp_path / "a.hdr", light(), "PRIMARIES= 0.68 0.32 0.265 0.69 0.15 0.06 0.3127 0.329"))
    assert p3.state.primaries == "p3"
    radiance = read(written(tmp_path / "b.hdr", light(), "PRIMARIES=.640 .330 .290 .600 .150 .060 .333 .333"))
    assert radiance.state == ImageState("rgb", "scene", "linear", "bt2020")
    white = read(
        written(tmp_path / "c.hdr", np.full((9, 9, 3), 0.5, np.float32), "PRIMARIES=.64 .33 .29 .6 .15 .06 .333 .333")
    )
    np.testing.assert_allclose(white.pixels.numpy(), 0.5, atol=2e-3)
    nothing = read(written(tmp_path / "d.hdr", light(), "PRIMARIES=0 0 0 0 0 0 0 0"))
    assert nothing.state.primaries == "bt709"


def test_xyz(tmp_path: Path) -> None:
    xyz = written(tmp_path / "a.hdr", light())
    xyz.write_bytes(xyz.read_bytes().replace(b"rgbe", b"xyze"))
    frame = read(xyz)
    assert frame.state.primaries == "xyz"
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy(), light())
    assert np.isfinite(conversion("xyz", "bt2020")).all()


def test_without_run_lengths(tmp_path: Path) -> None:
    """Pictures of less than 8 px a scanline have none."""
    for samples in (light(), light()[:, :5]):
        found = read(written(tmp_path / "a.hdr", samples, rle=False)).pixels.permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(found, samples)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3, 0.9, 0.999])
def test_files_that_are_cut_off_are_refused(tmp_path: Path, share: float) -> None:
    data = written(tmp_path / "a.hdr", light()).read_bytes()
    (tmp_path / "cut.hdr").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"cut\.hdr"):
        read(tmp_path / "cut.hdr")


@pytest.mark.parametrize(
    "head",
    [
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 0 +X 0\n",
        b"#?RADIANCE\nFORMAT=ascii\n\n-Y 8 +X 8\n" + bytes(256),
        b"#?RADIANCE\nEXPOSURE=0\n\n-Y 8 +X 8\n" + bytes(256),
        b"#?RADIANCE\nEXPOSURE=x\n\n-Y 8 +X 8\n" + bytes(256),
        b"#?RADIANCE\n\n-Y 8 -Y 8\n" + bytes(256),
    ],
)
def test_headers_that_make_no_sense_are_refused(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a.hdr").write_bytes(head)
    with pytest.raises(InputError, match=r"a\.hdr: (is damaged|has the pixel format)"):
        read(tmp_path / "a.hdr")


def test_real_files(shared_data: Path) -> None:
    square, wide, tall = (
        read(shared_data / "hdr" / f"kimg_rgb{name}.hdr").pixels for name in ("", "-landscape", "-portrait")
    )
    assert (square.shape, wide.shape, tall.shape) == ((3, 32, 32), (3, 32, 64), (3, 64, 32))
    np.testing.assert_allclose(wide[:, :, :32].numpy(), tall[:, :32].numpy(), atol=0.01)
    np.testing.assert_allclose(wide[:, :, :32].numpy(), square.numpy(), atol=0.05)
    church = read(shared_data / "hdr" / "hdrvdp_nancy_church.hdr")
    theirs = cv2.imread(str(church.source), cv2.IMREAD_UNCHANGED)[..., ::-1]
    np.testing.assert_allclose(church.pixels.permute(1, 2, 0).numpy(), theirs, rtol=1e-6)
