"""Start and stop the page: where files lie, what may be loaded, and what a browser is told to leave alone."""

from __future__ import annotations

import atexit
import os
import signal
import tempfile
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from restorekit import device as devices
from restorekit.errors import RestorekitError
from restorekit.web.handlers import Handlers
from restorekit.web.page import build
from restorekit.web.sessions import Sessions
from restorekit.web.settings import MEGABYTE, Settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

STYLE = Path(__file__).parent / "style.css"

FOLDER = "GRADIO_TEMP_DIR"
"""The variable by which Gradio is told where uploads lie, of the whole process: one server a process at a time."""

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Sent with every answer: the page loads nothing from elsewhere, whatever a library of it would like to."""


class Headers:
    """ASGI middleware that adds :data:`HEADERS`."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        await self.app(scope, receive, guarded)


class Server:
    """A running page at ``url``. Use as a context manager, or close it: all files of all visitors are then removed."""

    def __init__(self, host: str = "127.0.0.1", port: int = 7860, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        devices.choose(self.settings.device)
        devices.keep_freed_memory()
        self.root = Path(tempfile.mkdtemp(prefix="restorekit-web-")).resolve()
        self._folder_before = os.environ.get(FOLDER)
        os.environ[FOLDER] = str(self.root)
        self.sessions = Sessions(self.root, self.settings)
        atexit.register(self.close)
        self._page = build(Handlers(self.sessions))
        self._page.queue(max_size=self.settings.queue, api_open=False)
        threading.Thread(target=self.sessions.warm, daemon=True, name="warm").start()
        try:
            _, self.url, _ = self._page.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                show_error=False,
                max_file_size=self.settings.upload_mb * MEGABYTE,
                allowed_paths=[],
                app_kwargs={"middleware": [(Headers, (), {})]},
                css_paths=[STYLE],
                theme=_theme(),
                footer_links=[],
                ssr_mode=False,
                enable_monitoring=False,
                mcp_server=False,
                pwa=False,
            )
        except OSError as error:
            self.close()
            raise RestorekitError(f"port {port} of {host} cannot be used ({error}); choose another by --port") from None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving and remove every file."""
        atexit.unregister(self.close)
        if hasattr(self, "_page"):
            self._page.close(verbose=False)
        self.sessions.close_all()
        os.environ.pop(FOLDER, None)
        if self._folder_before is not None:
            os.environ[FOLDER] = self._folder_before


def serve(
    host: str = "127.0.0.1",
    port: int = 7860,
    settings: Settings | None = None,
    tell: Callable[[str], None] | None = None,
) -> None:
    """Serve the page until it is interrupted; ``tell`` is told its address.

    Raises RestorekitError when the port cannot be used.
    """
    signal.signal(signal.SIGTERM, _end)
    with suppress(KeyboardInterrupt), Server(host, port, settings) as server:
        if tell is not None:
            tell(server.url)
        threading.Event().wait()


def _end(*_: object) -> None:
    """The end of a service is one like Ctrl-C; a second signal does not disturb the removing of files."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _theme() -> gr.themes.Base:
    """Fonts of the system only: those of other themes come from elsewhere."""
    return gr.themes.Default(
        primary_hue="teal",
        neutral_hue="zinc",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
        radius_size="sm",
        spacing_size="sm",
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
    )
