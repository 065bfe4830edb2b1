"""Records: their schema, side files, reports and checks. Imports no torch."""
