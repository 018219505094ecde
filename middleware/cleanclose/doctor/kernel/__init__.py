"""`cleanclose kernel`: which resets the kernel made, and why.

`figures` reads `/proc`, `readings` compares two looks at it and puts the difference into sentences,
`tracing` reports each reset as it happens, `naming` says whose it was.
"""
