"""The paper: numbers come from the results, comparisons in words are checked, the log is clean."""

import re
import shutil

import pandas as pd
import pytest

from lrmf.forecaster import covariance, drift, forecaster, state_prior
from lrmf.report import tables
from lrmf.report.knowledge_figure import SOURCES
from lrmf.simulation import items as simulated_items
from lrmf.solver.calibration import IntervalCalibration
from paper import build, generate, results, sentences, tabular
from paper.generate import closing_brace
from paper.results import PaperError, Results

PAPER = build.PAPER
SECTIONS = sorted(PAPER.glob("sections/*.tex"))
SOURCES_OF_TEXT = [PAPER / "main.tex", *SECTIONS]
LENGTH = (
    r"(?<![\w.])\d+\.\d+(?=\s*(?:pt|em|ex|in|cm|mm|\\(?:text|line|column)width)\b)"
    r"|(?<=fraction\}\{)0\.\d+"
)


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper") / "generated"
    generate.generate(results.ROOT, folder)
    return folder


def source(path):
    """Text without comments."""
    return re.sub(r"(?<!\\)%.*", "", path.read_text(encoding="utf-8"))


def everything():
    return "\n".join(map(source, SOURCES_OF_TEXT))


# ---- the text


@pytest.mark.parametrize("path", SOURCES_OF_TEXT, ids=lambda path: path.stem)
def test_no_number_with_a_decimal_point_is_typed_by_hand(path):
    assert re.findall(r"\d*\.\d+", re.sub(LENGTH, "", source(path))) == []


def test_every_section_is_read_and_every_file_is_there(generated):
    text = everything()
    assert {f"sections/{path.stem}" for path in SECTIONS} == {
        name for name in re.findall(r"\\input\{([^}#]+)\}", text) if name.startswith("sections/")
    }
    tables = set(re.findall(r"\\generated\{(\w+)\}", text)) - {"bench"}
    written = {path.stem.removeprefix("table_") for path in generated.glob("table_*.tex")}
    assert tables and tables <= written
    figures = re.findall(r"\\(?:wide|figures)\{([^}#]+)\}", text)
    assert figures and not [name for name in figures if not (PAPER / "../figures" / name).exists()]


def test_everything_that_is_generated_is_used():
    text, root = everything(), results.ROOT
    used = set(re.findall(r"\\When\{(\w+)\}|\\([A-Za-z]+)", text))
    used = {name for pair in used for name in pair}
    assert set(re.findall(r"\\generated\{(\w+)\}", text)) == set(tabular.all_tables(root))
    named = generate.constants() | generate.bench_macros(root)
    assert [name for name in named if name not in used] == []
    runs = tuple(map(tables.macro_name, results.RUNS))
    for words in generate.FRAMES:
        starts = tuple(run + tables.macro_name(words) for run in runs)
        assert any(name.startswith(starts) for name in used), words
    facts = [generate.facts_of(root, Results(root, short)) for short in results.RUNS]
    endings = {re.sub(f"^({'|'.join(runs)})", "", name) for found in facts for name in found}
    unused = [end for end in endings if not used & {run + end for run in runs}]
    assert [
        end for end in unused if not end.startswith(("Claim", "Card", "EarlierForecaster"))
    ] == []


def test_a_number_that_no_result_gives_is_an_error_unless_the_sentence_can_be_left_out():
    macros = {"VTwoA": "1", "VTwoB": "2", "Named": "3"}
    text = r"\VTwoA \Named \Omega \When{VOneNone}{lost \VOneNone{} \VTwoB} \When{VTwoA}{\VTwoB}"
    assert generate.used_macros(text, macros) == {"VTwoA": "1", "Named": "3", "VTwoB": "2"}
    assert "VTwoB" not in generate.used_macros(text.replace(r"\When{VTwoA}{\VTwoB}", ""), macros)
    with pytest.raises(PaperError, match="VTwoMissing, which no committed result gives"):
        generate.used_macros(r"\VTwoMissing", macros)


def test_the_abstract_is_short_and_has_at_most_six_numbers():
    text = source(PAPER / "sections" / "abstract.tex")
    text = re.sub(r"\\checked\{[^}]*\}|\\(begin|end)\{abstract\}", "", text)
    assert len(text.split()) <= 150
    assert len(re.findall(r"\\V(?:One|Two)\w+", text)) <= 6


# ---- comparisons in words


def test_every_comparison_in_words_is_what_the_results_say():
    found = sentences.contradictions(results.ROOT, sentences.checks())
    assert not found, "rewrite these sentences of the paper, and their checks"


