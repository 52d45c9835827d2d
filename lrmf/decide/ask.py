"""One question: how good will this model be? Its forecast as a table, and as data for programs."""

from difflib import get_close_matches

import numpy as np

from ..data.response_kinds import PROPORTIONS
from ..data.responses import observed
from ..forecaster.near_duplicates import RELATEDNESS
from .answers import Questions, read_answers

_N_PARENTS = 4  # with a column of their own
_N_BENCHMARKS = 8  # up to which the nearest models' scores are shown one by one
_WIDTH = 20  # of a model's name
_CONFLICT = 1e-6  # difference of scores from which they are not the same
_A = {"finetune": "finetune of", "merge": "merge of", "adapter": "adapter on",
      "quantized": "quantized copy of"}  # fmt: skip
_HOW = {"other": "by card and name", "family": "same family", "two steps": "two steps away",
        "one step": "parent"}  # fmt: skip


def fold_in(forecaster, parents=(), *, relation=None, size=None, name=None, scores=None,
            answers=None):  # fmt: skip
    """The new model that options describe, and notes on what was given.

    Parameters
    ----------
    forecaster : Forecaster
    parents : sequence of ids
    relation : str, optional
        Merge by default if there are several parents, finetune if there is one.
    size : float, optional, billions of parameters
    name : str, optional
    scores : mapping of benchmark to score in [0, 1], optional
    answers : path, optional, as in `read_answers`

    Returns
    -------
    NewModel, list of str

    Raises
    ------
    ValueError
        If what is given contradicts itself.
    """
    scores, parents = dict(scores or {}), list(parents)
    relation = relation_of(parents, relation)
    benchmarks = forecaster.scores_.names
    for benchmark in scores:
        forecaster.scores_.number(benchmark)
    found, notes = None, []
    if answers is not None:
        questions = Questions(forecaster.item_ids_, set(benchmarks))
        found = read_answers(answers, questions, benchmarks)
        notes += found.notes
        twice = [b for b in scores if abs(found.scores.get(b, scores[b]) - scores[b]) > _CONFLICT]
        if twice:
            raise ValueError(f"{answers} has another score of {twice[0]} than --score; drop one")
        scores = found.scores | scores
    card = {"model_id": name or ""} | ({} if size is None else {"params_b": size})
    new = forecaster.fold_in(parents=[(parent, relation) for parent in parents], card=card)
    new = new.update(found.answers) if found else new
    observed = dict(zip(benchmarks, new.scores()["n_observed"], strict=True)) if scores else {}
    if both := [benchmark for benchmark in scores if observed[benchmark]]:
        raise ValueError(f"{both[0]} has both a score and answers; give one of them")
    return (new.with_scores(scores) if scores else new), notes


def relation_of(parents, relation):
    """The relation to the parents, None without any; ValueError if it cannot be."""
    if relation and not parents:
        raise ValueError(f"a {relation} has a parent; name it with --parents")
    if relation and relation != "merge" and len(parents) > 1:
        raise ValueError(f"{len(parents)} parents of a {relation}; only a merge has several")
    if repeated := [parent for parent in parents if parents.count(parent) > 1]:
        raise ValueError(f"the parent {repeated[0]} is given twice; name each parent once")
    usual = "merge" if len(parents) > 1 else "finetune"
    return (relation or usual) if parents else None


def answer(new, *, name=None, parents=(), relation=None, notes=(), level=0.9):
    """All that can be said of a new model, as plain data; scores in [0, 1].

    Returns
    -------
    dict : model_id, relation, parents, scores (as `NewModel.scores`), average, basis (shares of
        lineage and of card and name, and the nearest evaluated models), notes
    """
    fit, frame = new.forecasts, new.scores(level=level)
    mean, lower, upper = new.mean_score(level=level)
    evaluated, basis = list(fit.trained_ids_), new.explanation
    rows = {parent: evaluated.index(parent) for parent in parents if parent in set(evaluated)}
    kin = fit._relatedness_to(np.zeros(1, int))[0]
    nearest = [
        {"model_id": evaluated[row], "related": _HOW[RELATEDNESS[kin[row]]],
         "scores": _scores(fit, row)}
        for row in basis["nearest"]
    ]  # fmt: skip
    said = {
        "model_id": name or "a new model",
        "relation": relation,
        "parents": [
            {"model_id": parent, "scores": _scores(fit, rows[parent]) if parent in rows else None}
            for parent in parents
        ],
        "scores": [_plain(row) for row in frame.to_dict("records")],
        "average": {"score": mean, "lower": lower, "upper": upper},
        "known": _counts(new),
        "basis": {
            "lineage": basis["lineage"], "card_and_name": basis["card_and_name"],
            "nearest": nearest, "n_models": len(evaluated),
        },
        "notes": [*notes, *_notes(new, parents, rows, frame)],
    }  # fmt: skip
    said["average"] = _plain(said["average"])
    said["basis"] |= _plain({key: basis[key] for key in ("lineage", "card_and_name")})
    return said


