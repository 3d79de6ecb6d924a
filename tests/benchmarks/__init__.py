"""Speed and memory, each beside a naive way of doing the same in the same run: ``python -m tests.benchmarks``."""
