"""``controller secondary``: the process of one replica."""
