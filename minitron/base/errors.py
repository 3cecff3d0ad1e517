"""The one exception for what a user can put right: its text is one line that names the thing, the value and the remedy."""


class MinitronError(Exception):
    """Bad input of any kind.  The command line prints its text without a traceback and exits with status 2."""
