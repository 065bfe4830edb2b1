"""What a generator is, in words, for pages about it. Imports no generator."""

from bench import plugins


def about(generator: str) -> str:
    """Return the first line of a generator's own documentation; empty for one that is not installed here."""
    listing = plugins.generators().get(generator)
    return listing.about if listing else ""
