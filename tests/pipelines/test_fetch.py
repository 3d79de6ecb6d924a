"""fetch_all against a local server that answers byte by byte what the test says."""

from __future__ import annotations

import gzip
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import fetch
from pipelines.fetch import FetchConfig, Fetched, fetch_all, is_public
from tests.pipelines.raw_server import BODY, Server, answer, drip, endless, in_turn, redirect, reset, silence
from tests.ports import free_ports

#: Everything fast, loopback allowed: what single tests change they name.
QUICK: dict[str, Any] = {
    "allow_private": True,
    "timeout_s": 10.0,
    "backoff_s": 0.01,
    "max_pause_s": 1.5,
    "retries": 0,
    "max_bytes": 100_000,
}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.routes["ok"] = answer()
    yield server
    server.stop()


def config(**options: Any) -> FetchConfig:
    return FetchConfig(**QUICK | options)


def fetched(*urls: str, **options: Any) -> list[Fetched]:
    results = list(fetch_all(urls, config(**options)))
    assert [result.index for result in results] == list(range(len(urls)))
    assert all((result.body is None) == bool(result.reason) for result in results)
    return results


def reason_of(url: str, **options: Any) -> str:
    return fetched(url, **options)[0].reason


# --- what is asked, and how ---


def test_a_body_comes_as_it_is(server: Server) -> None:
    assert fetched(server.url("ok")) == [Fetched(0, BODY, "", "")]


def test_no_urls_give_no_results() -> None:
    assert fetched() == []


def test_the_request_names_the_fetcher_and_carries_nothing_else(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    server.routes["cookie"] = answer("Set-Cookie: a=b; Path=/")
    fetched(server.url("cookie"), server.url("ok"), per_host=1, contact="https://example.org/bot")
    assert sorted(server.paths()) == ["/cookie", "/ok"]
    for request in server.requests:
        headers = dict(line.split(": ", 1) for line in request.split("\r\n")[1:] if line)
        assert headers.keys() == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}
        assert headers["User-Agent"] == "worldclip (+https://example.org/bot)"
        assert headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "no_url"),
        (" ", "no_url"),
        ("no url at all", "scheme"),
        ("//example.com/a.jpg", "scheme"),
        ("ftp://example.com/a.jpg", "scheme"),
        ("data:image/gif;base64,R0lGODlhAQABAAAAACw=", "scheme"),
        ("javascript:alert(1)", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("http://", "invalid_url"),
        ("http:///a.jpg", "invalid_url"),
        ("http://[::1/a.jpg", "invalid_url"),
        ("http://example.com:99999/a.jpg", "invalid_url"),
        ("http://example.com:port/a.jpg", "invalid_url"),
        ("http://user:secret@example.com/a.jpg", "invalid_url"),
        ("http://user@example.com/a.jpg", "invalid_url"),
        ("http://:secret@example.com/a.jpg", "invalid_url"),
        ("http://@example.com\\@127.0.0.1/", "invalid_url"),
        ("http://example.com/" + "a" * 9000, "invalid_url"),
        ("http://" + "a" * 70 + ".example/", "invalid_url"),
        ("http://a..b/", "invalid_url"),
        ("http://\ud800.example/", "invalid_url"),
        ("http://example.com:22/a.jpg", "port"),
        ("https://example.com:25/a.jpg", "port"),
        ("http://example.com:0/a.jpg", "port"),
    ],
)
def test_a_url_that_is_never_asked(url: str, reason: str) -> None:
    assert reason_of(url) == reason


# --- addresses ---

PRIVATE = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.255 169.254.0.1 169.254.169.254 172.16.0.1
    172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1
    239.255.255.250 240.0.0.1 255.255.255.255 168.63.129.16
    :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::10.0.0.1
    64:ff9b:1::808:808 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:db8::1 2002:7f00:1::1 2002:a00:1:: 2002:808:808::1 3fff::1
    5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1
