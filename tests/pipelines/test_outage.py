"""fetch_through_outages over a web of which the test says, moment by moment, who answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence

import pytest

from pipelines import outage, patience
from pipelines.errors import JobError
from pipelines.fetch import FetchConfig, Fetched
from pipelines.outage import SUSPICIOUS, fetch_through_outages

BODY = b"a picture"


class Web:
    """Hosts whose name begins with ``dead`` do not answer, and nobody does while ``out`` says so; time passes by requests and pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, out: range = range(0)) -> None:
        self.asked: list[str] = []
        self.now = 0
        self.out = out
        self.pauses = 0
        monkeypatch.setattr(outage, "fetch_all", self.fetch_all)
        monkeypatch.setattr(patience, "PATIENCE", patience.Patience(tries=4, sleep=self._sleep))

    def fetch_all(self, urls: Sequence[str], config: FetchConfig) -> Generator[Fetched, None, None]:
        for index, url in enumerate(urls):
            self.asked.append(url)
            host = url.split("/")[2]
            if url.startswith("file:"):
                yield Fetched(index, BODY, "", "")
            elif host.startswith("bad"):
                yield Fetched(index, None, "invalid_url", "")
            elif self.now in self.out or host.startswith("dead"):
                yield Fetched(index, None, "name_server" if self.now in self.out else "timeout", "")
            else:
                yield Fetched(index, None, "http_4xx", "404") if host.startswith("without") else Fetched(index, BODY, "", "")
            self.now += 1

    def _sleep(self, seconds: float) -> None:
        self.pauses += 1
        self.now += 20


def reasons(urls: Sequence[str]) -> list[str]:
    results = list(fetch_through_outages(urls, FetchConfig()))
    assert sorted(result.index for result in results) == list(range(len(urls)))
    return [result.reason for result in sorted(results, key=lambda result: result.index)]


def urls_of(*kinds: str) -> list[str]:
    return [f"http://{kind}{i}.example/{i}.jpg" for i, kind in enumerate(kinds)]


def test_a_web_without_an_outage_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(monkeypatch)
    urls = urls_of(*["fine", "dead", "dead", "without", "bad"] * 30, *["dead"] * (SUSPICIOUS - 1))
    assert Counter(reasons(urls)) == {"": 30, "timeout": 60 + SUSPICIOUS - 1, "http_4xx": 30, "invalid_url": 30}
    assert web.asked == urls


def test_an_outage_that_goes_by_costs_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(monkeypatch, out=range(30, 90))
    assert reasons(urls_of(*["fine"] * 200)) == [""] * 200
    assert web.pauses


def test_an_outage_that_is_over_before_it_is_noticed_costs_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(monkeypatch, out=range(30, 30 + SUSPICIOUS))
    assert reasons(urls_of(*["fine"] * 200)) == [""] * 200
    assert not web.pauses


@pytest.mark.parametrize("begin", [100, 360])
def test_an_outage_that_lasts_is_told(begin: int, monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(monkeypatch, out=range(begin, 10**9))
    with pytest.raises(JobError, match=r"^no host answers any more.*fine\d+\.example \(name_server\).*run the same command again"):
        reasons(urls_of(*["fine", "dead", "fine", "bad"] * 100))
    assert web.pauses == 3
    assert len(web.asked) < 450


def test_images_on_disks_are_no_sign_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    Web(monkeypatch, out=range(100, 10**9))
    with pytest.raises(JobError, match="no host answers any more"):
        reasons([url for i in range(100) for url in (f"http://fine{i}.example/", f"file:///{i}.jpg")])


@pytest.mark.parametrize("alive", [0, 1, 3])
def test_a_list_of_dead_hosts_comes_to_its_end(alive: int, monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(monkeypatch)
    kinds = ["fine" if i < alive else "dead" for i in range(1_000)]
    assert Counter(reasons(urls_of(*kinds))) == Counter({"timeout": 1_000 - alive, "": alive})
    assert not web.pauses
    # Twice each that is dead, and those that live a few times, however many are dead.
    assert len(web.asked) < 2_100


def test_hosts_that_are_dead_after_an_answer_are_found_out_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(monkeypatch)
    kinds = [kind for i in range(5) for kind in ["fine", *["dead"] * 90]]
    assert Counter(reasons(urls_of(*kinds))) == {"timeout": 450, "": 5}
    assert not web.pauses
