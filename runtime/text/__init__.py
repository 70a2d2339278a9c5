"""What happens to a text before and after the model sees it; rules as data in ``rules/``, code as small scanners."""

from __future__ import annotations
