"""Checks of the numbers of a record and its side file against each other, one module a subject. Imports no torch."""
