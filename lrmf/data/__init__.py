"""The data: what a snapshot is, responses, lineage, and what model cards and names say."""
