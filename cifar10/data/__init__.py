"""Data on disk: record files, image files, and how they get there."""
