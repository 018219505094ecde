"""Whose fault: what an exchange's witnesses have seen, and what that means for an exception."""
