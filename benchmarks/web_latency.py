"""How long a visitor of the web page waits: from a dropped file to the picture, and from a slider to its preview.

    python benchmarks/web_latency.py PHOTO.jpg RAW_FILE [--moves 20] [--markdown FILE]

The server runs in a process of its own, the page in headless Chromium on the same machine. PHOTO goes through
photo-enhance, RAW_FILE through raw-to-srgb. "First preview" is from dropping the file to a preview in the page,
"result" from pressing the button to the files, "slider" the median from a new value to its preview in the page.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

WAIT_MS = 30_000
PAUSE_MS = 300
"""Between one value and the next, as a person looks."""

AFTER = "[...document.querySelectorAll('#slider img')].at(-1).src"


def shown(page: Page) -> Any:
    return page.evaluate(AFTER)


def until_changed(page: Page, before: Any) -> None:
    page.wait_for_function(f"before => {AFTER} != before", arg=before, timeout=WAIT_MS)


def visit(
    page: Page, url: str, file: Path, stage: str, parameter: str, base: float, moves: int
) -> tuple[float, float, float]:
    """Seconds to the first preview and to the result, and the median of a slider's previews."""
    page.goto(url)
    page.wait_for_selector(".rk-stage")
    started = time.perf_counter()
    page.set_input_files("#files input[type=file]", str(file))
    page.wait_for_selector("#state :text('reduced size')", timeout=WAIT_MS)
    first = time.perf_counter() - started
    inside = page.locator(".rk-stage", has_text=stage)
    inside.locator("button").first.click()
    field = inside.get_by_label(f"number input for {parameter}", exact=True)
    times = []
    for move in range(moves):
        page.wait_for_timeout(PAUSE_MS)
        before = shown(page)
        field.fill(f"{base + 0.05 * (move + 1):.2f}")
        started = time.perf_counter()
        field.press("Enter")
        until_changed(page, before)
        times.append(time.perf_counter() - started)
    started = time.perf_counter()
    page.click("#develop")
    page.wait_for_selector("#state .rk-info", timeout=WAIT_MS)
    return first, time.perf_counter() - started, statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("raw", type=Path)
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--port", type=int, default=7871)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("needs Chromium; install it first")
    command = [sys.executable, "-m", "restorekit", "web", "--port", str(options.port), "--device", "cpu"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    rows = ["| file | first preview, s | slider, ms | result, s |", "| --- | ---: | ---: | ---: |"]
    try:
        assert server.stderr is not None
        address = next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line)))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            cases = ((options.photo, "tone.curve", "contrast", 0.0), (options.raw, "tone.filmic", "contrast", 1.0))
            for file, stage, parameter, base in cases:
                page = browser.new_page(viewport={"width": 1360, "height": 900})
                first, result, slider = visit(page, address, file, stage, parameter, base, options.moves)
                rows.append(f"| {file.name} | {first:.2f} | {1e3 * slider:.0f} | {result:.1f} |")
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait()
    text = "\n".join(rows)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