def test_every_mark_has_a_check_and_every_check_a_mark():
    marked = set(re.findall(r"\\checked\{([^}#]+)\}", everything()))
    assert marked == set(sentences.checks()["sentence"])


@pytest.fixture
def run_of_results(tmp_path):
    folder = tmp_path / "figures" / results.RUNS["v2"]
    folder.mkdir(parents=True)
    rows = [comparison("a", "pearson", (0.1, 0.2)), comparison("a", "mae", (-2, -1))]
    rows += [comparison("b", "pearson", (-0.1, 0.2)), comparison("b", "mae", (1, 2), value=4)]
    pd.DataFrame(rows).to_csv(folder / "frame.csv", index=False)
    pd.DataFrame({"claim": ["c"], "verdict": ["kept"]}).to_csv(folder / "claims.csv", index=False)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "query", "expected", "than", "holds"),
    [
        ("frame", "predictor == 'a'", "better", "", True),
        ("frame", "predictor == 'a' and metric == 'mae'", "worse", "", False),
        ("frame", "predictor == 'b' and metric == 'pearson'", "no clear difference", "", True),
        ("frame", "predictor == 'b' and metric == 'mae'", "worse", "", True),
        ("frame", "predictor == 'b'", "worse", "", False),
        ("frame", "predictor == 'nobody'", "better", "", False),
        ("frame", "metric == 'mae' and predictor == 'b'", "above", "3", True),
        ("frame", "predictor == 'a'", "below", "predictor == 'b' and metric == 'mae'", True),
        ("claims", "claim == 'c'", "kept", "", True),
        ("claims", "claim == 'c'", "too narrow", "", False),
    ],
)
def test_a_check_follows_interval_metric_and_value(
    run_of_results, file, query, expected, than, holds
):
    row = {"sentence": "s", "run": "v2", "file": file, "query": query}
    table = pd.DataFrame([row | {"expected": expected, "than": than}])
    assert bool(sentences.contradictions(run_of_results, table)) is not holds


# ---- figures, tables, references


def test_bibliography_and_citations_agree():
    entries = re.findall(r"^@\w+\{(\w+),", (PAPER / "references.bib").read_text("utf-8"), re.M)
    lists = re.findall(r"\\cite\w*\{([^}]+)\}", everything())
    cited = {key.strip() for keys in lists for key in keys.split(",")}
    assert sorted(entries) == sorted(cited)


def test_every_float_has_caption_and_label_and_is_referred_to():
    text = everything()
    labels = re.findall(r"\\label\{((?:fig|tab):\w+)\}", text)
    assert len(labels) == len(set(labels)) == text.count("\\caption{")
    shown = {label for label in labels if label.startswith("fig")}
    assert not [label for label in shown if f"\\ref{{{label}}}" not in text]


def floats():
    """(label, source of the float, its caption) of every figure and table."""
    pattern = r"\\begin\{(figure|table)\*?\}.*?\\end\{\1\*?\}"
    for match in re.finditer(pattern, everything(), re.S):
        _, found, rest = match[0].partition("\\caption")
        if found:
            yield re.search(r"\\label\{(\S+?)\}", rest)[1], match[0], rest[: closing_brace(rest)]


ABOUT_CODE = {"tab:settings", "tab:grids", "tab:simulator", "tab:map"}
COUNTED = {"tab:data"}  # the table itself counts models
HOW_MANY = r"\$n = |\\Bench\w+Models|\$n\$\s+(?:as\s+)?in|[Mm]odels\s+as\s+in"


@pytest.mark.parametrize(("label", "body", "caption"), list(floats()))
def test_captions_name_the_data_what_makes_it_and_how_many_models(label, body, caption):
    if label in ABOUT_CODE:
        assert re.search(r"[Rr]ead\s+from\s+the\s+code|make\s+reproduce", caption)
        return
    assert re.search(r"[Nn]otebooks?\s+0\d|make\s+bench", caption)
    assert re.search(r"[Rr]eal\s+data|[Ss]imulated\s+data|\(simulated\)", caption)
    assert "simulated/" not in body or "Simulated data" in caption
    assert label in COUNTED or re.search(HOW_MANY, caption)


def test_every_predictor_of_the_results_is_described():
    text = source(PAPER / "sections" / "protocols.tex")
    described = {name.lower() for name in re.findall(r"\\emph\{([^}]+)\}", text)}
    found = set()
    for short in results.RUNS:
        found |= set(Results(results.ROOT, short).read("zero_shot")["predictor"])
    names = {results.called(name).lower().removesuffix(", raw") for name in found}
    assert names - described - {"forecaster"} == set()


# ---- what is generated


