"""What one does with a forecast: ask for a model, choose the next answers, plan merges."""
