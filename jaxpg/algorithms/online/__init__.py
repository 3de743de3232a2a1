"""Algorithms that learn while they act."""

from jaxpg._lazy import import_when_used

import_when_used(__name__)