@pytest.mark.slow  # reads the results of all runs twice
def test_equal_results_give_equal_bytes(generated, tmp_path):
    names = generate.generate(results.ROOT, tmp_path / "again")
    assert names == sorted(path.name for path in generated.iterdir())
    for path in generated.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def comparison(predictor, metric, difference, **columns):
    low, high = difference
    row = {"predictor": predictor, "metric": metric, "benchmark": "all", "value": 0.5}
    row |= {"lower": 0.4, "upper": 0.6, "difference": (low + high) / 2}
    row |= {"difference_lower": low, "difference_upper": high, "n_models": 1234, "n_clusters": 9}
    return row | columns


def test_a_constant_that_is_gone_is_named(monkeypatch):
    monkeypatch.setitem(generate.CONSTANTS, "copies kept", (generate.near_duplicates, "GONE"))
    with pytest.raises(PaperError, match="lrmf.forecaster.near_duplicates has no GONE any more"):
        generate.constants()


def test_constants_that_the_text_says_in_words_are_those_of_the_code():
    text = " ".join(source(PAPER / "sections" / "appendix.tex").split())
    said = {
        r"reach $r \in \{0, 1/4, 1/2, 1\}$": state_prior._REACHES == (0, 1 / 4, 1 / 2, 1),
        r"leave-one-out errors of children by at most 5\%": state_prior._REACH_COST == 1.05,
        "with four degrees of freedom": state_prior._DEGREES == 4,
        "sixteen quantiles": covariance._ATOMS == 16,
        "less than a third of the variance are left out": covariance.LearningConfig.least_share
        == 1 / 3,
        "The latest fifth of the training models": drift.DriftConfig.late_share == 0.2,
        "Scores of fewer than twenty answers": IntervalCalibration.fit.__kwdefaults__["fewest"]
        == 20,
        "fewer than fifty answers a parameter": forecaster.CrossFitConfig.enough_answers == 50,
        "Eight minor factors": simulated_items.ItemConfig().n_minor == 8,
    }
    assert all(words in text and right for words, right in said.items())


def test_differences_in_r_are_quoted_in_points():
    rows = [comparison("Forecaster", "pearson", (0, 0)), comparison("a", "pearson", (0.1, 0.2))]
    frame = generate.tidy(pd.DataFrame(rows), generate.Frame("zero_shot"))
    assert results.points(*frame.loc[1, generate.COMPARED[-3:]]) == "15 [10, 20]"


def test_frames_of_plans_and_of_chosen_answers_become_comparisons():
    plans = pd.DataFrame([comparison("x", "tau", (0, 1))]).rename(columns={"predictor": "planner"})
    tidy = generate.tidy(plans, generate.FRAMES["plans"])
    assert tidy["predictor"].tolist() == ["x"] and tidy["metric"].tolist() == ["tau"]
    chosen = pd.DataFrame({"strategy": ["s"], "n_answers": [5], "mae": [2.0], "width": [9.0]})
    tidy = generate.tidy(chosen, generate.FRAMES["chosen"])
    assert tidy[["metric", "value"]].to_numpy().tolist() == [["mae", 2.0], ["width", 9.0]]


def test_levels_stand_in_front_of_the_predictor():
    frame = pd.DataFrame([comparison("LRMF", "pearson", (0, 1), variant="50% of the edges")])
    tidy = generate.tidy(frame, generate.FRAMES["variant"])
    assert tidy["predictor"].tolist() == ["50 percent of the edges LRMF"]


def test_predictors_that_tell_no_models_apart_are_left_out_of_a_table():
    r = {"A": "0.80 [0.70, 0.90]", "MF": "0.00 [0.00, 0.00]", "item mean": "0.00 [0.00, 0.00]"}
    assert tabular.ranking(pd.DataFrame({"r [95% interval]": r})).index.tolist() == [
        "A", "item mean",
    ]  # fmt: skip


@pytest.mark.slow  # draws a figure of four runs
def test_the_knowledge_figure_reads_what_each_run_has(tmp_path):
    numbers = generate.draw_knowledge(results.ROOT, tmp_path)
    saved = pd.read_csv(tmp_path / "knowledge.csv")
    assert len(saved) == len(numbers) and set(saved["data"]) == set(results.TITLES.values())
    real = saved[saved["data"] == "v2"]
    assert set(real["predictor"]) == {*SOURCES, "noise ceiling"}
    assert real["value"].between(0, 1).all()
    assert saved.groupby("data")["n_models"].nunique().eq(1).all()


