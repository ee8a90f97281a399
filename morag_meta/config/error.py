"""That a configuration cannot be used."""

from __future__ import annotations


class ConfigurationError(Exception):
    """The configuration cannot be used; ``problems`` holds one clear line each, never a secret."""

    def __init__(self, *problems: str) -> None:
        """Keep the lines; ``str()`` joins them."""
        super().__init__("\n".join(problems))
        self.problems = problems
