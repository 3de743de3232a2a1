"""Algorithms that choose the levels a student trains on."""
