"""The explorer: one self-contained page of a family tree, with forecasts and a place to ask."""
