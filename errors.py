"""The one error that is meant for people: the command line prints its message as it is and exits with code 2."""


class UserError(Exception):
    """The request itself was wrong. The message is one line: what, where, and what to do about it."""
