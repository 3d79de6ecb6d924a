"""A process of its own: match a folder of crawl files, and say how long it took and how much memory."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from pipelines.match import MatchConfig
from pipelines.match import main as match
from pipelines.stage import open_stage

#: Candidates that were dropped before they were texts to match.
_NO_TEXTS = frozenset({"no_text", "empty_text", "text_too_long", "no_url", "data_url", "url_too_long", "not_http"})


def run(inputs: str, entries: str, output: str) -> int:
    """Match; the number of texts that were read."""
    match(MatchConfig(input=(inputs,), entries=entries, output=output, max_bad_records=1.0, max_bad_files=1.0), [])
    counters = open_stage(output, "match").counters
    dropped = sum(n for reason, n in counters["dropped"].items() if reason in _NO_TEXTS)
    return int(counters["read"] - counters["dead_letters"] - dropped)


def peak_memory() -> int:
    """Bytes resident at most since this program began (Linux). ``getrusage`` would not do: its figure outlives ``exec``, so that a process
    begins with the peak of the one that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    entries, warm_up, output, folder = sys.argv[1:]
    # Model and automata are loaded once a process: not in the time.
    run(str(sorted(Path(folder, "0").iterdir())[0]), entries, warm_up)
    start = time.process_time()
    texts = run(f"{folder}/*/*", entries, output)
    seconds = time.process_time() - start
    print(json.dumps({"texts": texts, "seconds": seconds, "peak": peak_memory()}))


if __name__ == "__main__":
    main()
