"""A fuzzer of the suite: damaged and hostile inputs, of which none may end in more than one line of error.

``python -m tests.fuzz --cases 100000`` tries that many; the same seed gives the same inputs.
"""
