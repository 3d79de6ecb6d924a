"""The chain: what each of its jobs reads of the others, and where its output goes."""

from __future__ import annotations

#: What a job of the chain reads of the others: option → the job that makes it.
LINKS: dict[str, dict[str, str]] = {
    "entries": {"ngrams": "ngrams", "titles": "titles", "wordnet": "wordnet"},
    "match": {"entries": "entries"},
    "dedup": {"matched": "match"},
    "count": {"matched": "match", "siblings": "dedup", "entries": "entries"},
    "thresholds": {"counts": "count"},
    "balance": {"matched": "match", "siblings": "dedup", "thresholds": "thresholds"},
    "images": {"curated": "balance"},
    "train": {"data": "images"},
}
#: Where the output of each goes, below the directory of the chain; in the order in which they run.
OUTPUTS = {
    "ngrams": "ngrams",
    "titles": "titles",
    "wordnet": "wordnet",
    "entries": "entries",
    "match": "matched",
    "dedup": "siblings",
    "count": "counts",
    "thresholds": "thresholds.json",
    "balance": "curated",
    "images": "images",
    "train": "model",
}
