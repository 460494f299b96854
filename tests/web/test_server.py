"""What a server lets out: its own page and what a visitor made, and nothing else of the machine."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from restorekit.errors import RestorekitError

if TYPE_CHECKING:
    from restorekit.web.server import Server


def get(url: str) -> tuple[int, bytes, dict[str, str]]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{here}",
        "{root}/../../etc/passwd",
        "{root}/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "pyproject.toml",
    ],
)
def test_files_of_the_machine_are_not_served(server: Server, path: str) -> None:
    status, body, _ = get(f"{server.url}gradio_api/file={path.format(here=Path(__file__), root=server.root)}")
    assert status in (400, 403, 404)
    assert b"root:" not in body and b"test_files_of_the_machine" not in body and b"[project]" not in body


def test_folders_of_visitors_are_not_listed_and_their_names_not_guessed(server: Server) -> None:
    folder = server.sessions.of("someone").folder
    assert len(folder.name) >= 24
    for path in (folder, folder.parent, server.root):
        assert get(f"{server.url}gradio_api/file={path}")[0] in (403, 404)


def test_every_answer_tells_the_browser_to_load_nothing_from_elsewhere(server: Server) -> None:
    for path in ("", "config", "theme.css", "gradio_api/file=/etc/passwd"):
        _, _, headers = get(server.url + path)
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy


def test_the_page_names_no_scripts_and_fonts_from_elsewhere(server: Server) -> None:
    _, body, _ = get(server.url)
    loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(https?:)?//([^\"]+)", body.decode())
    assert not [address for _, address in loaded if not address.startswith(("127.0.0.1", "localhost"))]
    assert b"fonts.googleapis" not in get(f"{server.url}theme.css")[1]


def test_uploads_beyond_the_limit_are_refused_and_not_kept(server: Server) -> None:
    before = {path for path in server.root.rglob("*") if path.is_file()}
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    body = head + b"\0" * (4 * 1024 * 1024 + 10) + b"\r\n--x--\r\n"
    wanted = urllib.request.Request(
        f"{server.url}gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(wanted, timeout=20)
    assert refused.value.code == 413
    assert {path for path in server.root.rglob("*") if path.is_file()} == before


def test_a_port_in_use_is_said(server: Server) -> None:
    from restorekit.web.server import Server

    port = int(server.url.rstrip("/").rpartition(":")[2])
    with pytest.raises(RestorekitError, match=f"port {port} of 127.0.0.1 cannot be used .* --port"):
        Server(port=port)
    assert get(server.url)[0] == 200


def test_without_gradio_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['gradio'] = None; sys.argv = ['restorekit', 'web']; "
    code += "from restorekit.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "the page needs one more package: pip install 'restorekit[web]'\n"


def test_the_command_serves_until_it_is_told_to_end_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "restorekit", "web", "--port", str(port), "--device", "cpu"]
    clean = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=clean, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        said = running.stderr.readline()
        assert said == f"open http://127.0.0.1:{port}/  (Ctrl-C ends it)\n"
        assert get(f"http://127.0.0.1:{port}/")[0] == 200
        assert list(tmp_path.glob("restorekit-web-*"))
        running.terminate()
        assert running.wait(60) == 0
    assert not list(tmp_path.glob("restorekit-web-*"))
