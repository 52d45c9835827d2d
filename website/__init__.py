"""The static site: notebooks, figures, tables, documents and the code that they link to."""
