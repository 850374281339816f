"""What the columns of a sweep's data frames and CSV files hold."""

from sweep.analysis.tidy import CELL_COLUMNS, EPOCH_COLUMNS

__all__ = ["CELL_COLUMNS", "EPOCH_COLUMNS"]
