"""HOW pairs meet entries: crawl bytes to pairs, languages, matching, de-duplication, counts, thresholds, sampling. No Beam, no paths."""
