"""The errors that a user can mend: each is shown as one line, without a traceback."""


class ConfigError(ValueError):
    """A value that cannot work: the message names the value, what was expected and what to do."""


class RunError(RuntimeError):
    """A run that cannot start, go on or be written: the message names the file or the step and what to do."""


def at_least(name: str, value: object, minimum: int) -> None:
    """Refuse a value that is not an integer of ``minimum`` or more.

    >>> at_least("epochs", 3, 1)

    Raises:
        ConfigError: names the key, the value and the minimum.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigError(f"{name}={value} must be an integer of {minimum} or more")
