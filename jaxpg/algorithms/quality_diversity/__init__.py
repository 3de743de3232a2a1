"""Algorithms that look for many good policies, each of which behaves in its own way."""

from jaxpg._lazy import import_when_used

import_when_used(__name__)
