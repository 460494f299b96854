"""The page of a comparison holds its numbers and its pictures, and stands alone."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from restorekit import comparison_page
from restorekit.cli import app
from restorekit.color.transfer import encode
from restorekit.comparison_page import page, write_page
from restorekit.comparison_view import views
from restorekit.errors import InputError, OutputError
from restorekit.frame import Frame
from restorekit.metrics.compare import compare_frames
from restorekit.state import SHORTHANDS, ImageState

SCENE, PHOTO = SHORTHANDS["scene-linear"], SHORTHANDS["display-srgb"]
Samples = NDArray[np.uint8]


class Images(HTMLParser):
    """The embedded pictures of a page, by the class of their tag, in order, and the addresses that lead elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, list[Samples]] = {}
        self.outside: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        source = given.get("src") or given.get("href") or ""
        if not source.startswith("data:image/"):
            self.outside += [source] if source else []
            return
        with Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2]))) as image:
            self.found.setdefault(given.get("class") or "", []).append(np.asarray(image.convert("RGB")))


def photo(height: int = 60, width: int = 80, seed: int = 0) -> torch.Tensor:
    smooth = np.random.default_rng(seed).integers(0, 200, (height // 4, width // 4, 3), dtype=np.uint8)
    return torch.from_numpy(cv2.resize(smooth, (width, height))).permute(2, 0, 1)


def pair() -> tuple[Frame, Frame]:
    """A picture, and the same with a bright square at rows 20..30, columns 40..50."""
    first = photo()
    second = first.clone()
    second[:, 20:30, 40:50] = 255
    return Frame(first, PHOTO, source=Path("a.png")), Frame(second, PHOTO, source=Path("b.png"))


def made(first: Frame, second: Frame) -> str:
    return page(first, second, compare_frames(first, second), white_nits=203)


def interleaved(pixels: torch.Tensor) -> Samples:
    samples: Samples = pixels.permute(1, 2, 0).numpy()
    return samples


def test_both_pictures_are_in_it_pixel_by_pixel() -> None:
    first, second = pair()
    images = Images(made(first, second))
    assert np.array_equal(images.found["a"][0], interleaved(first.pixels))
    assert np.array_equal(images.found["b"][0], interleaved(second.pixels))
    assert len(images.found["a"]) == 1


def test_it_needs_nothing_from_elsewhere() -> None:
    text = made(*pair())
    assert not Images(text).outside
    assert not re.search(r"url\(|@import|https?://", text)


def test_all_measures_stand_in_it() -> None:
    first, second = pair()
    text = made(first, second)
    for name, value in compare_frames(first, second).items():
        assert f"<th>{name}</th><td>{comparison_page.as_text(value)}</td>" in text
    assert "80 x 60 px" in text and "rgb-display-srgb-bt709" in text
    assert "<th>psnr_db</th><td>equal</td>" in made(first, first)


def test_the_map_shows_where_they_differ() -> None:
    first, second = pair()
    brightness = Images(made(first, second)).found["map"][0].astype(int).sum(2)
    assert brightness.shape == (60, 80)
    outside = brightness.copy()
    outside[20:30, 40:50] = 0
    none = brightness[0, 0]
    assert brightness[20:30, 40:50].min() > none and set(np.unique(outside)) == {0, none}
    equal = Images(made(first, first)).found["map"][0]
    assert len(np.unique(equal.reshape(-1, 3), axis=0)) == 1


def test_names_are_escaped() -> None:
    first, second = pair()
    name = "<script>alert('x')</script> & \"c\" $title \udcff.png"
    text = made(first, Frame(second.pixels, PHOTO, source=Path(name)))
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text and "$title" in text
    assert Images(text).tags.count("script") == 1


def test_large_pictures_are_reduced_and_shown_in_full_where_they_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison_page, "LONG_EDGE_PX", 40)
    monkeypatch.setattr(comparison_page, "CROP_PX", 20)
    first, second = pair()
    text = made(first, second)
    images = Images(text)
    assert images.found["a"][0].shape == (30, 40, 3) and images.found["map"][0].shape == (30, 40, 3)
    left, top = map(int, re.findall(r"from column (\d+), row (\d+)", text)[0])
    assert (top, left) == (15, 35)  # the square lies in the middle
    for name, frame in (("a", first), ("b", second)):
        assert np.array_equal(images.found[name][1], interleaved(frame.pixels[:, top : top + 20, left : left + 20]))


def test_many_pixels_are_embedded_as_jpeg_which_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison_page, "PNG_PIXELS", 100)
    first, second = pair()
    text = made(first, second)
    assert "data:image/jpeg" in text and "JPEG of quality 95" in text
    shown = Images(text).found["a"][0].astype(int)
    assert np.abs(shown - interleaved(first.pixels)).mean() < 3


