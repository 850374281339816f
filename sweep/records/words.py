"""Numbers, names and their nouns as messages and pages have them."""

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """``1 cell``, ``2 cells``, ``1,200 cells``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def there_are(names: Sequence[str], most: int = 8) -> str:
    """``there is a``, ``there are a, b``; of more than so many how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"there {'is' if len(names) == 1 else 'are'} {', '.join(names[:most])}{more}"


def span(low: int, high: int) -> str:
    """``5 to 1,200``; the number where both are the same."""
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
