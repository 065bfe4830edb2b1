"""Computation of a record's numbers from scored populations."""
