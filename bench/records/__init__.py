"""Records: their form, side files, reports and checks. Imports no torch."""
