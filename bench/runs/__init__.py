"""The stages of one run, which turn a request into a record."""