"""
PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0 172.15.255.255
    172.32.0.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 168.63.129.15
    2606:4700::1111 2a00:1450:4001::1 2001:4860:4860::8888 ::ffff:8.8.8.8 64:ff9b::8.8.8.8
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_an_address_that_is_public(address: str) -> None:
    assert is_public(address)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6), st.sampled_from(PRIVATE.split()).map(ip_address)))
def test_no_address_is_public_that_python_calls_otherwise(ip: IPv4Address | IPv6Address) -> None:
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    if is_public(str(ip)):
        assert (mapped or ip).is_global
        assert not (mapped or ip).is_multicast


@pytest.mark.parametrize("text", ["", "localhost", "0177.0.0.1", "2130706433", "0x7f.1", "127.1", "8.8.8.8 ", "8.8.8.08", "8.8.8.8/32"])
def test_what_is_not_a_canonical_address_is_not_public(text: str) -> None:
    assert not is_public(text)


LOOPBACK_SPELLINGS = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7F.1", "0177.0.0.1", "017700000001", "0", "[::ffff:127.0.0.1]"]


@pytest.mark.parametrize("host", [*LOOPBACK_SPELLINGS, "localhost", "LOCALHOST", "[::1]", "[::]", "１２７.０.０.１", "①②⑦.0.0.1"])
def test_loopback_in_any_spelling_is_refused(server: Server, host: str) -> None:
    assert reason_of(server.url("ok", host=host), allow_private=False) == "private_address"
    assert server.requests == []


@pytest.mark.parametrize("host", [host for host in LOOPBACK_SPELLINGS if host != "[::ffff:127.0.0.1]"])
def test_the_same_spellings_reach_the_server_where_private_addresses_are_allowed(server: Server, host: str) -> None:
    assert reason_of(server.url("ok", host=host)) == ""


@pytest.mark.parametrize("host", ["127.0.0.1.", "127.0.0.1..", "127.0.0.1.localdomain.", "0127.0.0.1.", "1.2.3.4.5", "256.256.256.256"])
def test_a_host_that_only_looks_like_an_address_reaches_nothing(server: Server, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "lookup", lambda *_: [(socket.AF_INET, "127.0.0.1")])
    assert reason_of(server.url("ok", host=host), allow_private=False) in {"private_address", "invalid_url"}
    assert server.requests == []


@pytest.mark.parametrize("address", PRIVATE.split())
def test_a_name_that_resolves_to_a_private_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    monkeypatch.setattr(fetch, "lookup", lambda *_: [(family, address)])
    assert reason_of("http://images.example/a.jpg", allow_private=False) == "private_address"


@pytest.fixture
def public_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on 127.0.0.2, which counts as public here; the name ``public.example`` is it."""
    real = is_public
    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.2" or real(address))
    monkeypatch.setattr(fetch, "lookup", lambda *_: [(socket.AF_INET, "127.0.0.2")])
    server = Server("127.0.0.2")
    server.routes["ok"] = answer()
    yield server
    server.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:7f00:1]", "169.254.169.254", "10.0.0.1"])
def test_a_redirect_to_a_private_address_is_refused(public_server: Server, server: Server, host: str) -> None:
    public_server.routes["away"] = redirect(server.url("ok", host=host))
    results = fetched(public_server.url("away", "public.example"), public_server.url("ok", "127.0.0.2"), allow_private=False)
    assert [result.reason for result in results] == ["private_address", ""]
    assert server.requests == []


