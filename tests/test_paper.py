"""The paper: numbers come from the results, words follow the numbers, the log is clean."""

import itertools
import re
import shutil

import pandas as pd
import pytest

from lrmf.forecaster import covariance, drift, forecaster, state_prior
from lrmf.report import tables
from lrmf.simulation import items as simulated_items
from lrmf.solver.calibration import IntervalCalibration
from paper import build, generate
from paper.generate import Facts, PaperError, Results

PAPER = build.PAPER
SECTIONS = sorted(PAPER.glob("sections/*.tex"))
SOURCES = [PAPER / "main.tex", *SECTIONS]
LENGTH = (
    r"(?<![\w.])\d+\.\d+(?=\s*(?:pt|em|ex|in|cm|mm|\\(?:text|line|column)width)\b)"
    r"|(?<=fraction\}\{)0\.\d+"
)
OPTIONAL = re.compile(r"^Has|^Bench|^V(One|Two)ZeroShot#")


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper") / "generated"
    generate.generate(generate.ROOT, folder)
    return folder


def source(path):
    """Text without comments."""
    return re.sub(r"(?<!\\)%.*", "", path.read_text(encoding="utf-8"))


def everything():
    return "\n".join(map(source, SOURCES))


# ---- the text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
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


def test_every_macro_and_switch_in_the_text_is_generated(generated):
    numbers = (generated / "numbers.tex").read_text(encoding="utf-8")
    known = set(re.findall(r"\\newcommand\{\\(\w+)\}", numbers + everything()))
    known |= set(re.findall(r"\\DeclareRobustCommand\{\\(\w+)\}", everything()))
    used = set(re.findall(r"\\([A-Z][A-Za-z]+)", everything())) | set(
        re.findall(r"\\When\{(\w+)\}", everything())
    )
    latex = {
        "DeclareMathOperator",
        "DeclareRobustCommand",
        "PackageError",
        "Omega",
        "Lambda",
        "Phi",
    }
    latex |= {"Delta", "Psi", "Sigma"}
    assert [name for name in used - known - latex if not OPTIONAL.search(name)] == []
    switches = (generated / "switches.tex").read_text(encoding="utf-8")
    asked = set(re.findall(r"\\(?:Compare|IfSo)\{(\w+)\}", everything()))
    missing = asked - set(re.findall(r"\\SetSwitch\{(\w+)\}", switches))
    assert [name for name in missing if not OPTIONAL.search(name)] == []


@pytest.mark.parametrize("path", SECTIONS, ids=lambda path: path.stem)
def test_every_comparison_has_words_for_every_outcome(path):
    text = source(path)
    for match in re.finditer(r"\\(Compare|IfSo)\{\w+\}", text):
        rest = text[match.end() :]
        for _ in range({"Compare": 3, "IfSo": 2}[match[1]]):
            rest = rest.lstrip()
            assert rest.startswith("{"), match[0]
            rest = rest[_closing_brace(rest) :]


def _closing_brace(text):
    depths = itertools.accumulate((letter == "{") - (letter == "}") for letter in text)
    return next(place for place, depth in enumerate(depths, 1) if depth == 0)


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
            yield re.search(r"\\label\{(\S+?)\}", rest)[1], match[0], rest[: _closing_brace(rest)]


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
    facts = Facts()
    for short in generate.RUNS:
        generate.describe_run(Results(generate.ROOT, short), facts)
    text = source(PAPER / "sections" / "protocols.tex")
    described = {name.lower() for name in re.findall(r"\\emph\{([^}]+)\}", text)} | {"lrmf"}
    known = {tables.macro_name(name).lower() for name in described}
    known |= {"lineageaveragemultihop", "lineageaverageonehop", "lineageaverageonehopraw"}
    found = {name.removeprefix("Has").lower() for name in facts.macros if name.startswith("Has")}
    assert found - known == set()


# ---- what is generated


def test_equal_results_give_equal_bytes(generated, tmp_path):
    names = generate.generate(generate.ROOT, tmp_path / "again")
    assert names == sorted(path.name for path in generated.iterdir())
    for path in generated.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def comparison(predictor, metric, difference, **columns):
    low, high = difference
    row = {"predictor": predictor, "metric": metric, "benchmark": "all", "value": 0.5}
    row |= {"lower": 0.4, "upper": 0.6, "difference": (low + high) / 2}
    row |= {"difference_lower": low, "difference_upper": high, "n_models": 1234, "n_clusters": 9}
    return row | columns


