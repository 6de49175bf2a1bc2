"""Measurements, run by hand: make bench. Nothing here is a test; machines are noisy, so ratios are paired."""
