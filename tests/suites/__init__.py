"""Frameworks' own test suites, bare and wrapped: what breaks because of the middleware?"""
