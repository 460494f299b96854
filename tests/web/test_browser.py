"""The page in a real browser, headless Chromium: what a visitor does, and what the visitor takes home."""

from __future__ import annotations

import io
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from restorekit.cli import app
from restorekit.web.sessions import Sessions

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from restorekit.web.server import Server

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WAIT_MS = 40_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"needs Chromium: none of {', '.join(PROGRAMS)} is installed, and CHROMIUM does not name one")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


class Visitor:
    """A person at the page, in a browser profile of their own."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.elsewhere: list[str] = []
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: self._note(request.url, url))
        page.goto(url)
        page.wait_for_selector(".rk-stage")

    def _note(self, address: str, url: str) -> None:
        if not address.startswith((url, "data:", "blob:")):
            self.elsewhere.append(address)

    def drop(self, *files: Path) -> None:
        self.page.set_input_files("#files input[type=file]", [str(path) for path in files])

    def dropped(self, *files: Path) -> None:
        """Drop files, and wait for their preview."""
        self.drop(*files)
        self.page.wait_for_selector(f"#brought .rk-brought:has-text('{files[0].name}')")
        self.page.wait_for_selector("#slider img")
        self.page.wait_for_selector("#state :text('reduced size'), #state :text('learned model')")

    def pick(self, element: str, text: str) -> None:
        self.page.click(f"#{element} input")
        self.page.get_by_role("option", name=re.compile(f"^[^a-zA-Z]*{re.escape(text)}(: |$)")).click()

    def pictures(self) -> list[str]:
        found: list[str] = self.page.eval_on_selector_all("#slider img", "all => all.map(each => each.src)")
        return found

    def set(self, stage: str, parameter: str, value: str) -> None:
        """Write a number beside a slider, and wait for the preview that follows."""
        before = self.pictures()
        inside = self.page.locator(".rk-stage", has_text=stage)
        inside.locator("button").first.click()
        field = inside.get_by_label(f"number input for {parameter}", exact=True)
        field.fill(value)
        field.press("Enter")
        self.page.wait_for_function(
            "before => String([...document.querySelectorAll('#slider img')].map(each => each.src)) != before",
            arg=",".join(before),
        )

    def yaml(self) -> str:
        self.page.get_by_role("button", name="Pipeline as YAML").click()
        lines = self.page.locator("#yaml .cm-line")
        lines.first.wait_for()
        return "\n".join(lines.all_inner_texts())

    def made(self, folder: Path) -> Path:
        """Press the button, and download the file that comes."""
        self.page.click("#develop")
        return self.downloaded(folder)

    def downloaded(self, folder: Path) -> Path:
        """The file that comes of a button that was pressed."""
        self.page.wait_for_selector("#state .rk-info")
        with self.page.expect_download() as download:
            self.page.locator("#made a").first.click()
        target = folder / download.value.suggested_filename
        download.value.save_as(target)
        return target


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Callable[[], Any]]:
    with contexts(browser, server) as enter:
        yield enter


@contextmanager
def contexts(browser: Browser, server: Server) -> Iterator[Callable[[], Visitor]]:
    opened = []

    def enter() -> Visitor:
        opened.append(browser.new_context(viewport={"width": 1200, "height": 800}))
        return Visitor(opened[-1].new_page(), server.url)

    yield enter
    for context in opened:
        context.close()


def by_command_line(yaml: str, files: list[Path], folder: Path) -> list[Path]:
    """What ``restorekit run mine.yaml in out`` makes of the same files."""
    inputs, pipeline = folder / "in", folder / "mine.yaml"
    inputs.mkdir(parents=True)
    pipeline.write_text(yaml)
    for path in files:
        shutil.copy(path, inputs)
    done = CliRunner().invoke(app, ["run", str(pipeline), str(inputs), str(folder / "out"), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    return [path for path in (folder / "out").iterdir() if path.is_file() and path.name != "report.json"]


def test_what_is_downloaded_is_what_the_command_line_makes_of_the_yaml_shown(
    visit: Callable[[], Visitor], photo: Callable[..., Path], tmp_path: Path
) -> None:
    visitor, original = visit(), photo("a.jpg")
    visitor.dropped(original)
    visitor.set("tone.curve", "contrast", "0.6")
    visitor.pick("formats", "PNG, 16 bit")
    visitor.page.wait_for_timeout(300)
    yaml = visitor.yaml()
    assert "contrast: 0.6" in yaml and "format: png, bits: 16" in yaml
    made = visitor.made(tmp_path)
    (expected,) = by_command_line(yaml, [original], tmp_path / "cli")
    assert made.name == f"{expected.stem}-photo-enhance.png"
    assert made.read_bytes() == expected.read_bytes()
    assert Image.open(made).getexif()[0x010F] == "Testcam of the web page"
    (other,) = by_command_line(yaml.replace("contrast: 0.6", "contrast: 0.1"), [original], tmp_path / "other")
    assert made.read_bytes() != other.read_bytes()
    assert visitor.elsewhere == []


def test_a_bracket_is_fused_as_by_the_command_line(
    visit: Callable[[], Visitor], photo: Callable[..., Path], tmp_path: Path
) -> None:
    files = [photo(f"{seed}.jpg", seed) for seed in (1, 2, 3)]
    visitor = visit()
    visitor.dropped(*files)
    yaml = visitor.yaml()
    assert "name: bracket-fusion" in yaml and "by: folder" in yaml
    made = visitor.made(tmp_path)
    (expected,) = by_command_line(yaml, files, tmp_path / "cli")
    assert made.read_bytes() == expected.read_bytes()


def test_a_slider_changes_the_picture_after_and_not_the_one_before(
    visit: Callable[[], Visitor], photo: Callable[..., Path]
) -> None:
    visitor = visit()
    visitor.dropped(photo("a.jpg"))
    first = visible(visitor)
    visitor.set("tone.curve", "white", "4")  # what was white becomes a quarter of it
    second = visible(visitor)
    assert first[0] == second[0]
    assert brightness(second[1]) < 0.75 * brightness(first[1])


def test_sliders_of_a_raw_file_beside_numbers_that_are_left_out(visit: Callable[[], Visitor], checkout: Path) -> None:
    sample = checkout / "docs" / "sample" / "lake.dng"
    if not sample.is_file():
        pytest.skip("this test reads the source tree")
    visitor = visit()
    visitor.dropped(sample)
    visitor.page.wait_for_selector(".rk-stage:has-text('tone.filmic')")
    first = visible(visitor)
    visitor.set("tone.filmic", "contrast", "2.5")
    assert visible(visitor)[1] != first[1]


def brightness(file: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(file)).convert("L")).mean())


def visible(visitor: Visitor, begin: bytes = b"\xff\xd8\xff") -> list[bytes]:
    """The bytes of the pictures of the slider, before and after."""
    found = [visitor.page.request.get(address).body() for address in visitor.pictures()]
    assert all(body.startswith(begin) for body in found)
    return found if len(found) == 2 else found[-2:]


def test_a_broken_file_says_why_and_the_page_goes_on(
    visit: Callable[[], Visitor], photo: Callable[..., Path], tmp_path: Path
) -> None:
    good = photo("good.jpg")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(good.read_bytes()[:900])
    done = CliRunner().invoke(app, ["run", "photo-enhance", str(broken), str(tmp_path / "out")])
    said = done.output.splitlines()[0].removeprefix("failed  ").replace(f"{tmp_path}/", "")
    visitor = visit()
    visitor.drop(broken)
    visitor.page.wait_for_selector("#brought .rk-problem")
    assert visitor.page.inner_text("#brought .rk-problem").strip() == said
    visitor.dropped(good)
    assert visitor.made(tmp_path).stat().st_size > 0


def test_the_download_stands_below_the_button(
    visit: Callable[[], Visitor], photo: Callable[..., Path], tmp_path: Path
) -> None:
    visitor = visit()
    visitor.dropped(photo("a.jpg", width=600, height=400))
    visitor.made(tmp_path)
    slider, button, download = (visitor.page.locator(part).bounding_box() for part in ("#slider", "#develop", "#made"))
    assert slider and button and download
    assert slider["height"] > 200 and button["y"] > slider["y"] + slider["height"] and download["y"] > button["y"]
    assert slider["x"] == download["x"] and download["height"] > 50


def test_stop_ends_a_run_and_the_next_one_works(
    visit: Callable[[], Visitor], photo: Callable[..., Path], tmp_path: Path, server: Server
) -> None:
    visitor = visit()
    visitor.dropped(photo("large.jpg", width=2000, height=1500))
    visitor.pick("pipeline", "denoise")
    visitor.page.wait_for_selector("#state :text('learned model')")
    visitor.page.click("#develop")
    visitor.page.wait_for_selector("#state :text('restore')")
    visitor.page.click("#cancel")
    visitor.page.wait_for_selector("#state :text('stopped before it was finished')")
    assert not visitor.page.locator("#made a").count()
    assert not list(server.root.rglob("out_*/*.png"))
    visitor.pick("pipeline", "photo-enhance")
    visitor.page.wait_for_selector("#state :text('reduced size')")
    assert visitor.made(tmp_path).suffix == ".jpg"


def test_two_visitors_at_once_do_not_meet(
    visit: Callable[[], Visitor], photo: Callable[..., Path], tmp_path: Path
) -> None:
    """Files of the same name, other pictures, other settings; one works while the other does."""
    files = [photo("same.jpg", seed=1)]
    (tmp_path / "b").mkdir()
    files.append(tmp_path / "b" / "same.jpg")
    files[1].write_bytes(photo("other.jpg", seed=2).read_bytes())
    visitors = [visit(), visit()]
    for visitor, file in zip(visitors, files, strict=True):
        visitor.dropped(file)
    visitors[0].set("tone.curve", "contrast", "0.8")
    for visitor in visitors:
        visitor.page.click("#develop")
    for number, (visitor, file) in enumerate(zip(visitors, files, strict=True)):
        folder = tmp_path / f"visitor{number}"
        folder.mkdir()
        yaml = visitor.yaml()
        made = visitor.downloaded(folder)  # pressed again, the button would replace it meanwhile
        (expected,) = by_command_line(yaml, [file], folder / "cli")
        assert made.read_bytes() == expected.read_bytes()
        assert ("contrast: 0.8" in yaml) == (number == 0)


def test_files_of_a_visitor_go_when_the_tab_is_closed(
    visit: Callable[[], Visitor], photo: Callable[..., Path], server: Server
) -> None:
    visitor = visit()
    visitor.dropped(photo("mine.jpg"))
    mine = list(server.root.rglob("mine.jpg"))
    assert mine
    visitor.page.close()
    for _ in range(100):
        if not any(path.exists() for path in mine):
            return
        time.sleep(0.2)
    pytest.fail("the files are still there")


def test_a_failed_drop_leaves_nothing_of_the_picture_before(
    visit: Callable[[], Visitor], photo: Callable[..., Path], tmp_path: Path
) -> None:
    visitor = visit()
    visitor.dropped(photo("good.jpg"))
    visitor.made(tmp_path)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    visitor.drop(broken)
    visitor.page.wait_for_selector("#brought .rk-problem")
    visitor.page.wait_for_selector("#state :text('drop a readable picture first')")
    for gone in ("#slider img", "#made a", "#detail", "#histogram svg", "#made-with b"):
        assert not visitor.page.locator(gone).count()
    visitor.page.click("#develop")
    visitor.page.wait_for_selector("#state .rk-problem:has-text('drop a readable picture first')")


def test_menus_may_be_open_while_the_pipeline_changes_and_results_say_what_made_them(
    visit: Callable[[], Visitor], photo: Callable[..., Path], tmp_path: Path
) -> None:
    visitor = visit()
    failed: list[str] = []
    visitor.page.on("pageerror", lambda error: failed.append(str(error)))
    visitor.dropped(photo("a.jpg"))
    visitor.made(tmp_path)
    assert visitor.page.inner_text("#made-with").strip() == "Made with photo-enhance."
    visitor.pick("pipeline", "upscale-x4")
    visitor.page.click("#formats input")
    visitor.page.wait_for_selector("#state :text('learned model')")
    visitor.page.get_by_role("option", name="EXR, linear light").click()
    visitor.page.wait_for_selector("#state .rk-problem:has-text('EXR, linear light cannot hold')")
    assert visitor.page.input_value("#formats input") == "The pipeline's own"
    assert "changed since" in visitor.page.inner_text("#made-with")
    assert failed == []


def test_files_dropped_while_others_are_read_are_taken(
    visit: Callable[[], Visitor], photo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = threading.Event()
    decoded = Sessions.decoded

    def slow(sessions: Sessions, path: Path, headerless: Any = None) -> Any:
        going_on.wait(WAIT_MS / 1000)
        return decoded(sessions, path, headerless)

    monkeypatch.setattr(Sessions, "decoded", slow)
    visitor = visit()
    visitor.drop(*(photo(f"{seed}.jpg", seed) for seed in (1, 2, 3)))
    visitor.page.wait_for_selector("#state :text('Reading 3 files')")
    visitor.drop(photo("last.jpg", seed=4))
    visitor.page.wait_for_selector("#state :text('Reading 1 file')")
    going_on.set()
    visitor.page.wait_for_selector("#brought .rk-brought:has-text('last.jpg')")
    visitor.page.wait_for_selector("#slider img")


def test_stages_that_are_open_stay_open_when_a_picture_comes(
    visit: Callable[[], Visitor], photo: Callable[..., Path]
) -> None:
    visitor = visit()
    visitor.dropped(photo("a.jpg"))
    visitor.set("tone.curve", "contrast", "0.6")
    visitor.dropped(photo("b.jpg", seed=2))
    visitor.page.wait_for_timeout(500)
    field = visitor.page.get_by_label("number input for contrast", exact=True)
    assert field.is_visible() and field.input_value() == "0.6"


def test_a_learned_model_is_previewed_while_its_sliders_move(
    visit: Callable[[], Visitor], photo: Callable[..., Path]
) -> None:
    visitor = visit()
    visitor.dropped(photo("a.jpg", width=500, height=400))
    visitor.pick("pipeline", "denoise")
    visitor.page.wait_for_selector("#state :text('on 256x256 px in the middle')")
    visitor.page.wait_for_selector(".rk-stage:has-text('restore')")
    before, after = visible(visitor, b"\x89PNG")
    visitor.set("restore", "amount", "0")
    assert visible(visitor, b"\x89PNG")[0] == before != after
    assert np.array_equal(*(np.asarray(Image.open(io.BytesIO(each))) for each in visible(visitor, b"\x89PNG")))


def test_numbers_beyond_the_ends_of_a_slider_are_its_end_and_those_of_a_pipeline_stay(
    visit: Callable[[], Visitor], photo: Callable[..., Path]
) -> None:
    visitor = visit()
    visitor.dropped(photo("a.jpg"))
    visitor.set("tone.curve", "white", "12")
    field = visitor.page.get_by_label("number input for white", exact=True)
    field.blur()
    visitor.page.wait_for_timeout(500)
    assert field.input_value() == "4"
    assert "white: 4.0" in visitor.yaml()
    visitor.pick("pipeline", "hdr-to-display")
    visitor.page.wait_for_selector(".rk-stage:has-text('tone.bt2390')")
    visitor.page.locator(".rk-stage", has_text="tone.exposure").locator("button").first.click()
    least = visitor.page.get_by_label("number input for min (EV)", exact=True)
    least.wait_for()
    assert least.input_value() == "-20"  # as the pipeline says, beyond the usual range
