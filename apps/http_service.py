"""Pictures over HTTP: a file is posted, the finished one comes back.

    pip install fastapi uvicorn
    python apps/http_service.py [--host 127.0.0.1] [--port 8000] [--largest-mb 200]
    curl --data-binary @photo.jpg 'http://127.0.0.1:8000/photo-enhance?name=photo.jpg&format=png' -o photo.png
    curl --data-binary @a.dng 'http://127.0.0.1:8000/raw-to-srgb?name=a.dng&set=tone.exposure.ev=0.5' -o a.tif

One picture at a time; more wait. Files are decoded in a child process and nothing of them is kept; parameters that name
files of the server are refused. There is no password: put it behind a server that asks for one before others can reach
it.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import uvicorn
import yaml
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

import restorekit as rk
from restorekit.jobs import plan
from restorekit.runner import Runner, RunOptions
from restorekit.web.drafts import shipped

TURN = threading.Lock()


def changed(name: str, assignments: Sequence[str]) -> rk.Pipeline:
    """A shipped pipeline with parameters set by STAGE.PARAM=VALUE; it may name no files, as on the web page.

    Raises RestorekitError for what cannot be set.
    """
    draft = shipped(name)
    steps = [part.params.get("id", part.name) for part in draft.parts]
    for text in assignments:
        address, _, value = text.partition("=")
        step, _, parameter = address.rpartition(".")
        if step not in steps:
            raise rk.RestorekitError(f"{text}: no step '{step}'; the pipeline has {', '.join(steps)}")
        try:
            draft = draft.set(steps.index(step), parameter, yaml.safe_load(value))
        except yaml.YAMLError:
            raise rk.RestorekitError(f"{text}: write STAGE.PARAM=VALUE, the value as in YAML") from None
    return draft.pipeline()


def restored(pipeline: rk.Pipeline, content: bytes, name: str, extension: str | None) -> tuple[str, bytes]:
    """The first output of a pipeline for one file: its name and what is in it.

    Raises RestorekitError where the file cannot be used.
    """
    for text, what in ((name, "name"), (extension or "any", "format")):
        if not text or text.startswith(".") or "/" in text or "\\" in text or "\0" in text:
            raise rk.RestorekitError(f"{what}={text}: is no plain {what}; write it without folders")
    with TURN, tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder, "in", name), Path(folder, "out")
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
        try:
            chosen = changed(pipeline, assignments)
            title, picture = await run_in_threadpool(restored, chosen, bytes(content), name, format)
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
