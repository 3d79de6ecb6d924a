"""CLIP training on curated Parquet: read config, data, model, loop, checkpoint in this order."""
