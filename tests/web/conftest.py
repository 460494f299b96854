"""A picture with metadata, and the page of a server of its own."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from restorekit.web.server import Server

pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'restorekit[web]'")

CAMERA = "Testcam of the web page"


def picture(seed: int, width: int = 96, height: int = 64) -> bytes:
    """A JPEG file of blurred noise that tells its camera."""
    rough = np.random.default_rng(seed).integers(10, 160, (8, 12, 3), dtype=np.uint8)
    image = Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x010F] = CAMERA
    data = io.BytesIO()
    image.save(data, "jpeg", quality=92, exif=exif)
    return data.getvalue()


@pytest.fixture
def photo(tmp_path: Path) -> Callable[..., Path]:
    """Writes ``picture`` files: ``photo("a.jpg", seed=1)``."""

    def write(name: str, seed: int = 1, width: int = 96, height: int = 64) -> Path:
        path = tmp_path / "photos" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(seed, width, height))
        return path

    return write


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A page that is served while the tests run."""
    from restorekit.web.server import Server
    from restorekit.web.settings import Settings

    with Server(port=free_port(), settings=Settings(device="cpu", upload_mb=4, megapixels=4, jobs=2)) as running:
        yield running
