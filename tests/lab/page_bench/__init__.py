"""A server that plays the dashboard's: the real pages over made-up volumes, so that a browser can be shown anything.

``python -m tests.lab.page_bench`` serves it for people. Its answers have the shape of the real server's.
"""
