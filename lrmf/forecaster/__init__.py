"""The Forecaster: the pipeline behind the command line, in stages."""
