"""Data sets: files in, tensors out."""
