"""What must hold between the numbers of a record and of its side file, one module a subject. Imports no torch."""
