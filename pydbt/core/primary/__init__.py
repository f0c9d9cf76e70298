"""The primary's brain for one secondary, and its parts."""
