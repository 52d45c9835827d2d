"""Forecast of one new model: from options, as a table to read and as plain data."""

from difflib import get_close_matches

import numpy as np

from ..data.describe import aligned
from ..data.ids import normalised_id
from ..data.response_kinds import PROPORTIONS
from ..data.responses import observed
from ..forecaster.near_duplicates import RELATEDNESS
from ..solver.prediction import read_parents
from .answers import Questions, read_answers

_N_PARENTS = 4  # parents at most that have a column in the table
_N_BENCHMARKS = 8  # number of benchmarks up to which the nearest models' scores are listed
_WIDTH = 20  # letters of a model's name
_TOLERANCE = 1e-6  # difference up to which scores are equal
_POINT = 0.01
_A = {"finetune": "finetune of", "merge": "merge of", "adapter": "adapter on",
      "quantized": "quantized copy of"}  # fmt: skip
_HOW = {"other": "by card and name", "family": "same family", "two steps": "two steps away",
        "one step": "parent"}  # fmt: skip


def fold_in(forecaster, parents=(), *, relation=None, size=None, name=None, scores=None,
            answers=None):  # fmt: skip
    """The new model that the options of `lrmf ask` describe.

    Parameters
    ----------
    forecaster : Forecaster
    parents : sequence of ids, also as URLs of the Hub
    relation : str, optional
        The default is merge for several parents and finetune for one.
    size : float, optional, billions of parameters
    name : str, optional
    scores : mapping of benchmark to score in [0, 1], optional
    answers : path, optional, as in `read_answers`

    Returns
    -------
    new : NewModel
    notes : list of str, on answers that were skipped, scores that look like fractions, parents in
        another spelling, and a size that is not used

    Raises
    ------
    ValueError
        If a benchmark is unknown, or options contradict each other.
    """
    # Relation and benchmarks must be valid before files are read.
    scores, notes = dict(scores or {}), list(_spelling_notes(forecaster, parents))
    parents = _ids(forecaster, parents)
    relation = relation_of(parents, relation)
    benchmarks = forecaster.scores_.names
    for benchmark in scores:
        forecaster.scores_.number(benchmark)
    # Answers and scores of the file; a score of both file and options must be the same.
    found, notes = None, [*notes, *_score_notes(forecaster, scores)]
    if answers is not None:
        questions = Questions(forecaster.item_ids_, set(benchmarks))
        found = read_answers(answers, questions, benchmarks, forecaster.kind_)
        notes += found.notes
        differ = [b for b in scores if abs(found.scores.get(b, scores[b]) - scores[b]) > _TOLERANCE]
        if differ:
            raise ValueError(f"{answers} and --score differ in {differ[0]}; drop one of them")
        scores = found.scores | scores
    # The model, its answers, then its scores.
    card = {"model_id": name or ""} | ({} if size is None else {"params_b": size})
    if size is not None and not forecaster.reads_sizes:
        notes.append("the fit does without the sizes on cards, so this size is not used")
    new = forecaster.fold_in(parents=[(parent, relation) for parent in parents], card=card)
    new = new.update(found.answers) if found else new
    return (new.with_scores(scores) if scores else new), notes


def _spelling_notes(forecaster, parents):
    """Yield a sentence on each parent whose known id differs in case."""
    for text in [parents] if isinstance(parents, str) else parents or ():
        name, known = normalised_id(text), forecaster._relatedness.lineage.id_of(text)
        if name and text != known != name:
            yield f"the parent {name} was taken for {known}, which differs in case only"


def _score_notes(forecaster, scores):
    """Yield a sentence on each score up to a point where those of the fit are all above one."""
    lowest = np.fmin.reduce(forecaster.trained_scores_, axis=0)
    for name, score in scores.items():
        if 0 < score <= _POINT < lowest[forecaster.scores_.number(name)]:
            yield (
                f"the score of {name} is {100 * score:g} points, below every score of the fit; "
                f"did you mean {10_000 * score:g}?"
            )


def relation_of(parents, relation):
    """The relation to the parents, None without parents.

    Parameters
    ----------
    parents : list of str
    relation : str or None

    Raises
    ------
    ValueError
        If the relation does not fit the number of parents, or a parent is repeated.
    """
    if relation and not parents:
        raise ValueError(f"a {relation} has a parent; name it with --parents")
    if relation and relation != "merge" and len(parents) > 1:
        raise ValueError(f"{len(parents)} parents of a {relation}; only a merge has several")
    if repeated := [parent for parent in parents if parents.count(parent) > 1]:
        raise ValueError(f"the parent {repeated[0]} is given twice; name each parent once")
    default = "merge" if len(parents) > 1 else "finetune"
    return (relation or default) if parents else None


