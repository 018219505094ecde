"""Outlets: where cleanclose's events go besides the default structlog logger.

Each outlet is a module of its own, so that importing one needs only the library that it
writes to.
"""
