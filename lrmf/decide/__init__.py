"""What one does with a forecast: ask about a model, choose the next answers, plan merges."""
