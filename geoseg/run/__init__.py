"""Engines, order of stages, resume, progress."""
