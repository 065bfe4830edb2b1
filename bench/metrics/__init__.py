"""Similarity, novelty and statistics: pure functions on tensors."""
