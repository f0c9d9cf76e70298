"""Where the rooms meet: the loops that feed the brains and carry out their effects."""
