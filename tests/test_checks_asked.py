import pytest

from bench.records.checks.asked import _same


@pytest.mark.parametrize(
    ("given", "says", "same"),
    [
        (1, 1.0, True), ("1e-3", 0.001, True), (True, True, True), ("none", "none", True), (None, None, True),
        ([8, 16], [8, 16], True), ((8, 16), [8, 16], True), (5, "5", True), ("{'a': 1}", {"a": 1}, True),
        (2, 1, False), ("x", 1.0, False), (None, 0, False), (0, None, False), ([8], [8, 16], False),
        ([8, 17], [8, 16], False), (True, False, False), ("a", "b", False),
    ],
)  # fmt: skip
def test_a_value_stands_for_what_its_field_makes_of_it(given, says, same):
    assert _same(given, says) is same
