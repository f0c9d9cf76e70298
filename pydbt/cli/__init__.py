"""The command line: one module per command, and one module for the wording of errors."""
