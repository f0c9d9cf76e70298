"""The program as it is installed: from its wheel, with PyPI's packages and with the distribution's own."""
