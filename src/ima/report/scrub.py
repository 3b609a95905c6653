"""Paths of the machine that a run was made on do not belong on a page that is sent on."""

from __future__ import annotations

import re
from typing import Any

_WHOLE = re.compile(r"^(?:~|[A-Za-z]:[\\/]|/|\\\\).*[\\/]([^\\/]*)[\\/]?$")
_WITHIN = re.compile(
    r"(?<![\w./\\<])(?!//)(?:~[\w.-]*|[A-Za-z]:)?[/\\](?:[^\s'\"/\\]+[/\\])*([^\s'\"/\\]+)"
)


def scrub(value: Any) -> Any:
    """The same tree of dicts, lists and texts, absolute paths cut to `…/` and their last part."""
    if isinstance(value, dict):
        return {key: scrub(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(one) for one in value]
    if not isinstance(value, str):
        return value
    whole = _WHOLE.match(value.rstrip("/\\")) if "\n" not in value and " /" not in value else None
    return f"…/{whole[1]}" if whole else _WITHIN.sub(r"…/\1", value)
