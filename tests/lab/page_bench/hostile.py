"""Names as an attacker would choose them: markup, control characters, marks of direction, 4 KiB of text, no text at all."""

from __future__ import annotations

# Each sets window.harmed when a page takes it for markup or for code.
MARKUP = "<img src=x onerror=\"window.harmed='img'\"><script>window.harmed='script'</script>"
ATTRIBUTE = "\"' onmouseover='window.harmed=1' style='position:fixed' x=\""
LINK = "javascript:window.harmed='link'"
TEMPLATE = "${window.harmed=1}{{constructor.constructor('window.harmed=1')()}}"
CONTROL = "two\nlines\r\x1b[31mred\x07\x00end\x7f"
DIRECTION = "invoice\u202efdp.exe\u2066\u200b"
LONG = "long-" + "0123456789abcdef" * 256
SPLIT = "half \ud800 of a character"

ALL = (MARKUP, ATTRIBUTE, LINK, TEMPLATE, CONTROL, DIRECTION, LONG, SPLIT)
