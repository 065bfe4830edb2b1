"""Architectures, and the names of their parameters."""
