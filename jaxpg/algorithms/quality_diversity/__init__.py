"""Algorithms that look for many good policies, each of which behaves in its own way."""
