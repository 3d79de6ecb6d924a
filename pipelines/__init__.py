"""Beam, and nothing but wiring: one job a file, on stage directories."""
