"""One module per command. They share modules of ``pydbt.cli`` and never import each other."""
