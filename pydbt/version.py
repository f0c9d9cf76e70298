"""The version of this program, in this place alone: ``pyproject.toml`` reads it here, and a test holds the changelog to it."""

VERSION = "0.1.0"
