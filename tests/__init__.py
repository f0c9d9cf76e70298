"""Every test."""

import os

# What a person keeps in /etc for this machine must change no test; nor what the tests' own controllers do.
os.environ["PYDBT_CONFIG"] = os.devnull
