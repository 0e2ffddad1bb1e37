"""Benchmarks of speed and quality; `python -m benchmarks` runs them, README.md explains them."""
