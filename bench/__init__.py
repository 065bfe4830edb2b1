"""The harness: collect checkpoints, fit a generator, sample, score, compare, record."""

__version__ = "0.1.0"
