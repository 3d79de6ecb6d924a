"""The picture server answers as the real web does, odd cases included."""

from __future__ import annotations

import http.client
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.world import server


def ask(base_url: str, path: str) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(base_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for path in ("pictures/a b.jpg", server.MOVED_TO[1:], server.NO_AI[1:], server.SLOW[1:]):
        (tmp_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / path).write_bytes(path.encode())
    (tmp_path / "secret.txt").write_text("not served")
    return tmp_path / "images"


def test_answers(images: Path) -> None:
    with server.serve(images) as running:
        assert running.base_url.startswith("http://127.0.0.1:")

        status, headers, body = ask(running.base_url, "/pictures/a%20b.jpg?w=300")
        assert (status, headers["Content-Type"], body) == (200, "image/jpeg", b"pictures/a b.jpg")
        assert "X-Robots-Tag" not in headers

        status, headers, _ = ask(running.base_url, server.MOVED)
        assert (status, headers["Location"]) == (302, server.MOVED_TO)
        assert ask(running.base_url, server.LOOP)[1]["Location"] == server.LOOP
        assert ask(running.base_url, server.NOT_AN_IMAGE)[1]["Content-Type"].startswith("text/html")
        assert ask(running.base_url, server.NO_AI)[1]["X-Robots-Tag"] == "noai"
        assert ask(running.base_url, server.SLOW)[2] == server.SLOW[1:].encode()
        assert ask(running.base_url, server.GONE)[0] == 404
        assert ask(running.base_url, "/../secret.txt")[0] == 404
        assert ask(running.base_url, "/pictures")[0] == 404
        assert running.requests[server.MOVED] == 1
        assert running.requests.total() == 9


def test_stops_with_its_context(images: Path) -> None:
    with server.serve(images) as running:
        pass
    with pytest.raises(ConnectionRefusedError):
        ask(running.base_url, "/pictures")


def test_pictures_may_come_after_the_start(tmp_path: Path) -> None:
    with server.serve(tmp_path / "later") as running:
        assert ask(running.base_url, "/a.jpg")[0] == 404
        (tmp_path / "later").mkdir()
        (tmp_path / "later" / "a.jpg").write_bytes(b"x")
        assert ask(running.base_url, "/a.jpg")[2] == b"x"
