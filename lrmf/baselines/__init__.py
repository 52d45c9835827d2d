"""The baselines: one interface, one method a file, one entry each in the registry."""
