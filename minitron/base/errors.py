"""The one exception for mistakes that a user can correct."""


class MinitronError(Exception):
    """Bad input of any kind.      text: one line with the thing, its value and the rule

    The command line prints the text without a traceback and exits with status 2.
    """
