"""The simulated Hub: families, items, answers, and the targets they are held to."""
