"""``controller run``: the process of one volume."""
