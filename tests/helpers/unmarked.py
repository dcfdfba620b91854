"""Numbers in prose that nothing stands behind."""

from __future__ import annotations

import re

# Numbers that look measured: with a decimal point, an interval or a unit.
UNITS = r"%|points?\b|per cent|times\b|nats?\b|dB\b"
MEASURED = re.compile(rf"(?<![\w.,–-])(?<!± )[−+-]?(?:\d[\d,]*\.\d+|\.\d+|\d[\d,]*(?=(?: ± \d+)?\s*(?:{UNITS})))")
NOT_PROSE = re.compile(
    r"<!--=.*?<!--/-->|<!--given-->.*?<!--/given-->|\$\$.*?\$\$(?: \(eq-[\w-]+\))?|\$[^$]+\$|```.*?```|`[^`]+`|"
    r"\{[\w:]+\}`[^`]*`|\]\([^)]*\)|Eqs?\. \([^)]*\)",
    re.DOTALL,
)


def unbacked(prose: str) -> list[str]:
    """Return the numbers of a text that look measured, but are neither filled in nor marked as given."""
    return MEASURED.findall(NOT_PROSE.sub(" ", prose))