def test_a_name_is_judged_by_the_very_address_that_is_asked(public_server: Server, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    # Rebinding: public when first looked up, private ever after.
    answers = itertools.chain(["127.0.0.2"], itertools.repeat("127.0.0.1"))
    monkeypatch.setattr(fetch, "lookup", lambda *_: [(socket.AF_INET, next(answers))])
    public_server.routes["ok"] = redirect(server.url("ok", "rebinding.example"))
    assert reason_of(public_server.url("ok", "rebinding.example"), allow_private=False) == "private_address"
    assert (len(public_server.requests), server.requests) == (1, [])


def test_private_addresses_among_public_ones_are_left_out(public_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.2")]
    monkeypatch.setattr(fetch, "lookup", lambda *_: found)
    assert reason_of(public_server.url("ok", "mixed.example"), allow_private=False) == ""


def test_the_socket_is_refused_even_when_the_resolver_lets_an_address_through(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = iter([True, False])
    monkeypatch.setattr(fetch, "is_public", lambda _: next(verdicts))
    monkeypatch.setattr(fetch, "lookup", lambda *_: [(socket.AF_INET, "127.0.0.1")])
    assert reason_of(server.url("ok", "images.example"), allow_private=False) == "private_address"
    assert server.requests == []


# --- redirects ---


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_redirects_are_followed(server: Server, status: str) -> None:
    server.routes |= {"a": redirect("/b?x=1", status), "b": redirect("ok#part", status)}
    assert fetched(server.url("a")) == [Fetched(0, BODY, "", "")]
    assert server.paths() == ["/a", "/b?x=1", "/ok"]


def test_a_redirect_of_raw_bytes_is_asked_for_these_bytes(server: Server) -> None:
    server.routes |= {"a": redirect("/caf\xe9"), "b": redirect("/caf\u00c3\u00a9"), "caf%E9": answer(), "caf%C3%A9": answer()}
    assert [result.reason for result in fetched(server.url("a"), server.url("b"), per_host=1)] == ["", ""]
    assert sorted(server.paths()) == ["/a", "/b", "/caf%C3%A9", "/caf%E9"]


def test_the_number_of_redirects_is_limited_exactly(server: Server) -> None:
    server.routes |= {f"{n}": redirect(f"/{n + 1}") for n in range(4)} | {"4": answer()}
    results = fetched(server.url("0"), server.url("1"), max_redirects=3, per_host=1)
    assert [result.reason for result in results] == ["too_many_redirects", ""]
    assert reason_of(server.url("3"), max_redirects=0) == "too_many_redirects"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/passwd", "scheme"),
        ("gopher://127.0.0.1/", "scheme"),
        ("http://user:secret@127.0.0.1/", "invalid_url"),
        ("http://[::1/", "invalid_url"),
        ("http://127.0.0.1:6/", "port"),
        ("//127.0.0.1:22/", "port"),
        ("/" + "a" * 8000, "failed"),
    ],
)
def test_a_redirect_is_checked_like_a_first_url(server: Server, location: str, reason: str) -> None:
    server.routes["away"] = redirect(location)
    got = reason_of(server.url("away"), allow_files=True)
    assert got == reason or (reason == "failed" and got in {"protocol", "connection"})


def test_a_redirect_without_a_place_is_its_status(server: Server) -> None:
    server.routes["away"] = answer(status="302 Found")
    assert reason_of(server.url("away")) == "http_3xx"


def test_all_redirects_together_have_one_timeout(server: Server) -> None:
    def slowly(connection: socket.socket) -> None:
        server.over.wait(0.3)
        redirect("/slowly")(connection)

    server.routes["slowly"] = slowly
    assert reason_of(server.url("slowly"), timeout_s=0.8, max_redirects=50) == "timeout"
    assert len(server.requests) <= 3


# --- answers ---


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("204 No Content", "http_2xx"),
        ("206 Partial Content", "http_2xx"),
        ("304 Not Modified", "http_3xx"),
        ("403 Forbidden", "http_4xx"),
        ("404 Not Found", "http_4xx"),
        ("501 Oops", "http_5xx"),
        ("999 Denied", "http_other"),
    ],
)
def test_other_statuses_are_grouped(server: Server, status: str, reason: str) -> None:
    server.routes["page"] = answer(status=status, body=b"")
    assert fetched(server.url("page"), retries=2) == [Fetched(0, None, reason, status[:3])]
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "TEXT/CSS", "application/json", "video/mp4", "audio/mpeg"])
def test_what_is_announced_as_something_else_is_refused(server: Server, kind: str) -> None:
    server.routes["page"] = answer(f"Content-Type: {kind}")
    assert reason_of(server.url("page")) == "not_an_image_type"


@pytest.mark.parametrize(
    "kind",
    [
        *("image/jpeg", "IMAGE/PNG; q=1", "image", "jpg", "binary/octet-stream", "application/octet-stream", ";", ""),
        *("application/force-download", "application/jpg", "application/unknown", "text/plain", "text", "\xff"),
    ],
)
def test_what_may_be_an_image_is_left_to_the_decoder(server: Server, kind: str) -> None:
    server.routes["page"] = answer(f"Content-Type: {kind}")
    assert reason_of(server.url("page")) == ""