def test_who_is_ahead_follows_the_interval_and_the_metric():
    facts = Facts()
    rows = [
        comparison("Forecaster", "pearson", (0, 0)),
        comparison("a", "pearson", (0.1, 0.2)),
        comparison("b", "pearson", (-0.1, 0.2)),
        comparison("c", "pearson", (-0.2, -0.1)),
        comparison("a", "mae", (-2, -1)),
        comparison("c", "mae", (1, 2)),
        comparison("d", "mae", (float("nan"),) * 2),
    ]
    facts.compare(pd.DataFrame(rows), "v2 zero shot")
    switches = {name.removeprefix("VTwoZeroShot"): value for name, value in facts.switches.items()}
    assert switches == {
        "APearson": 1, "BPearson": 0, "CPearson": -1, "AMae": 1, "CMae": -1, "DMae": 0,
    }  # fmt: skip
    assert facts.macros["VTwoZeroShotAPearsonLead"] == "0.15 [0.10, 0.20]"


def test_the_rival_is_the_best_predictor_that_is_no_lrmf():
    facts = Facts()
    rows = [
        comparison("LRMF", "pearson", (0, 0), value=0.9),
        comparison("new", "pearson", (0.1, 0.3), value=0.6),
        comparison("kNN", "pearson", (0.2, 0.4), value=0.5),
        comparison("new", "mae", (-2, -1), value=5),
        comparison("kNN", "mae", (-1, 1), value=4),
    ]
    facts.compare_all(pd.DataFrame(rows), "x")
    assert facts.macros["XRivalPearsonName"] == "new" and facts.macros["XRivalMaeName"] == "kNN"
    assert facts.macros["XRivalPearson"] == "0.60" and facts.macros["XRivalMae"] == "4.0"
    assert facts.switches["XRivalPearson"] == 1 and facts.switches["XRivalMae"] == 0
    assert facts.macros["XModels"] == "1,234"


def curve(**values):
    rows = []
    for predictor, by_k in values.items():
        for k, (value, upper) in by_k.items():
            row = comparison(predictor, "pearson", (upper - 0.1, upper), value=value, k=k)
            rows.append(row)
    return pd.DataFrame(rows)


def test_worth_is_where_a_predictor_without_lineage_catches_up():
    facts = Facts()
    frame = curve(
        Forecaster={0: (0.7, 0), 5: (0.75, 0), 20: (0.8, 0)},
        kNN={0: (0, 0.8), 5: (0.6, 0.2), 20: (0.85, -0.01)},
        MF={0: (0, 0.8), 5: (0.71, 0.1), 20: (0.79, 0.05)},
    )
    generate.describe_worth(frame, facts, "v1")
    assert facts.macros["VOneWorth"] == "5" and facts.macros["VOneWorthName"] == "MF"
    assert facts.macros["VOneOvertaken"] == "20" and facts.macros["VOneOvertakenName"] == "kNN"
    alone = Facts()
    generate.describe_worth(frame[frame["predictor"] == "Forecaster"], alone, "v1")
    assert facts.macros["VOneWorthPrevious"] == "0"
    assert facts.macros["VOneWithoutLineage"] == "kNN and MF"
    assert alone.macros["VOneWithoutLineage"] == "none"
    assert alone.switches == {"VOneWorth": 0, "VOneOvertaken": 0}
    assert alone.macros["VOneWorth"] == "" and alone.macros["VOneOvertakenName"] == ""


@pytest.mark.parametrize(
    ("coverage", "switch"), [([0.9, 0.91], 1), ([0.9, 0.8], -1), ([0.9, 0.97], 0)]
)
def test_coverage_is_judged_by_its_worst(coverage, switch):
    frame = pd.DataFrame({"k": [0, 5], "metric": "coverage", "value": coverage})
    frame = frame.assign(predictor="Forecaster", benchmark="all")
    width = frame.assign(metric="width", value=[20, 18])
    score = frame.assign(metric="interval_score", value=[25, 21.5])
    facts = Facts()
    generate.describe_calibration(pd.concat([frame, width, score]), facts, "v1")
    assert facts.macros["VOneIntervalScoreLast"] == "21.5"
    assert facts.switches == {"VOneCoverage": switch}
    assert facts.macros["VOneCoverageFirst"] == "90%"


