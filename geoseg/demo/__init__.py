"""Procedural demo scenes: a synthetic Gulf town seen from above, with its labels."""
