"""What lineage looks like: relatedness of models, spectrum of their scores on the graph."""