def test_tables_escape_align_and_group():
    frame = pd.DataFrame(
        {"r|a": ["0.5", "-0.1"], "note|a": ["x_y", "-"]}, index=pd.Index(["A & B", "C"], name="p")
    )
    text = tabular.tabular(frame, groups=[("v1", 2)])
    assert text.splitlines()[:4] == [
        r"\begin{tabular}[t]{@{}lrl@{}}", r"\toprule", r" & \multicolumn{2}{c}{v1} \\",
        r"\cmidrule(lr){2-3}",
    ]  # fmt: skip
    assert r"p & $r$ & note \\" in text and r"A \& B & 0.5 & x\_y \\" in text
    assert r"C & $-$0.1 & \textendash \\" in text


def test_missing_results_name_the_command(tmp_path):
    with pytest.raises(PaperError, match=r"zero_shot.csv is missing; run `make reproduce RUN=snap"):
        Results(tmp_path, "v1").read("zero_shot")
    assert Results(tmp_path, "v1").read("later_models", optional=True) is None


def test_documented_counts_must_agree_with_the_results():
    documented = results.documented_data(results.ROOT)
    counts = results.counts_of(Results(results.ROOT, "v2"))
    results.check_documented("v2", counts, documented["v2"])
    with pytest.raises(PaperError, match="edges of openllm-v2"):
        results.check_documented("v2", counts | {"edges": 1}, documented["v2"])


def test_without_a_benchmark_of_the_solver_the_message_says_what_to_run(tmp_path):
    with pytest.raises(PaperError, match="lacks cpu_to_loss; run `make bench`"):
        tabular.bench_table(tmp_path)


def test_solver_table_tells_slower_from_never(tmp_path):
    (tmp_path / "bench/results").mkdir(parents=True)
    summary = pd.DataFrame(
        {
            "problem": "full", "solver": ["LRMF", "L-BFGS", "Adam", "NMF"],
            "fit_cpu": [1.5, 9, 60, 7], "cpu_to_loss": [1, 8, None, None], "loss": 0.4,
            "ratio_loss": [1, 8, 60, 7], "peak_mb": 300, "excess": [0, 0, 0.1, None],
        }
    )  # fmt: skip
    summary.to_csv(tmp_path / "bench/results/summary.csv", index=False)
    table, macros = tabular.bench_table(tmp_path), generate.bench_macros(tmp_path)
    assert "L-BFGS & 9.00 & 8.00 & 8 & 300" in table
    assert r"NMF & 7.00 & \textendash & never & 300" in table
    assert r"Adam & 60.00 & \textendash & \textgreater{} 60 & 300" in table
    assert macros["BenchFullNearest"] == "8"
    assert macros["BenchFullNearestName"] == "L-BFGS"


# ---- typesetting


def test_problems_of_a_log():
    log = "\n".join(
        [
            "Overfull \\hbox (4.9pt too wide) in paragraph at lines 1--2",
            "Overfull \\hbox (5.1pt too wide) in paragraph at lines 3--4",
            "LaTeX Warning: Reference `fig:x' on page 1 undefined on input line 3.",
            "Package natbib Warning: Citation `y' on page 1 undefined on input line 4.",
            "LaTeX Warning: Label `z' multiply defined.",
            "Package microtype Info: Loading configuration file microtype.cfg.",
        ]
    )
    assert build.problems(log) == log.splitlines()[1:5]
    assert build.problems("", "Warning--empty year in a\nfine") == ["Warning--empty year in a"]
    error = "./main.tex:7: Undefined control sequence."
    place = r"l.7 at $r = \NoSuchNumber"
    assert build.problems(f"{log}\n{error}\n<recently read>\n{place}") == [f"{error} {place}"]


def test_lengths_of_body_and_appendix_are_read_off_the_labels():
    labels = r"""
\newlabel{end:body}{{13}{7}{Conclusion}{section.13}{}}
\newlabel{start:appendix}{{13}{10}{}{section*.5}{}}
\newlabel{end:appendix}{{17}{17}{}{table.17}{}}
"""
    assert build.lengths(labels) == {"body": 7, "appendix": 8}


def test_without_latex_the_message_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert build.main() == 1
    message = capsys.readouterr().err
    assert "apt-get install" in message and "latexmk" in message and "tectonic" in message


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")
def test_the_paper_builds_to_the_same_bytes():
    generate.generate(results.ROOT, generate.GENERATED)
    first, second = build.build("latexmk"), build.build("latexmk")
    assert first == second and first.startswith(b"%PDF-")


@pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")
def test_a_missing_macro_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "main.tex").write_text(
        r"\documentclass{article}\begin{document}\VTwoNoSuchNumber\end{document}"
    )
    monkeypatch.setattr(build, "PAPER", tmp_path)
    with pytest.raises(build.BuildError, match="Undefined control sequence"):
        build.build("latexmk")