def test_light_is_shown_by_one_exposure_which_is_said() -> None:
    first = Frame(torch.rand(3, 30, 40, generator=torch.Generator().manual_seed(1)) * 4, SCENE, source=Path("a.exr"))
    second = Frame(first.pixels / 2, SCENE, source=Path("b.exr"))
    text = made(first, second)
    images = Images(text)
    assert "tone-mapped" in text and "ΔE ITP" in text
    assert images.found["a"][0].mean() > images.found["b"][0].mean() + 20
    one, two = views(first, second, scale=2.0, long_edge=2048)
    assert one.ev == two.ev and torch.equal(one.overview(2048), two.overview(2048))


def test_wide_gray_and_linear_pictures_become_srgb() -> None:
    linear = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(1))
    gray = Frame(linear, ImageState("gray", "display", "linear"))
    shown, _ = views(gray, gray, long_edge=2048)
    expected = encode(linear, "srgb").mul(255).round().to(torch.uint8).expand(3, -1, -1)
    assert torch.equal(shown.overview(2048), expected)
    wide = Frame(torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 20, 20), ImageState(primaries="p3"))
    shown, _ = views(wide, wide, long_edge=2048)
    assert shown.crop((0, 0, 2, 3))[:, 0, 0].tolist() == [255, 0, 0]


def test_a_file_of_light_and_a_picture_of_it_have_no_map() -> None:
    light = torch.rand(3, 170, 170, generator=torch.Generator().manual_seed(1)) * 3
    hdr = Frame(light, SCENE, source=Path("a.exr"))
    sdr = Frame((light / 3 * 255).to(torch.uint8), PHOTO, source=Path("b.png"))
    text = made(hdr, sdr)
    assert "tmqi" in text and "There is no map" in text and "map" not in Images(text).found


def test_colours_of_a_camera_cannot_be_shown() -> None:
    frame = Frame(torch.rand(3, 20, 20), ImageState("rgb", "scene", "linear", "camera"), source=Path("a.dng"))
    with pytest.raises(InputError, match=r"a\.dng: has camera primaries.*leave out --html"):
        views(frame, frame, long_edge=2048)


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    first, second = pair()
    measures = compare_frames(first, second)
    write_page(tmp_path / "c.html", first, second, measures, white_nits=203)
    assert (tmp_path / "c.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["c.html"]
    with pytest.raises(OutputError, match="there is no folder"):
        write_page(tmp_path / "none" / "c.html", first, second, measures, white_nits=203)


def test_the_command_writes_it_beside_its_other_answers(tmp_path: Path) -> None:
    for name, frame in zip(("a.png", "b.png"), pair(), strict=True):
        Image.fromarray(interleaved(frame.pixels)).save(tmp_path / name)
    files = [str(tmp_path / name) for name in ("a.png", "b.png")]
    target = tmp_path / "c.html"
    result = CliRunner().invoke(app, ["compare", *files, "--html", str(target), "--json"])
    assert result.exit_code == 0 and json.loads(result.stdout)["width"] == 80 and f"page: {target}" in result.stderr
    assert "ciede2000_mean" in target.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("target", "says"),
    [("", "is a folder"), ("none/c.html", "there is no folder"), ("a.png", "is one of the pictures")],
)
def test_a_page_that_cannot_be_written_is_told_first(target: str, says: str, tmp_path: Path) -> None:
    Image.fromarray(interleaved(photo())).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    source = str(tmp_path / "a.png")
    result = CliRunner().invoke(app, ["compare", source, source, "--html", str(tmp_path / target)])
    assert isinstance(result.exception, OutputError) and says in str(result.exception)
    assert (tmp_path / "a.png").read_bytes() == before
