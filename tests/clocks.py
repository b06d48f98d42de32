"""A clock for tests, instead of one that runs by itself."""


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def seconds(self) -> float:
        """The time."""
        return self.now
