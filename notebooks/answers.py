"""How a notebook states its answer."""

from IPython.display import Markdown, display


def answer(text):
    """Display the answer to a notebook's question, computed from the numbers of this run."""
    display(Markdown(f"**Answer.** {text}"))
