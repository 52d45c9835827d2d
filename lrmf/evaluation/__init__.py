"""The evaluation: splits without leakage, metrics over models, paired bootstrap."""
