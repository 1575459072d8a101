"""Timing engine and statistics of the benchmarks."""
