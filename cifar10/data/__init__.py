"""Data on disk: record files and image files."""
