"""Algorithms that learn how to learn: update rules, and agents that are trained by them."""

from jaxpg._lazy import import_when_used

import_when_used(__name__)
