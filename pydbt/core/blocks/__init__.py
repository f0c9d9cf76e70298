"""Sets of blocks and sectors: runs, bitmaps and tables, and the arithmetic between them."""
