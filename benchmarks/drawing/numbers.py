"""How numbers are written for people, on the terminal and in the report."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"


def number(value: float | None) -> str:
    """Four or five digits, so that columns line up; no exponent where a person would use none.

    >>> number(0.97218), number(0.5), number(64), number(61706.0), number(None), number(-0.00001234)
    ('0.9722', '0.5000', '64', '61,706', '–', '−1.234e-05')
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else f"{MINUS}\N{INFINITY}"
    size = abs(value)
    if size >= 1e12 or 0 < size < 1e-4:
        text = f"{value:.4g}"
    elif isinstance(value, int) or size == 0 or size >= 1e5 or (size >= 2 and value.is_integer()):
        text = f"{value:,.0f}"
    else:
        text = f"{value:,.{4 if size < 10 else 5 - len(str(int(size)))}f}"
    return text.replace("-", MINUS, 1) if value < 0 else text


def pace(value: float) -> str:
    """So many in some time, which nobody knows to more than three digits.

    >>> pace(8627.2), pace(9.7502), pace(0.01234)
    ('8,630', '9.75', '0.0123')
    """
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.3g}"


def signed(value: float | None) -> str:
    """As `number`, with a plus where it applies.

    >>> signed(0.01), signed(-0.01)
    ('+0.0100', '−0.0100')
    """
    return f"+{number(value)}" if value is not None and value > 0 else number(value)


def span(low: float | None, high: float | None, n: int) -> str:
    """The interval of a mean of ``n`` values, or a word on why there is none.

    >>> span(0.4, 0.6, 3), span(None, None, 1)
    ('0.4000 to 0.6000', 'none (n = 1)')
    """
    if low is None or high is None:
        return f"none (n = {n})" if n < 2 else MISSING
    return f"{number(low)} to {number(high)}"


def p_value(value: float | None) -> str:
    """A p-value with the digits it deserves.

    >>> p_value(0.25), p_value(0.00001), p_value(None)
    ('0.250', '<0.001', '–')
    """
    if value is None:
        return MISSING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def seconds(value: float | None) -> str:
    """A duration.

    >>> seconds(3.21), seconds(75), seconds(3 * 3600 + 120)
    ('3.2 s', '1 min 15 s', '3 h 2 min')
    """
    if value is None:
        return MISSING
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def about(value: float) -> str:
    """A duration that is an estimate: no more digits than it deserves.

    >>> about(0.2), about(41.7), about(75), about(1000), about(3 * 3600 + 125)
    ('1 s', '42 s', '1 min 20 s', '17 min', '3 h 2 min')
    """
    if value < 59.5:
        return f"{max(1, round(value))} s"
    if value < 300:
        minutes, rest = divmod(10 * round(value / 10), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
