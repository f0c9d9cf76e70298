"""The protocol between both sides: frames, their bytes, and the names of contents (generations)."""
