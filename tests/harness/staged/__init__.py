"""Broken connections, staged on real servers and proxies, for what these write about them."""
