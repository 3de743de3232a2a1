"""Algorithms that learn while they act."""
