"""A camera in the browser: a live preview through a pipeline, its exposure on a slider, and a shutter.

    python apps/camera_preview.py [SOURCE] [--pipeline photo-enhance] [--out pictures] [--port 8080] [--fps 15]

SOURCE is the number of a camera that OpenCV opens, a video file, or a folder of pictures (RAW files too) that is played
as a camera. The page is at http://127.0.0.1:PORT; pictures of the shutter are made in full size, in the background.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
import torch

import restorekit as rk
from restorekit.camera import CameraSession, Capture
from restorekit.evaluate import references

PAGE = """<!doctype html><meta name=viewport content="width=device-width"><title>restorekit camera</title>
<style>body{margin:0;background:#111;color:#ddd;font:16px sans-serif;text-align:center}
img{max-width:100%;max-height:80vh} button,input{font-size:1.2em;margin:.6em}</style>
<img src="/stream" alt="live preview"><br>
<label>Exposure <input type=range min=-3 max=3 step=.1 value=0
 oninput="fetch('/set?ev='+this.value,{method:'POST'})"></label>
<button onclick="fetch('/shutter',{method:'POST'}).then(r=>r.text()).then(t=>said.textContent=t)">Take it</button>
<p id=said></p>"""


def frames(source: str) -> Iterator[rk.Frame]:
    """The pictures of a camera, a video or a folder, without end but for the video's."""
    if Path(source).is_dir():
        yield from itertools.cycle([rk.read(path) for path in references(Path(source))])
    camera = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not camera.isOpened():
        raise rk.RestorekitError(f"{source}: is no camera, video or folder that opens; name another one")
    while (grabbed := camera.read())[0]:
        yield rk.Frame(torch.from_numpy(np.ascontiguousarray(grabbed[1][:, :, ::-1])).permute(2, 0, 1))


def jpeg(frame: rk.Frame) -> bytes:
    pixels = frame.pixels.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    return bytes(cv2.imencode(".jpg", pixels[:, :, ::-1])[1])


class Studio:
    """The camera, the session, and what was taken."""

    def __init__(self, source: str, pipeline: str, out: Path, fps: float) -> None:
        self.session = CameraSession(pipeline, preview=(1280, 720), budget_ms=1000 / fps)
        self.out, self.period_s = out, 1 / fps
        self.source = frames(source)
        self.latest = next(self.source)
        self.shown = jpeg(self.session.preview(self.latest))
        self.count = itertools.count(1)

    def run(self) -> None:
        """Show every frame, at the pace of the camera."""
        for frame in self.source:
            started = time.perf_counter()
            self.latest = frame
            self.shown = jpeg(self.session.preview(frame))
            time.sleep(max(0.0, self.period_s - (time.perf_counter() - started)))

    def shutter(self) -> str:
        """Take the frame that is seen; the picture is written when it is finished."""
        path = self.out / f"{next(self.count):04}.png"
        capture = self.session.capture(self.latest)
        capture.when_done(lambda done: self.write(done, path))
        return f"{path.name}: dropped, too many are waiting" if capture.dropped else f"{path.name} is being made"

    def write(self, capture: Capture, path: Path) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            rk.write(capture.result(), path)
            print(path, flush=True)
        except rk.RestorekitError as error:
            print(f"{path.name}: {error}", flush=True)


def handler(studio: Studio) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/stream":
                return self.answer(PAGE, "text/html; charset=utf-8")
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # until the page is closed
                while True:
                    self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + studio.shown + b"\r\n")
                    time.sleep(studio.period_s)

        def do_POST(self) -> None:
            asked = urlsplit(self.path)
            if asked.path == "/shutter":
                return self.answer(studio.shutter())
            studio.session.set("tone.exposure", ev=float(parse_qs(asked.query)["ev"][0]))
            return self.answer("set")

        def answer(self, text: str, kind: str = "text/plain") -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments: object) -> None:
            """Requests are not printed."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="0")
    parser.add_argument("--pipeline", default="photo-enhance")
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--fps", type=float, default=15.0)
    options = parser.parse_args()
    try:
        studio = Studio(options.source, options.pipeline, options.out, options.fps)
    except rk.RestorekitError as error:
        raise SystemExit(str(error)) from None
    server = ThreadingHTTPServer(("127.0.0.1", options.port), handler(studio))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    studio.run()


if __name__ == "__main__":
    main()
