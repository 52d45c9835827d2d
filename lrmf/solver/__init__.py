"""The model and its solver: kernels, prior, likelihoods, factorization, forecasts from states."""