@pytest.mark.parametrize(
    "headers",
    [
        ["X-Robots-Tag: noai"],
        ["X-Robots-Tag: noindex, NoImageAI"],
        ["x-robots-tag:noimageai"],
        ["X-Robots-Tag: otherbot: noindex, noai"],
        ["X-Robots-Tag: worldclip: noai"],
        ["X-Robots-Tag: noindex", "X-Robots-Tag: noai"],
    ],
)
def test_an_opt_out_is_respected_unless_told_otherwise(server: Server, headers: list[str]) -> None:
    server.routes |= {"page": answer(*headers), "moved": answer("Location: /ok", *headers, status="301 Moved")}
    urls = [server.url("page"), server.url("moved")]
    assert [result.reason for result in fetched(*urls)] == ["opt_out", "opt_out"]
    assert [result.reason for result in fetched(*urls, respect_opt_out=False)] == ["", ""]


@pytest.mark.parametrize("value", ["all", "noindex, nofollow", "noairplay", "unavailable_after: 25 Jun 2030 15:00:00 PST"])
def test_other_robots_tags_are_no_opt_out(server: Server, value: str) -> None:
    server.routes["page"] = answer(f"X-Robots-Tag: {value}")
    assert reason_of(server.url("page")) == ""


def test_a_compressed_answer_is_refused_undecoded(server: Server) -> None:
    bomb = gzip.compress(bytes(5_000_000))
    server.routes |= {
        "bomb": answer("Content-Encoding: gzip", body=bomb),
        "two": answer("Content-Encoding: identity", "Content-Encoding: GZIP", body=bomb),
        "list": answer("Content-Encoding: identity, br", body=bomb),
        "plain": answer("Content-Encoding: identity"),
        "file": answer("Content-Type: image/jpeg", body=bomb),
    }
    results = fetched(*[server.url(name) for name in ("bomb", "two", "list", "plain", "file")])
    assert [result.reason for result in results] == ["content_encoding"] * 3 + ["", ""]
    assert results[4].body == bomb


def test_the_size_limit_is_exact_and_counted_while_reading(server: Server) -> None:
    endless_chunk = endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + bytes(4096) + b"\r\n")
    server.routes |= {
        "exact": answer(body=bytes(1000)),
        "more": answer(body=bytes(1001)),
        "announced": answer(length=1001, body=b""),
        "unannounced": lambda connection: connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + bytes(1001)),
        "chunked": endless_chunk,
        "endless": endless(b"HTTP/1.1 200 OK\r\n\r\n", bytes(4096)),
        "header": endless(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 4096),
        "headers": endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 99),
    }
    got = {name: reason_of(server.url(name), max_bytes=1000) for name in server.routes if name != "ok"}
    assert got.pop("header") in {"protocol", "connection", "failed"}
    assert got.pop("headers") in {"protocol", "connection", "failed"}
    assert got == {"exact": ""} | dict.fromkeys(["more", "announced", "unannounced", "chunked", "endless"], "too_large")


def test_a_content_length_that_lies(server: Server) -> None:
    server.routes |= {"short": answer(length=len(BODY) + 5), "long": answer(length=4), "none": answer("Content-Length: x")}
    assert reason_of(server.url("short")) == "connection"
    # What follows the announced length never becomes part of a body or the next answer: no connection is used twice.
    long, after = fetched(server.url("long"), server.url("ok"), per_host=1)
    assert long in (Fetched(0, BODY[:4], "", ""), Fetched(0, None, "protocol", long.detail))
    assert after.body == BODY
    assert reason_of(server.url("none")) == "protocol"


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b"HTTP/1.1 200\r\nbad header\r\n\r\n"])
def test_what_is_not_http(server: Server, reply: bytes) -> None:
    server.routes["odd"] = lambda connection: connection.sendall(reply)
    assert reason_of(server.url("odd")) == ("protocol" if reply else "connection")


