"""The errors that a user can mend: each is shown as one line, without a traceback."""


class ConfigError(ValueError):
    """A value that cannot work: the message names the value, what was expected and what to do."""


class RunError(RuntimeError):
    """A run that cannot start, go on or be written: the message names the file or the step and what to do."""