def test_coverage_of_single_benchmarks_names_the_extremes():
    frame = pd.DataFrame({"k": [0, 5, 5], "benchmark": ["arc", "arc", "gsm8k"]})
    frame = frame.assign(metric="coverage", value=[0.9, 0.85, 0.95], predictor="Forecaster")
    both = frame.iloc[:2].assign(benchmark="all")
    facts = Facts()
    others = [both.assign(metric=name, value=[20, 18]) for name in ("width", "interval_score")]
    generate.describe_calibration(pd.concat([frame, both, *others]), facts, "v1")
    assert facts.macros["VOneSingleCoverageLowest"] == r"85%"
    assert facts.macros["VOneSingleCoverageLowestStep"] == "5"
    assert facts.macros["VOneSingleCoverageHighestName"] == "GSM8K"


@pytest.mark.parametrize(("coverage", "switch"), [((0.9, 0.91), 1), ((0.6, 0.9), -1)])
def test_coverage_of_the_random_holdout_has_its_extremes(coverage, switch):
    rows = [
        comparison(name, "coverage", (0, 0), value=value, density=density)
        for name in ("Forecaster", "LRMF")
        for density, value in zip((0.1, 0.5), coverage, strict=True)
    ]
    rows.append(comparison("kNN", "coverage", (0, 0), value=float("nan"), density=0.1))
    facts = Facts()
    generate.describe_holdout_coverage(pd.DataFrame(rows), facts, "v1")
    assert facts.macros["VOneRandomCoverageLowest"] == f"{100 * coverage[0]:.0f}%"
    assert facts.macros["VOneRandomCoverageHighest"] == f"{100 * coverage[1]:.0f}%"
    assert facts.switches == {"VOneRandomCoverage": switch}


@pytest.mark.parametrize(("lowest", "switch"), [(0.8701, 1), (0.8675, -1)])
def test_coverage_is_judged_before_rounding(lowest, switch):
    assert generate.kept(pd.Series([lowest, 0.9])) == switch


def claims_of(*leads):
    """A table of claims: the leads over MF of LRMF and of Forecaster, in one setting each."""
    rows = [
        ("random hold-out, 2% observed", method, "MF", lead, verdict)
        for method, lead, verdict in leads
    ]
    return pd.DataFrame(rows, columns=["setting", "method", "rival", "lead", "verdict"])


def test_claims_are_counted_apart_for_the_factorization_and_the_forecaster():
    own = ("LRMF", "0.01 [-0.00, 0.02]", "no clear difference")
    whole = ("Forecaster", "0.13 [0.11, 0.15]", "better")
    facts = Facts()
    generate.describe_claims(claims_of(own, whole), facts, "v1")
    assert facts.macros["VOneRandomLRMFClaimsHeld"] == "0"
    assert (
        facts.macros["VOneRandomForecasterClaimsHeld"]
        == facts.macros["VOneRandomForecasterClaims"]
        == "1"
    )
    assert facts.macros["VOneLRMFRandomFirstMF"] == own[1]
    assert facts.switches["VOneLRMFRandomFirstMF"] == 0
    table = generate.claim_table(claims_of(own, whole))
    [line] = [line for line in table.splitlines() if line.startswith("hold-out, 2")]
    assert [part.strip() for part in line.split("&")][2:5:2] == [
        "0.01 [$-$0.00, 0.02]",
        "0.13 [0.11, 0.15]",
    ]


@pytest.mark.parametrize(
    ("lead", "sign"),
    [
        ("0.02 [0.00, 0.03]", 1),
        ("0.00 [-0.00, 0.01]", 0),
        ("-0.01 [-0.02, -0.00]", -1),
        ("0.00 [0.00, 0.00]", 0),
        ("0.03", 0),
    ],
)
def test_a_lead_as_text_has_a_sign(lead, sign):
    assert generate.sign_of(lead) == sign


def test_the_ingredient_that_costs_most_is_named():
    facts = Facts()
    rows = [
        comparison("Forecaster", "pearson", (0, 0)),
        comparison("without x", "pearson", (0, 0.1)),
    ]
    rows.append(comparison("without y", "pearson", (0.1, 0.2)))
    generate.describe_ingredients(pd.DataFrame(rows), facts, "v1", "ingredients")
    assert facts.macros["VOneIngredientsMostName"] == "y"
    assert facts.macros["VOneIngredientsMostPearsonLead"] == "0.15 [0.10, 0.20]"


