"""TF-IDF of names: what new names share with known ones."""

import pytest

from lrmf.data.terms import Terms, grams, words


def test_a_term_of_a_single_name_does_not_count():
    terms = Terms.fit(words, ["llama-chat", "llama-code", "phi-chat"])
    rows = terms(["llama-code", "llama-new", "llama"]).toarray()
    assert rows[0] == pytest.approx(rows[2])
    assert rows[1] == pytest.approx(rows[2])


def test_names_that_share_no_term_have_no_terms():
    terms = Terms.fit(words, ["llama", "phi"])
    assert terms(["llama", "gemma"]).nnz == 0


@pytest.mark.parametrize("split", [words, grams])
def test_a_new_name_is_about_as_close_to_the_others_as_if_it_were_among_them(simulated_hub, split):
    """Otherwise leave-one-out intervals would not be those of new models."""
    names = [name.partition("/")[2] for name in simulated_hub[0].models["model_id"]]
    new, known = names[::7], [name for n, name in enumerate(names) if n % 7]

    def closest(fitted_to):
        """Mean cosine of a new name and the known one that is closest to it."""
        terms = Terms.fit(split, fitted_to)
        return (terms(new) @ terms(known).T).toarray().max(axis=1).mean()

    assert closest(known) == pytest.approx(closest(names), rel=0.08)
