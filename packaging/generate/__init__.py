"""Makes man pages, completions, the reference of the configuration and Debian's changelog from the program's texts."""
