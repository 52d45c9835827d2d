"""Comparing what notebooks print: on another processor a rounded number may be one digit away."""

import re
from decimal import Decimal

_DECIMAL = re.compile(r"[-+]?\d+\.(\d+)")


class Printed(str):
    """A text that equals another if only decimals differ, each by one unit of its last digit.

    Processors add in different orders: 4.9499 on one, printed as 4.9, is 4.9501 on another, printed
    as 5.0. Words, whole numbers and the number of decimals must be the same.
    """

    __hash__ = None

    def __eq__(self, other):
        if _DECIMAL.sub("", self) != _DECIMAL.sub("", other):
            return False
        return all(map(_is_close, _DECIMAL.finditer(self), _DECIMAL.finditer(other)))

    def __ne__(self, other):
        return not self == other


def _is_close(one, other) -> bool:
    unit = Decimal(1).scaleb(-len(one[1]))
    return len(one[1]) == len(other[1]) and abs(Decimal(one[0]) - Decimal(other[0])) <= unit
