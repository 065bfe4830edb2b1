"""Studies: many runs from one recipe, on one machine or on a Ray cluster."""
