"""The warning of what was done as asked, and may not be what was meant."""


class Doubt(UserWarning):
    """What was asked for is done, and its figures are in doubt."""