def test_dead_hosts(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_host(*_: object) -> list[tuple[int, str]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(fetch, "lookup", no_such_host)
    urls = [
        "http://gone.example/a.jpg",
        f"http://127.0.0.1:{free_ports(1)[0]}/",
        server.url("ok").replace("http", "https"),
        server.url("ok"),
    ]
    assert [result.reason for result in fetched(*urls)] == ["dns", "refused", "tls", ""]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.EAI_NONAME, "dns"),
        (socket.EAI_NODATA, "dns"),
        (socket.EAI_AGAIN, "name_server"),
        (socket.EAI_FAIL, "name_server"),
        (socket.EAI_SYSTEM, "name_server"),
    ],
)
def test_a_host_that_is_gone_is_told_from_a_name_server_that_is(error: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> list[tuple[int, str]]:
        raise socket.gaierror(error, "says the resolver")

    monkeypatch.setattr(fetch, "lookup", fails)
    assert reason_of("http://images.example/a.jpg") == reason


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n"])
def test_a_server_that_drips_ends_by_the_timeout(server: Server, head: bytes) -> None:
    server.routes["slow"] = drip(server, head)
    server.routes["silent"] = silence(server)
    assert [result.reason for result in fetched(server.url("slow"), server.url("silent"), timeout_s=0.4)] == ["timeout", "timeout"]


# --- retries ---


@pytest.mark.parametrize(
    "trouble",
    [
        *(answer(status=f"{status} Later") for status in (408, 425, 429, 500, 502, 503, 504)),
        *(reset, answer(length=999)),
    ],
)
def test_what_can_be_retried_is_retried_as_often_as_said(server: Server, trouble: Callable[[socket.socket], None]) -> None:
    server.routes["page"] = in_turn(trouble, trouble, answer())
    assert reason_of(server.url("page"), retries=2) == ""
    assert len(server.requests) == 3
    server.routes["page"] = in_turn(trouble, trouble, answer())
    assert reason_of(server.url("page"), retries=1) in {"busy", "http_5xx", "connection"}
    assert len(server.requests) == 5


def test_a_timeout_and_a_busy_name_server_are_retried(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()

    def lookup(*_: object) -> list[tuple[int, str]]:
        if next(calls) == 0:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, "127.0.0.1")]

    monkeypatch.setattr(fetch, "lookup", lookup)
    server.routes["page"] = in_turn(silence(server), answer())
    assert reason_of(server.url("page", "images.example"), retries=2, timeout_s=0.4) == ""
    assert len(server.requests) == 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for(server: Server, form: str) -> None:
    asked: list[float] = []

    def noted(reply: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
        def send(connection: socket.socket) -> None:
            asked.append(time.monotonic())
            reply(connection)

        return send

    value = "1" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    server.routes["page"] = in_turn(noted(answer(f"Retry-After: {value}", status="429 Slow Down")), noted(answer()))
    assert reason_of(server.url("page"), retries=1, max_pause_s=5) == ""
    assert asked[1] - asked[0] > 0.9


def test_a_host_that_wants_a_longer_pause_is_left_alone(server: Server) -> None:
    server.routes["page"] = answer("Retry-After: 3600", status="429 Slow Down")
    results = fetched(*[server.url("page")] * 5, per_host=1, retries=2)
    assert [result.reason for result in results] == ["busy"] + ["host_down"] * 4
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "value",
    ["", "soon", "-5", "1e9", "\xff", "Wed, 99 Foo 2030 99:99:99 GMT", "Fri, 01 Jan 99999999999999999999 00:00:00 GMT"],
)
def test_an_unreadable_retry_after_counts_as_none(server: Server, value: str) -> None:
    server.routes["page"] = in_turn(answer(f"Retry-After: {value}", status="503 Busy"), answer())
    assert reason_of(server.url("page"), retries=1) == ""


def test_a_page_that_fails_does_not_make_its_host_one_that_is_down(server: Server) -> None:
    server.routes["odd"] = answer(status="500 Oops")
    results = fetched(*[server.url("odd")] * 4, server.url("ok"), per_host=1, retries=1, host_failures=3)
    assert [result.reason for result in results] == ["http_5xx"] * 4 + [""]
    assert len(server.requests) == 9