def test_a_constant_that_is_gone_is_named(monkeypatch):
    monkeypatch.setitem(generate.CONSTANTS, "copies kept", (generate.near_duplicates, "GONE"))
    with pytest.raises(PaperError, match="lrmf.forecaster.near_duplicates has no GONE any more"):
        generate.describe_constants(Facts())


def test_constants_that_the_text_says_in_words_are_those_of_the_code():
    text = " ".join(source(PAPER / "sections" / "appendix.tex").split())
    said = {
        r"reach $r \in \{0, 1/4, 1/2\}$": state_prior._REACHES == (0, 1 / 4, 1 / 2),
        "with four degrees of freedom": state_prior._DEGREES == 4,
        "sixteen quantiles": covariance._ATOMS == 16,
        "tell less than a third do not take part": covariance.LearningConfig.least_share == 1 / 3,
        "The latest fifth of the training models": drift.DriftConfig.late_share == 0.2,
        "Scores of fewer than ten answers": IntervalCalibration.fit.__kwdefaults__["fewest"] == 10,
        "fewer than fifty answers a parameter": forecaster.CrossFitConfig.enough_answers == 50,
        "Eight minor factors": simulated_items.ItemConfig().n_minor == 8,
    }
    assert all(words in text and right for words, right in said.items())


def test_results_of_the_earlier_forecaster_are_told_by_its_trees(tmp_path):
    for left_out, is_earlier in {"trees": True, "near-duplicates": False}.items():
        table = f"predictor,value\nForecaster,1\nwithout {left_out},1\n"
        (tmp_path / "ingredients.csv").write_text(table)
        assert generate.is_earlier(tmp_path) is is_earlier


def test_a_gain_is_an_error_saved():
    row = comparison("without lineage", "mae", (-0.5, -0.1), stratum="distance", level="1 hop")
    facts = Facts()
    generate.describe_gains(pd.DataFrame([row | {"n_models": 1234}]), facts, "v1")
    assert facts.macros["VOneGainOneHop"] == "0.3 [0.1, 0.5]"
    assert facts.macros["VOneGainOneHopModels"] == "1,234"
    assert facts.switches["VOneGainOneHop"] == 1


def test_an_ingredient_is_worth_what_leaving_it_out_costs():
    rows = [
        comparison("Forecaster", "pearson", (0, 0)),
        comparison("without x", "pearson", (0.1, 0.2)),
    ]
    table = generate.ingredients(pd.DataFrame(rows))
    assert table.loc["Forecaster", "cost in r"] == tables.NONE
    assert table.loc["without x", "cost in r"] == "0.15 [0.10, 0.20]"


def test_tables_escape_align_and_group():
    frame = pd.DataFrame(
        {"r|a": ["0.5", "-0.1"], "note|a": ["x_y", "-"]}, index=pd.Index(["A & B", "C"], name="p")
    )
    text = generate.tabular(frame, groups=[("v1", 2)])
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
    documented = generate.documented_data(generate.ROOT)
    counts = generate.counts_of(Results(generate.ROOT, "v2"))
    generate.check_documented("v2", counts, documented["v2"])
    with pytest.raises(PaperError, match="edges of openllm-v2"):
        generate.check_documented("v2", counts | {"edges": 1}, documented["v2"])


def test_without_a_benchmark_of_the_solver_its_table_is_left_out(tmp_path):
    facts = Facts()
    assert generate.describe_bench(tmp_path, facts) == {} and facts.switches == {"Bench": 0}
    (tmp_path / "bench/results").mkdir(parents=True)
    (tmp_path / "bench/results/summary.csv").write_text("problem,solver\nfull,LRMF\n")
    with pytest.raises(PaperError, match="lacks cpu_to_loss; run `make bench`"):
        generate.describe_bench(tmp_path, facts)


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
    facts = Facts()
    table = generate.describe_bench(tmp_path, facts)["table_bench"]
    assert "L-BFGS & 9.00 & 8.00 & 8 & 300" in table
    assert r"NMF & 7.00 & \textendash & never & 300" in table
    assert r"Adam & 60.00 & \textendash & \textgreater{} 60 & 300" in table
    assert facts.macros["BenchFullNearest"] == "8"
    assert facts.macros["BenchFullNearestName"] == "L-BFGS"


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


def test_without_latex_the_message_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert build.main() == 1
    message = capsys.readouterr().err
    assert "apt-get install" in message and "latexmk" in message and "tectonic" in message


@pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")
def test_the_paper_builds_to_the_same_bytes():
    generate.generate(generate.ROOT, generate.GENERATED)
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
