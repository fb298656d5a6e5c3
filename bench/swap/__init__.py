"""Whole swaps under load, on either proxy, and the proof that the account would have shown a lost request.

Each swap is a command as a user runs it, and replaces the container. In the same run, the same load meets two
ways of swapping that lose requests: a count that shows none there would be worth nothing.
"""
