"""Folders of pictures are listed as a person would, paired by their names, and read as 8 bits of sRGB."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restorekit.data.card import Split
from restorekit.data.folders import Pair, Pictures, paired, read_rgb8, split_pairs, unpaired
from restorekit.errors import InputError
from restorekit.io import read


def files(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_listed_in_natural_order_without_what_is_no_picture(tmp_path: Path) -> None:
    files(tmp_path, ["b/10.png", "b/9.PNG", "b10/1.jpg", "b9/1.jpg", "2.tif", "notes.txt", "._1.png", ".cache/1.png"])
    listed = [path.relative_to(tmp_path).as_posix() for path in unpaired(tmp_path)]
    assert listed == ["2.tif", "b/9.PNG", "b/10.png", "b9/1.jpg", "b10/1.jpg"]


@pytest.mark.parametrize("made", [True, False])
def test_no_picture_is_an_error(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "there"
    if made:
        files(folder, ["notes.txt"])
    with pytest.raises(InputError, match="holds no readable image" if made else "is no folder"):
        unpaired(folder)


@pytest.mark.parametrize(
    ("inputs", "targets", "patterns", "pairs"),
    [
        (["1.jpg", "a/2.png"], ["a/2.tif", "1.png"], (), [("1.jpg", "1.png"), ("a/2.png", "a/2.tif")]),
        (["a/1x2.png"], ["a/1.png"], ("{stem}x2",), [("a/1x2.png", "a/1.png")]),
        (["1_9.png", "1_10.png"], ["1.png"], ("{stem}_*",), [("1_9.png", "1.png"), ("1_10.png", "1.png")]),
        (["5_rain.png"], ["5_clean.png"], ("{stem}_rain", "{stem}_clean"), [("5_rain.png", "5_clean.png")]),
    ],
)
def test_pairs(
    tmp_path: Path, inputs: list[str], targets: list[str], patterns: tuple[str, ...], pairs: list[tuple[str, str]]
) -> None:
    files(tmp_path / "in", inputs)
    files(tmp_path / "gt", targets)
    wanted = [Pair(tmp_path / "in" / one, tmp_path / "gt" / other) for one, other in pairs]
    assert paired(tmp_path / "in", tmp_path / "gt", *patterns) == wanted


@pytest.mark.parametrize(
    ("inputs", "targets", "patterns", "said"),
    [
        (["1.png", "2.png", "3.png"], ["1.png"], (), r"in.2\.png: has no target in .*gt \(2 such inputs\)"),
        (["1.png"], ["1.png", "7.png"], (), r"gt.7\.png: has no input in .*in \(1 such targets\)"),
        (["1.png"], ["1.png", "1.tif"], (), "is called like 1.png"),
        (["1.png"], ["1.png"], ("*",), "must stand in both"),
        (["1.png"], ["1.png"], ("{stem}", "x"), "must stand in both"),
    ],
)
def test_what_cannot_be_paired_is_named(
    tmp_path: Path, inputs: list[str], targets: list[str], patterns: tuple[str, ...], said: str
) -> None:
    files(tmp_path / "in", inputs)
    files(tmp_path / "gt", targets)
    with pytest.raises(InputError, match=said) as caught:
        paired(tmp_path / "in", tmp_path / "gt", *patterns)
    assert "\n" not in str(caught.value)


def test_pairs_of_a_layout(tmp_path: Path) -> None:
    split = Split(name="train", role="train", targets="gt/{n}.png", inputs="in/{n}x2.png")
    files(tmp_path, ["set/gt/1.png", "set/in/1x2.png"])
    assert split_pairs(split, tmp_path) == [Pair(tmp_path / "set/in/1x2.png", tmp_path / "set/gt/1.png")]
    files(tmp_path, ["set/in/2x2.png"])
    with pytest.raises(InputError, match=r"2x2\.png: has no partner \(1 such inputs"):
        split_pairs(split, tmp_path)
    with pytest.raises(InputError, match="holds no pairs"):
        split_pairs(split, tmp_path / "set" / "gt")


RAMP = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4) * 10


def test_samples_are_those_of_the_file(tmp_path: Path) -> None:
    rgb = torch.from_numpy(RAMP[..., :3].copy()).permute(2, 0, 1)
    for name, pixels, wanted in (
        ("rgb.png", RAMP[..., :3], rgb),
        ("alpha.png", RAMP, rgb),
        ("gray.png", RAMP[..., 0], rgb[:1].expand(3, -1, -1)),
        ("deep.png", RAMP[..., 0].astype(np.uint16) * 257 + 128, rgb[:1].expand(3, -1, -1)),
    ):
        Image.fromarray(pixels).save(tmp_path / name)
        found = read_rgb8(tmp_path / name)
        assert found.dtype == torch.uint8 and found.is_contiguous()
        assert torch.equal(found, wanted), name


def test_pictures_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(RAMP[..., :3]).save(tmp_path / "turned.png", exif=exif)
    assert read_rgb8(tmp_path / "turned.png").shape == (3, 3, 2)


def test_wide_colours_become_srgb(shared_data: Path) -> None:
    path = shared_data / "metadata" / "libjxl_widegamut" / "P3-sRGB-color-bars.png"
    if not path.is_file():
        pytest.skip("without the wide-gamut pictures")
    frame = read(path)
    assert frame.state.primaries == "p3"
    changed = (read_rgb8(path).float() - frame.pixels.float()).abs()
    assert changed.max() > 10, "numbers of another colour space are not taken for sRGB"
    assert changed.mean() < 30


@pytest.mark.parametrize("name", ["hdr/kimg_rgb.hdr", "raw/canon_d30.crw"])
def test_no_finished_picture_is_refused(shared_data: Path, name: str) -> None:
    if not (shared_data / name).is_file():
        pytest.skip(f"without {name}")
    with pytest.raises(InputError, match="use finished SDR pictures"):
        read_rgb8(shared_data / name)


@pytest.mark.parametrize("memory", [0, 700, 10**6])
def test_what_is_kept_changes_no_picture(tmp_path: Path, memory: int) -> None:
    generator = np.random.default_rng(1)
    for number in range(4):
        pixels = generator.integers(0, 256, (10, 10 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    paths = unpaired(tmp_path)
    pictures = Pictures(paths, memory=memory)
    assert len(pictures) == 4
    for index in (2, 0, 1, 3, 3, 0, 2, 1, -1):
        assert torch.equal(pictures[index], read_rgb8(paths[index]))
    with pytest.raises(IndexError):
        pictures[4]


def test_memory_is_a_bound(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(RAMP[..., :3] + number).save(tmp_path / f"{number}.png")
    pictures = Pictures(unpaired(tmp_path), memory=2 * 2 * 3 * 3)
    assert [pictures[index] is pictures[index] for index in range(3)] == [True, True, False]
