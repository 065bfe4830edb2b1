"""Generators of network weights, one file each: the file's name is the generator's name."""
