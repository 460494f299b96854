"""Pictures over HTTP: a file is posted, the finished one comes back.

    pip install fastapi uvicorn
    python apps/http_service.py [--host 127.0.0.1] [--port 8000] [--largest-mb 200]
    curl --data-binary @photo.jpg 'http://127.0.0.1:8000/photo-enhance?name=photo.jpg&format=png' -o photo.png
    curl --data-binary @a.dng 'http://127.0.0.1:8000/raw-to-srgb?name=a.dng&set=tone.exposure.ev=0.5' -o a.tif

One picture at a time; more wait. Files are decoded in a child process and nothing of them is kept. There is no
password: put it behind a server that asks for one before others can reach it.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

import restorekit as rk
from restorekit.cli.run import assigned
from restorekit.jobs import plan
from restorekit.runner import Runner, RunOptions

TURN = threading.Lock()


def restored(pipeline: rk.Pipeline, content: bytes, name: str, extension: str | None) -> tuple[str, bytes]:
    """The first output of a pipeline for one file: its name and what is in it.

    Raises RestorekitError where the file cannot be used.
    """
    with TURN, tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder, "in", Path(name).name), Path(folder, "out")
        given.parent.mkdir()
        given.write_bytes(content)
        target = out / f"{given.stem}.{extension}" if extension else out
        wanted = plan(pipeline, [given], target)
        for _, report in Runner(pipeline, wanted, RunOptions(isolate=True)).run():
            if report.error:
                raise rk.RestorekitError(report.error.replace(f"{given.parent}/", ""))
            made = Path(report.outputs[0])
            return made.name, made.read_bytes()
    raise rk.RestorekitError(f"{name}: gives no picture")


def service(largest_mb: float) -> FastAPI:
    """The web application."""
    app = FastAPI(title="restorekit")

    @app.post("/{pipeline}")
    async def run(
        pipeline: str,
        request: Request,
        name: str,
        format: str | None = None,
        assignments: list[str] = Query(default=[], alias="set"),  # noqa: B008
    ) -> Response:
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > largest_mb * 1e6:
                raise HTTPException(413, f"{name}: is larger than {largest_mb:g} MB")
        if Path(pipeline).suffix:
            raise HTTPException(404, f"{pipeline}: name a shipped pipeline")
        try:
            changed = rk.Pipeline.load(pipeline)
            for text in assignments:
                changed = assigned(changed, text)
            title, picture = await run_in_threadpool(restored, changed, bytes(content), name, format)
        except rk.RestorekitError as error:
            raise HTTPException(422, str(error)) from None
        return Response(picture, headers={"Content-Disposition": f'attachment; filename="{title}"'})

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--largest-mb", type=float, default=200.0)
    options = parser.parse_args()
    uvicorn.run(service(options.largest_mb), host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
