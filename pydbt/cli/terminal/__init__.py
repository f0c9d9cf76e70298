"""The screen of ``controller top``. Only here is urwid used, and it is loaded by this command alone."""
