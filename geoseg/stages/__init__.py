"""One verb a file, over arrays and small protocols."""
