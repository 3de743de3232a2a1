"""Algorithms that choose the levels a student trains on."""

from jaxpg._lazy import import_when_used

import_when_used(__name__)