def answer(new, *, name=None, parents=(), relation=None, notes=(), level=0.9):
    """The forecast of a new model with what it is based on, as plain data; scores in [0, 1].

    Parameters
    ----------
    new : NewModel
    name, parents, relation : as in `fold_in`
    notes : sequence of str, which come first
    level : float, nominal coverage

    Returns
    -------
    dict : model_id, relation, parents, scores (as `NewModel.scores`), average, known (numbers of
        answers and scores), basis (shares of lineage and of card and name, and the nearest
        evaluated models), notes
    """
    # Scores, mean score, and the evaluated parents and most similar models.
    fit, frame = new.forecasts, new.scores(level=level)
    mean, lower, upper = new.mean_score(level=level)
    evaluated, basis = list(fit.trained_ids_), new.explanation
    parents = _ids(fit, parents)
    rows = {parent: evaluated.index(parent) for parent in parents if parent in set(evaluated)}
    relatedness = fit._relatedness_to(np.zeros(1, int))[0]
    nearest = [
        {"model_id": evaluated[row], "related": _HOW[RELATEDNESS[relatedness[row]]],
         "scores": _scores(fit, row)}
        for row in basis["nearest"]
    ]  # fmt: skip
    return {
        "model_id": name or "a new model",
        "relation": relation,
        "parents": [
            {"model_id": parent, "scores": _scores(fit, rows[parent]) if parent in rows else None}
            for parent in parents
        ],
        "scores": [_plain(row) for row in frame.to_dict("records")],
        "average": _plain({"score": mean, "lower": lower, "upper": upper}),
        "known": _counts(new),
        "basis": _plain({key: basis[key] for key in ("lineage", "card_and_name")})
        | {"nearest": nearest, "n_models": len(evaluated)},
        "notes": [*notes, *_notes(new, parents, rows, frame)],
    }  # fmt: skip


def _ids(forecaster, parents):
    """Ids of the parents, as `Forecaster.fold_in` reads them."""
    pairs = read_parents(() if parents is None else parents, forecaster._relatedness.lineage)
    return [name for name, _ in pairs]


def _counts(new):
    """Numbers of revealed answers and scores."""
    n = int(observed(new.answers).sum())
    if new.forecasts.kind_ is PROPORTIONS:
        return {"answers": 0, "scores": n}
    return {"answers": n, "scores": len(new.known_scores)}


def _scores(fit, row):
    """Scores of an evaluated model by benchmark, None where it has none."""
    return _plain(dict(zip(fit.scores_.names, fit.trained_scores_[row], strict=True)))


def _plain(values):
    """A dict with Python numbers in place of NumPy's, and None in place of NaN."""
    plain = {
        key: value.item() if hasattr(value, "item") else value for key, value in values.items()
    }
    return {key: None if value != value else value for key, value in plain.items()}


def _notes(new, parents, rows, frame):
    """Yield a sentence on each limitation of the forecast."""
    # Parents that are not nodes of the lineage, or not evaluated.
    fit = new.forecasts
    lineage = fit._relatedness.lineage
    known = lineage.node_ids
    nodes = set(known)
    for parent in parents:
        if parent not in nodes:
            similar = _similar_names(parent, known)
            hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
            yield f"the parent {parent} is not known and is ignored{hint}"
        elif parent not in rows:
            if (fit._relatedness.of_leaf([lineage.index_of(parent)]) > 0).any():
                yield f"the parent {parent} was never evaluated; the forecast uses its relatives"
            else:
                yield f"neither the parent {parent} nor any of its relatives was ever evaluated"
    yield from (note.removeprefix(": ") for note in new.notes if not note.startswith("the parent "))
    # Extrapolation: evaluated models say little, or a score is above theirs.
    above = frame.loc[frame["extrapolates"], "benchmark"].tolist()
    if new.explanation["is_far"]:
        yield (
            "family tree, card and name say little about this model: evaluated models explain "
            "less than a fifth of the variance of its scores"
        )
    elif above:
        yield f"the forecast is above every score of the fit on {_listed(above)}"
    # Benchmarks without scores, of any model or of relatives.
    empty = ~np.isfinite(fit.trained_scores_).any(axis=0)
    if empty.any():
        yield f"no evaluated model has a score on {_listed(np.array(fit.scores_.names)[empty])}"
    unrelated = frame.loc[(frame["relatives"] == 0) & ~empty, "benchmark"].tolist()
    if rows and unrelated:
        yield f"no relative within two steps has a score on {_listed(unrelated)}"
    if not parents:
        yield "without parents the forecast depends on size and name only; name them with --parents"