def test_a_host_that_never_answers_is_given_up(server: Server) -> None:
    server.routes["dead"] = reset
    urls = [server.url("dead")] * 20 + [server.url("ok", "localhost")]
    results = fetched(*urls, per_host=1, host_failures=4)
    assert [result.reason for result in results] == ["connection"] * 4 + ["host_down"] * 16 + [""]
    assert len(server.requests) == 5


def test_an_answer_forgives_the_failures_before_it(server: Server) -> None:
    server.routes["odd"] = in_turn(*[reset, reset, answer(status="404 Gone")] * 4)
    results = fetched(*[server.url("odd")] * 12, per_host=1, host_failures=3)
    assert [result.reason for result in results] == ["connection", "connection", "http_4xx"] * 4


# --- many at a time ---


def waits(server: Server, seconds: float) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        server.over.wait(seconds)
        answer()(connection)

    return send


@pytest.mark.parametrize(("per_host", "concurrency", "most"), [(3, 64, 3), (99, 5, 5)])
def test_no_more_requests_at_a_time_than_said(server: Server, per_host: int, concurrency: int, most: int) -> None:
    lock = threading.Lock()
    running: set[int] = set()
    seen: list[int] = []

    def counted(connection: socket.socket) -> None:
        with lock:
            running.add(connection.fileno())
            seen.append(len(running))
        server.over.wait(0.1)
        with lock:
            running.remove(connection.fileno())
        answer()(connection)

    server.routes["page"] = counted
    fetched(*[server.url("page")] * 20, per_host=per_host, concurrency=concurrency)
    assert max(seen) == most


def test_a_slow_host_does_not_hold_up_the_others(public_server: Server) -> None:
    finished = threading.Event()

    def until_the_others_are_served(connection: socket.socket) -> None:
        if finished.wait(5):
            answer()(connection)

    def count(connection: socket.socket) -> None:
        answer()(connection)
        if public_server.paths().count("/fast") == 40:
            finished.set()

    public_server.routes |= {"slow": until_the_others_are_served, "fast": count}
    # 30 URLs of a slow host come first, more than there are slots; the others must be served while the slow ones wait.
    urls = [public_server.url("slow", "slow.example")] * 30
    urls += [public_server.url("fast", f"host{n % 20}.example") for n in range(40)]
    results = fetched(*urls, concurrency=4, per_host=2, timeout_s=8, allow_private=False)
    assert {result.reason for result in results} == {""}


@pytest.mark.parametrize("buffer_bytes", [1, 5_000, 10**9])
@pytest.mark.parametrize("look_ahead", [1, 7, 100])
def test_a_small_buffer_delays_and_loses_nothing(server: Server, buffer_bytes: int, look_ahead: int) -> None:
    server.routes |= {f"{n}": answer(body=bytes([n]) * 1000) for n in range(30)}
    urls = [server.url(f"{n}", "localhost" if n % 3 else "127.0.0.1") for n in range(30)]
    results = fetched(*urls, buffer_bytes=buffer_bytes, look_ahead=look_ahead, concurrency=8, per_host=2)
    assert [result.body for result in results] == [bytes([n]) * 1000 for n in range(30)]


def test_a_full_buffer_does_not_block_an_old_url_behind_younger_ones_of_its_host(server: Server) -> None:
    # The first URL goes back to wait for its host, whose only place a younger one would take while the buffer is full.
    server.routes |= {"first": in_turn(reset, answer()), "page": answer(body=bytes(1000))}
    urls = [server.url("first"), *[server.url("page")] * 10, *[server.url("page", "localhost")] * 10]
    assert {result.reason for result in fetched(*urls, buffer_bytes=1, per_host=1, retries=1)} == {""}


def test_a_buffer_that_was_full_lets_many_start_again(server: Server) -> None:
    together = threading.Barrier(2, timeout=5)

    def meets_another(connection: socket.socket) -> None:
        together.wait()
        answer()(connection)

    server.routes |= {"page": answer(body=bytes(1000)), "pair": meets_another}
    results = fetched(*[server.url("page")] * 20, *[server.url("pair")] * 2, buffer_bytes=1500)
    assert {result.reason for result in results} == {""}


