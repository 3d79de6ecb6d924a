"""Beam, and nothing but wiring: one job a file, on stage directories."""

import logging


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("apitools not found")


# Beam says so while it is imported, to whom it may concern, where it is installed without what Dataflow needs.
logging.getLogger().addFilter(_is_news)
