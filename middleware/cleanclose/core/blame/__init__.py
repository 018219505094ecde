"""Whose fault: what an exchange's witnesses have seen, and what follows for an exception."""