def test_no_more_is_fetched_ahead_than_the_look_ahead_and_the_buffer_allow(server: Server) -> None:
    server.routes["page"] = answer(body=bytes(1000))
    limits: list[tuple[dict[str, Any], int]] = [({"look_ahead": 4}, 5), ({"buffer_bytes": 3000, "concurrency": 2}, 6)]
    for options, most in limits:
        server.requests.clear()
        results = fetch_all([server.url("page")] * 50, config(per_host=9, **options))
        next(results)
        time.sleep(0.3)
        assert 1 < len(server.requests) <= most
        results.close()


def test_a_caller_that_is_busy_makes_nobody_time_out(server: Server) -> None:
    server.routes["page"] = waits(server, 0.05)
    results = []
    for result in fetch_all([server.url("page")] * 3, config(timeout_s=0.8, per_host=1)):
        time.sleep(0.9)
        results.append(result.reason)
    assert results == [""] * 3


def test_leaving_early_ends_what_is_under_way(server: Server) -> None:
    server.routes["hang"] = silence(server)
    before = set(threading.enumerate())
    results = fetch_all([server.url("ok"), *[server.url("hang")] * 20], config(timeout_s=60))
    assert next(results).reason == ""
    results.close()
    assert not [thread for thread in threading.enumerate() if thread not in before and thread.name == "fetch"]


def test_an_unforeseen_error_costs_one_url(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fetch.is_opted_out

    def raises(headers: Any) -> bool:
        if "X-Odd" in headers:
            raise RuntimeError("odd")
        return real(headers)

    monkeypatch.setattr(fetch, "is_opted_out", raises)
    server.routes["odd"] = answer("X-Odd: 1")
    assert fetched(server.url("odd"), server.url("ok")) == [Fetched(0, None, "failed", "RuntimeError: odd"), Fetched(1, BODY, "", "")]


def test_everything_is_accounted_for(server: Server) -> None:
    expected = {
        "ok": (answer(), ""),
        "gone": (answer(status="404 Gone"), "http_4xx"),
        "away": (redirect("/ok"), ""),
        "loop": (redirect("/loop"), "too_many_redirects"),
        "reset": (reset, "connection"),
        "html": (answer("Content-Type: text/html"), "not_an_image_type"),
        "no": (answer("X-Robots-Tag: noai"), "opt_out"),
        "big": (answer(length=10**9), "too_large"),
        "gzip": (answer("Content-Encoding: gzip"), "content_encoding"),
        "22": (answer(), "port"),
    }
    server.routes |= {name: reply for name, (reply, _) in expected.items()}
    names = [list(expected)[n * 3 % len(expected)] for n in range(600)]
    urls = ["http://127.0.0.1:22/" if name == "22" else server.url(name) for name in names]
    results = fetched(*urls, per_host=16, host_failures=10**6)
    assert [result.reason for result in results] == [expected[name][1] for name in names]


# --- files and configuration ---


def test_files_are_read_where_allowed(tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").write_bytes(BODY)
    (tmp_path / "big").write_bytes(bytes(100_001))
    urls = [(tmp_path / name).as_uri() for name in ("a b.jpg", "big", "missing")] + [tmp_path.as_uri()]
    assert [(r.body, r.reason) for r in fetched(*urls, allow_files=True)] == [
        (BODY, ""),
        (None, "too_large"),
        (None, "file"),
        (None, "file"),
    ]
    assert {result.reason for result in fetched(*urls)} == {"scheme"}


def test_a_slow_disk_does_not_hold_up_the_web(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = threading.Event()

    def slow(*_: object) -> bytes:
        assert served.wait(5)
        return BODY

    def send(connection: socket.socket) -> None:
        answer()(connection)
        served.set()

    monkeypatch.setattr(fetch, "_file_start", slow)
    server.routes["page"] = send
    assert [result.reason for result in fetched((tmp_path / "a").as_uri(), server.url("page"), allow_files=True)] == ["", ""]


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"per_host": -1},
        {"max_bytes": 0},
        {"timeout_s": 0},
        {"look_ahead": 0},
        {"retries": -1},
        {"timeout_s": float("nan")},
        {"contact": "a\r\nX: y"},
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FetchConfig(**wrong)
    assert FetchConfig(retries=0, max_redirects=0, backoff_s=0, max_pause_s=0).retries == 0
