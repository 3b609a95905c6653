"""The warning of what was done as asked, and may not be what was meant."""


class Doubt(UserWarning):
    """What was asked for is done, and its figures are in doubt.

    >>> import ima, warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", ima.Doubt)  # stop where figures would be in doubt
    ...     method = ima.SAT(eps=0.1)
    """
