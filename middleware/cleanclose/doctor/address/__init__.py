"""``cleanclose doctor URL``: does an early answer survive the way from there to here?

Only the address that the user names is asked, with a few uploads that are bounded in size and time.
"""
