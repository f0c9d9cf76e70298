"""Sockets: addresses, connections of frames with deadlines, and TLS."""
