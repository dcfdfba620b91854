"""The one error that a user can mend, and a check that many share."""


class InputError(ValueError):
    """Bad input: the message names the value found, what was expected, and what to do.

    The command line shows the message alone; every other exception is a defect and keeps its traceback.
    """


def require_positive(value: int, what: str) -> None:
    """Raise an InputError unless `value` is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{what} is {value!r}; expected a whole number of 1 or more")
