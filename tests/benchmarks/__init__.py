"""What our paths gain over plain ones, as ratios: ``python -m tests.benchmarks``."""
