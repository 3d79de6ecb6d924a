"""WHAT the entries are: from Wikipedia dumps, page views and wordnets to one list of entries per language. No Beam, no paths."""
