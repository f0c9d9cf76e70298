"""The command line: one module a command, errors worded in one place."""
