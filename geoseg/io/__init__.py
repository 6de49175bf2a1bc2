"""The only openers of rasters and vectors."""
