import pytest
from printed import Printed


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<td>3.4 [2.2, 4.9]</td>", "<td>3.4 [2.2, 5.0]</td>"),
        ("r 0.71, 99.99%", "r 0.70, 100.00%"),
        ("difference -0.00", "difference 0.00"),
        ("no number", "no number"),
    ],
)
def test_the_last_digit_of_a_decimal_may_differ_by_one(one, other):
    assert Printed(one) == Printed(other)
    assert not Printed(one) != Printed(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("r 0.71", "r 0.73"),
        ("r 0.7", "r 0.70"),
        ("12 models", "13 models"),
        ("v1.10 has 3", "v1.10 has 4"),
        ("r 0.71: better", "r 0.71: worse"),
        ("0.71 0.72", "0.71"),
        ("-0.02", "0.02"),
    ],
)
def test_nothing_else_may_differ(one, other):
    assert Printed(one) != Printed(other)