def _counts(new):
    n = int(observed(new.answers).sum())
    if new.forecasts.kind_ is PROPORTIONS:
        return {"answers": 0, "scores": n}
    return {"answers": n, "scores": len(new.known_scores)}


def _scores(fit, row):
    return _plain(dict(zip(fit.scores_.names, fit.trained_scores_[row], strict=True)))


def _plain(values):
    """NumPy's numbers as JSON knows them; what is not known is null."""
    plain = {
        key: value.item() if hasattr(value, "item") else value for key, value in values.items()
    }
    return {key: None if value != value else value for key, value in plain.items()}


def _notes(new, parents, rows, frame):
    fit = new.forecasts
    known = fit._relatedness.lineage.node_ids
    in_tree = set(known)
    for parent in parents:
        if parent not in in_tree:
            close = _spellings(parent, known)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            yield f"the parent {parent} is not known, and says nothing here{hint}"
        elif parent not in rows:
            yield f"the parent {parent} was never evaluated; its relatives speak for it"
    yield from (note.removeprefix(": ") for note in new.notes if not note.startswith("the parent "))
    far = frame.loc[frame["extrapolates"], "benchmark"].tolist()
    if new.explanation["is_far"]:
        yield "hardly anything like this model has been evaluated: the forecast extrapolates"
    elif far:
        yield f"above every score that the fit has seen: {_listed(far)}"
    nobody = ~np.isfinite(fit.trained_scores_).any(axis=0)
    if nobody.any():
        yield f"no evaluated model has a score on {_listed(np.array(fit.scores_.names)[nobody])}"
    alone = frame.loc[(frame["relatives"] == 0) & ~nobody, "benchmark"].tolist()
    if rows and alone:
        yield f"no relative within two steps has a score on {_listed(alone)}"
    if not parents:
        yield "without parents the forecast rests on size and name alone; --parents says more"


def _spellings(parent, known):
    by_lower = {str(name).lower(): name for name in known}
    names = {lower.rpartition("/")[2]: name for lower, name in by_lower.items()}
    close = get_close_matches(parent.lower(), by_lower, n=2, cutoff=0.75)
    same = names.get(parent.lower().rpartition("/")[2])
    return list(dict.fromkeys([*([same] if same else []), *(by_lower[name] for name in close)]))


def _listed(names):
    names = list(names)
    return ", ".join(map(str, names[:5])) + (f" and {len(names) - 5} more" * (len(names) > 5))


# ---- the table


def as_text(said):
    """The answer to read: scores in points, what they rest on, notes."""
    parents = [parent for parent in said["parents"] if parent["scores"]][:_N_PARENTS]
    lines = [_headline(said), *_known(said), "", *_table(said, parents), "", *_basis(said)]
    lines += ["", *map(as_note, said["notes"])] if said["notes"] else []
    return "\n".join(lines)


def as_note(note):
    """A note as a sentence of its own."""
    return f"Note: {note}{'' if note.endswith('?') else '.'}"


def _headline(said):
    text = f"Forecast of {said['model_id']}"
    if said["parents"]:
        *first, last = [parent["model_id"] for parent in said["parents"]]
        names = f"{', '.join(first)} and {last}" if first else last
        text += f", {'an' if said['relation'] == 'adapter' else 'a'} {_A[said['relation']]} {names}"
    return f"{text}; scores in points (0 to 100)"


def _known(said):
    counts = [f"{number:,} {what if number > 1 else what[:-1]}"
              for what, number in said["known"].items() if number]  # fmt: skip
    return [f"Known of it: {' and '.join(counts)}."] if counts else []


def _table(said, parents):
    heads = ["benchmark", "forecast", "90% interval", *(_short(p["model_id"]) for p in parents)]
    heads += ["beats best parent"] if parents else []
    rows = []
    for row in said["scores"]:
        name, is_known = row["benchmark"], row["upper"] - row["lower"] < _CONFLICT
        cells = [name, _points(row["score"]), "known" if is_known else _range(row)]
        cells += [_points(parent["scores"][name]) for parent in parents]
        if parents:
            better = row["p_better"]
            cells.append("" if better is None else f"{100 * min(max(better, 0.01), 0.99):.0f}%")
        rows.append(cells)
    if len(rows) > 1:
        average = said["average"]
        cells = ["average", _points(average["score"]), _range(average)]
        cells += [_points(_mean(parent["scores"])) for parent in parents]
        rows.append(cells + [""] * (len(heads) - len(cells)))
    return aligned([heads, *rows])


def _basis(said):
    basis, names = said["basis"], [row["benchmark"] for row in said["scores"]]
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


def aligned(rows, n_left=1):
    """Lines of a table, the first columns to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < n_left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]  # fmt: skip


def _short(name):
    name = name.rpartition("/")[2]
    return name if len(name) <= _WIDTH else name[: _WIDTH - 1] + "…"


def _points(score):
    return "-" if score is None else f"{100 * score:.1f}"


def _range(row):
    return f"{_points(row['lower'])} to {_points(row['upper'])}"


def _mean(scores):
    known = [score for score in scores.values() if score is not None]
    return sum(known) / len(known) if len(known) == len(scores) else None
