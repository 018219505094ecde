"""What the middleware costs, as ratios within one run: ``make bench``.

Seconds measured on one machine say little about another, and on a shared one little about the
next minute. So requests are counted in instructions, to the servers' own callables, and every
figure sets variants beside each other: the bare application, the same behind a wrapper which only
forwards, and the same behind cleanclose.
"""
