"""``cleanclose doctor module:app``: start the user's application here, and test it.

The command runs in one process (`command`, `run`, `cases`, `findings`, `report`); the application
runs in others, on the user's own server, with `served` around it. The two sides meet in a file of
JSON lines (`journal`) and over loopback connections.
"""
