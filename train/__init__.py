"""CLIP training on curated Parquet: read config, data, model, distributed, checkpoint, logbook, loop in this order."""
