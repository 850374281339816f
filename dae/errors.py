"""The one exception a user may be shown."""


class UserError(Exception):
    """Something the user gave cannot be used.

    The message says what was given, what is allowed and what to do next. The command line prints it without a
    traceback and exits with 2.
    """
