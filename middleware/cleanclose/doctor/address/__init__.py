"""``cleanclose doctor URL``: does an early answer from there reach this machine?

The command contacts only the address that the user names. It sends a few uploads, and bounds their
size and time.
"""
