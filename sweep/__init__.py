"""The orchestrator of dae-sweep: grids of cells, their trials, records and reports."""

__version__ = "0.1.0"
