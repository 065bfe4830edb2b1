"""Checkpoints as other programs write them: where they lie, and what is told of each. A module a format."""
