"""``restorekit web``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from restorekit.errors import RestorekitError, installing


def web(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Full-size runs at once; others wait.")] = 1,
    queue: Annotated[int, typer.Option(min=1, metavar="N", help="Requests that may wait; more are refused.")] = 16,
    max_upload: Annotated[int, typer.Option(min=1, metavar="MB", help="Refuse larger files.")] = 200,
    max_megapixels: Annotated[float, typer.Option(min=0.001, metavar="N", help="Refuse larger pictures unread.")] = 100,
) -> None:
    """Serve the page on which pipelines are tried in a browser. Ctrl-C ends it and removes all files of visitors."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads: idle threads sleep instead of spinning
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio loads
    try:
        from restorekit.web.server import serve
        from restorekit.web.settings import Settings
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "gradio":
            raise RestorekitError(f"the page needs one more package: {installing('web')}") from None
        raise
    settings = Settings(device, jobs, queue, max_upload, max_megapixels)
    serve(host, port, settings, tell=lambda url: typer.echo(f"open {url}  (Ctrl-C ends it)", err=True))
