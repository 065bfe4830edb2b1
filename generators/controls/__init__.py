"""Controls: constructions that any real generator must beat."""
