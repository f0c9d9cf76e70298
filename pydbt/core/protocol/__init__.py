"""What the two sides say to each other: frames, their bytes, and the names of contents (generations)."""