def _similar_names(parent, known):
    """Ids of the same name in another organization, or spelled similarly."""
    by_lower = {str(name).lower(): name for name in known}
    names = {lower.rpartition("/")[2]: name for lower, name in by_lower.items()}
    close = get_close_matches(parent.lower(), by_lower, n=2, cutoff=0.75)
    same = names.get(parent.lower().rpartition("/")[2])
    return list(dict.fromkeys([*([same] if same else []), *(by_lower[name] for name in close)]))


def _listed(names):
    """The first five names, and how many more there are."""
    names = list(names)
    return ", ".join(map(str, names[:5])) + (f" and {len(names) - 5} more" * (len(names) > 5))


# ---- the table


def as_text(report):
    """The forecast as text: scores in points, what they are based on, notes.

    Parameters
    ----------
    report : dict from `answer`
    """
    parents = [parent for parent in report["parents"] if parent["scores"]][:_N_PARENTS]
    lines = [_headline(report), *_known(report), "", *_table(report, parents), "", *_basis(report)]
    lines += ["", *map(as_note, report["notes"])] if report["notes"] else []
    return "\n".join(lines)


def as_note(note):
    """A note as a sentence."""
    return f"Note: {note}{'' if note.endswith('?') else '.'}"


def _headline(report):
    """First line: the model, its relation and its parents."""
    text = f"Forecast of {report['model_id']}"
    if report["parents"]:
        *first, last = [parent["model_id"] for parent in report["parents"]]
        names = f"{', '.join(first)} and {last}" if first else last
        text += (
            f", {'an' if report['relation'] == 'adapter' else 'a'} {_A[report['relation']]} {names}"
        )
    return f"{text}; scores in points (0 to 100)"


def _known(report):
    """A line with the numbers of revealed answers and scores, if any."""
    counts = [f"{number:,} {what if number > 1 else what[:-1]}"
              for what, number in report["known"].items() if number]  # fmt: skip
    return [f"Known of it: {' and '.join(counts)}."] if counts else []


def _percent(chance, is_certain):
    """A chance in percent; a forecast is never certain, unlike known and highest scores."""
    return f"{100 * (chance if is_certain else min(max(chance, 0.01), 0.99)):.0f}%"


def _table(report, parents):
    """Lines of the table of benchmarks: forecast, interval, parents' scores."""
    heads = ["benchmark", "forecast", "90% interval", *(_short(p["model_id"]) for p in parents)]
    heads += ["beats best parent"] if parents else []
    rows = []
    for row in report["scores"]:
        name, is_known = row["benchmark"], row["upper"] - row["lower"] < _TOLERANCE
        cells = [name, _points(row["score"]), "known" if is_known else _range(row)]
        cells += [_points(parent["scores"][name]) for parent in parents]
        if parents:
            better = row["p_better"]
            is_certain = is_known or better == 0  # as where a parent has the highest score
            cells.append("" if better is None else _percent(better, is_certain))
        rows.append(cells)
    if len(rows) > 1:
        average = report["average"]
        cells = ["average", _points(average["score"]), _range(average)]
        cells += [_points(_mean(parent["scores"])) for parent in parents]
        rows.append(cells + [""] * (len(heads) - len(cells)))
    return aligned([heads, *rows])


def _basis(report):
    """Lines on the shares of lineage and card, and the most similar evaluated models."""
    basis, names = report["basis"], [row["benchmark"] for row in report["scores"]]
    shares = {"family tree": basis["lineage"], "card and name": basis["card_and_name"]}
    shares["what all models share"] = 1 - sum(shares.values())
    text = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    shown = names if len(names) <= _N_BENCHMARKS else []
    heads = ["evaluated models most like it", "related", "average", *shown]
    rows = [
        [one["model_id"], one["related"], _points(_mean(one["scores"]))]
        + [_points(one["scores"][name]) for name in shown]
        for one in basis["nearest"]
    ]
    return [f"It rests on {basis['n_models']:,} evaluated models: {text}.", "",
            *aligned([heads, *rows], n_left=2)]  # fmt: skip


def _short(name):
    """The name of a model without its organization, cut to 20 letters."""
    name = name.rpartition("/")[2]
    return name if len(name) <= _WIDTH else name[: _WIDTH - 1] + "…"


def _points(score):
    return "-" if score is None else f"{100 * score:.1f}"


def _range(row):
    return f"{_points(row['lower'])} to {_points(row['upper'])}"


def _mean(scores):
    """Mean of all scores, None if one is unknown."""
    known = [score for score in scores.values() if score is not None]
    return sum(known) / len(known) if len(known) == len(scores) else None
