"""Training: from scenes with labels to a bundle. The door is `geoseg.train.trainer.train`."""
