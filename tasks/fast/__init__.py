"""Scoring and training many models at once."""
