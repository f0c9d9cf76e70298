"""Sockets: framed connections with deadlines."""
