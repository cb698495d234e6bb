"""The one exception for wrong user input."""


class InputError(ValueError):
    """Input from outside (a file, a config, an argument, a checkpoint) that cannot be used.

    Its message is meant for the user: what was found, what was expected, and where. The command line prints the
    message alone, without a traceback.
    """
