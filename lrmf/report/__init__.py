"""The report: figures, tables, and what was claimed against what was measured."""
