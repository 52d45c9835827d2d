"""The functions and constants of `compiled`, which is imported when the first is used.

Importing numba takes a third of a second, and a forecast of one model needs no compiled kernel.
"""


def __getattr__(name):
    from . import compiled

    return getattr(compiled, name)
