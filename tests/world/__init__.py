"""A small generated world: dumps, page views, crawl files, wordnets and drawn pictures, all written from a seed."""
