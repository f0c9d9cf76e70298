"""What scripts/check and scripts/test run: parts side by side, one line for each, the output of those that fail.

This needs nothing but Python itself, so that it can say what is missing.
"""
