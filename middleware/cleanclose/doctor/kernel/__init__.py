"""`cleanclose kernel`: which resets the kernel made, and why.

`figures` reads what `/proc` tells, `readings` makes sentences of two looks at it, `tracing` hears
of each reset as it happens, `naming` says whose it was.
"""
