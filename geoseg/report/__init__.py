"""Pages that people look at: a report per scene, an index per run, and pictures of both."""
