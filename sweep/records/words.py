"""Numbers and their nouns as messages and pages have them."""


def counted(number: int, noun: str) -> str:
    """``1 cell``, ``2 cells``, ``1,200 cells``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def span(low: int, high: int) -> str:
    """``5 to 1,200``; the number where both are the same."""
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
