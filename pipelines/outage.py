"""An outage of the network, told from hosts that are dead: hosts that answered before do not answer any more either.

Dead hosts and an outage give the same reasons. So a long row of them, with no answer from anybody in between, is a question: the hosts that
gave the last images are asked once more. If one answers, the hosts of the row are dead; if none does, there is no network, and it is waited
for. Whatever lies in such a row is asked again at the end, since the outage may have been over before it was noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from yarl import URL

from pipelines.errors import JobError
from pipelines.fetch import FetchConfig, Fetched, fetch_all
from pipelines.patience import patiently

#: Reasons that a network gives for every host while it is out.
OUTAGE = frozenset({"dns", "name_server", "refused", "timeout", "connection", "host_down"})
#: Reasons that an option of the job would remove.
MISSING_OPTION = frozenset({"no_url", "scheme", "private_address"})
#: Reasons that say nothing of the network.
UNASKED = MISSING_OPTION | {"invalid_url", "port"}
#: Failures in a row that may be an outage. Where half of all hosts are dead, one row in a million is as long.
SUSPICIOUS = 20
_WITNESSES = 5


class Witnesses:
    """URLs that gave the last images, one for each of the last few hosts."""

    def __init__(self, config: FetchConfig) -> None:
        self._urls: dict[str, str] = {}
        self._config = replace(config, retries=0)

    def add(self, url: str) -> None:
        host = URL(url).raw_host or ""
        self._urls.pop(host, None)
        self._urls[host] = url
        if len(self._urls) > _WITNESSES:
            del self._urls[next(iter(self._urls))]

    def wait_for_network(self) -> None:
        """Return once one of them answers, at once where there is none.

        Raises:
            JobError: none of them has answered for minutes.
        """
        if self._urls:
            patiently(self._ask, "images: the network seems to be out", passing=lambda error: isinstance(error, JobError))

    def _ask(self) -> None:
        answers = list(fetch_all(list(self._urls.values()), self._config))
        if all(answer.reason in OUTAGE for answer in answers):
            hosts = ", ".join(f"{host} ({answer.reason})" for host, answer in zip(self._urls, answers, strict=True))
            raise JobError(
                f"no host answers any more, nor do those that did before: {hosts}. Is there a network? Not finished: run the same command "
                f"again. Hosts that are gone for good can be left out of the set by worldclip count --drop-hosts"
            )


def fetch_through_outages(urls: Sequence[str], config: FetchConfig) -> Iterator[Fetched]:
    """As :func:`fetch_all`, though not in the order of ``urls``. An outage of some minutes is waited for, and costs no image.

    Raises:
        JobError: there is no network any more, though there was one.
    """
    witnesses, again = Witnesses(config), list[int]()

    def later(row: Sequence[Fetched]) -> list[Fetched]:
        if len(row) < SUSPICIOUS:
            return [*row]
        again.extend(fetched.index for fetched in row)
        return []

    with closing(fetch_all(urls, config)) as answers:
        yield from _watched(answers, urls, witnesses, settle=later)
    second = [urls[index] for index in again]
    with closing(fetch_all(second, replace(config, retries=0))) as answers:
        for fetched in _watched(answers, second, witnesses, settle=list):
            yield replace(fetched, index=again[fetched.index])


def _watched(
    answers: Iterable[Fetched], urls: Sequence[str], witnesses: Witnesses, *, settle: Callable[[Sequence[Fetched]], list[Fetched]]
) -> Iterator[Fetched]:
    """What was fetched. ``settle`` says what of a row of failures is final, when it is over."""
    row: list[Fetched] = []
    suspicious = SUSPICIOUS
    for fetched in answers:
        if fetched.reason in OUTAGE:
            row.append(fetched)
            if len(row) == suspicious:
                witnesses.wait_for_network()
                # Hosts that live are not to be asked for every few that are dead.
                suspicious *= 2
            continue
        if fetched.reason not in UNASKED and not _is_file(urls[fetched.index]):
            yield from settle(row)
            row, suspicious = [], SUSPICIOUS
            if fetched.body is not None:
                witnesses.add(urls[fetched.index])
        yield fetched
    if len(row) >= SUSPICIOUS:
        witnesses.wait_for_network()
    yield from settle(row)


def _is_file(url: str) -> bool:
    return url.strip().lower().startswith("file:")
