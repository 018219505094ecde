"""The apps that the tests serve: the same routes on every framework, bare or wrapped.

See :mod:`tests.harness.apps.routes` for the routes and the environment variables.
"""
