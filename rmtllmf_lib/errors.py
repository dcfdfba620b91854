"""The exception for errors that a user can fix."""


class InputError(ValueError):
    """Bad input: the message names the value found, what was expected, and what to do.

    The command line prints the message alone; any other exception is a bug and keeps its traceback.
    """
