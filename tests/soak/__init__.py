"""Everything at once, for long: ``make soak``."""
