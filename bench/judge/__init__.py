"""From scored populations to the numbers of a record."""
