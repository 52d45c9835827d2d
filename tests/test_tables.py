"""Tables and macros: what the text says, that LaTeX can read it, that bytes are stable."""

import re

import numpy as np
import pandas as pd
import pytest

from lrmf.evaluation.bootstrap import judge_leads
from lrmf.report import tables


def compared(values, **columns):
    """A frame as `bootstrap` makes it: predictor -> (value, lower, upper) of r; MAE is 10 r."""
    rows = []
    lead = values.get("Forecaster", (np.nan,) * 3)[0]
    for predictor, (value, lower, upper) in values.items():
        for metric, scale in (("pearson", 1), ("mae", 10)):
            row = {"predictor": predictor, "metric": metric, "benchmark": "all"}
            row |= {"value": scale * value, "lower": scale * lower, "upper": scale * upper}
            row |= {"difference": scale * (lead - value)}
            row |= {"difference_lower": scale * (lead - upper)}
            row |= {"difference_upper": scale * (lead - lower)}
            rows.append(row | {"n_models": 50, "n_clusters": 9} | columns)
    return pd.DataFrame(rows)


ZERO_SHOT = compared(
    {"item mean": (0, 0, 0), "NEW": (0.3, 0.2, 0.4), "Forecaster": (0.7, 0.6, 0.8)}
)


def results_of(comparison):
    rows = []
    for row in comparison.itertuples():
        for benchmark, shift in (("b", 0.1), ("a", -0.1), ("all", 0.0), ("average", 0.05)):
            value = row.value + shift
            n = {"a": 1200, "b": 40}.get(benchmark, 620)
            rows += [(row.predictor, seed, benchmark, row.metric, value, n) for seed in (0, 1)]
    return pd.DataFrame(rows, columns=["predictor", "seed", "benchmark", "metric", "value", "n"])


def test_accuracy_table_holds_intervals_spread_and_only_known_metrics():
    spread = pd.DataFrame(
        [("Forecaster", "all", "pearson", 0.0312)],
        columns=["predictor", "benchmark", "metric", "sd"],
    )
    table = tables.accuracy_table(results_of(ZERO_SHOT), ZERO_SHOT, spread)
    assert list(table.index) == ["Forecaster", "item mean", "NEW"]
    assert table.loc["Forecaster"].to_dict() == {
        "r [95% interval]": "0.70 [0.60, 0.80]",
        "sd over folds": "0.03",
        "r of average": "0.75",
        "MAE": "7.0",
    }
    assert table.loc["NEW", "sd over folds"] == "-"


def test_difference_table_leaves_out_the_reference():
    table = tables.difference_table(ZERO_SHOT)
    assert list(table.index) == ["item mean", "NEW"]
    assert table.loc["NEW"].tolist() == ["0.40 [0.30, 0.50]", "4.0 [3.0, 5.0]"]


def test_benchmark_table_has_the_mean_the_ceiling_and_how_many_models():
    ceiling = pd.DataFrame({"benchmark": ["a", "b"], "ceiling": [0.9, 0.95]})
    table = tables.benchmark_table(results_of(ZERO_SHOT), ceiling=ceiling)
    assert table.loc["models"].tolist() == ["1,200", "40", "-"]
    assert list(table.columns) == ["a", "b", "mean"]
    assert table.loc["Forecaster"].tolist() == ["0.60", "0.80", "0.70"]
    assert table.loc["noise ceiling"].tolist() == ["0.90", "0.95", "0.93"]


def test_a_bound_below_zero_keeps_its_sign():
    assert tables.interval(0.004, -0.001, 0.009, 2) == "0.00 [-0.00, 0.01]"
    assert tables.interval(-0.001, 0.001, 0.0, 2) == "0.00 [0.00, 0.00]"
    assert tables.interval(0.0, -1e-9, -0.0, 2) == "0.00 [0.00, 0.00]"  # rounding errors


def test_claim_table_names_method_and_baseline():
    frame = compared({"Forecaster": (0.7, 0.6, 0.8), "MF": (0.5, 0.4, 0.6)})
    claim = judge_leads(frame).assign(setting="zero-shot", reference="LRMF")
    table = tables.claim_table(claim)
    assert list(table.columns) == ["method", "baseline", "lead", "verdict"]
    assert table.loc["zero-shot"].tolist()[:2] == ["LRMF", "MF"]


def test_curve_interval_and_stratum_tables():
    curve = pd.concat(
        [
            compared({"Forecaster": (0.5 + k / 100, 0.4, 0.6), "kNN": (0, 0, 0)}, k=k)
            for k in (1, 10)
        ]
    )
    curve = curve[(curve["k"] == 1) | (curve["predictor"] == "Forecaster")]
    table = tables.curve_table(curve, "k")
    assert table.to_dict() == {
        "1": {"Forecaster": "0.51", "kNN": "0.00"},
        "10": {"Forecaster": "0.60", "kNN": "-"},
    }
    variants = compared({"Forecaster": (0.5, 0.4, 0.6)}, variant="bias only")
    assert tables.interval_table(variants, "variant").loc["bias only"].tolist() == [
        "0.50 [0.40, 0.60]",
        "5.0 [4.0, 6.0]",
    ]
    strata = pd.concat(
        [
            compared({"Forecaster": (0.5, np.nan, np.nan)}, stratum="relatives", level="2-4"),
            compared({"Forecaster": (0.4, 0.3, 0.5)}, stratum="relatives", level="1"),
        ]
    )
    table = tables.stratum_table(strata)
    assert list(table.index) == ["relatives: 1", "relatives: 2-4"]
    assert table["Forecaster"].tolist() == ["4.0 [3.0, 5.0]", "5.0"]
    assert table["item mean"].tolist() == ["-", "-"]


def test_gains_by_stratum():
    worse = compared(
        {"Forecaster": (0.5, 0.4, 0.6), "without lineage": (0.6, 0.5, 0.7)}, stratum="relatives"
    )
    both = pd.concat([worse.assign(level=level) for level in ("2-4", "1")])
    table = tables.gain_table(both, "without lineage")
    assert list(table.index) == ["relatives: 1", "relatives: 2-4"]
    own = both.query("predictor == 'without lineage' and metric == 'mae' and level == '1'").iloc[0]
    lead = own[["difference", "difference_lower", "difference_upper"]]
    expected = [f"{own['n_models']:,}", f"{own['value']:.1f}", tables.interval(*lead, 1)]
    assert table.loc["relatives: 1"].tolist() == expected


def test_metrics_of_one_predictor_by_benchmark():
    rows = [
        ("Forecaster", name, metric, value + seed, seed)
        for seed in (0, 2)
        for name in ("all", "average", "b", "a")
        for metric, value in (("mae", 1.0), ("coverage", 0.5))
    ]
    columns = ["predictor", "benchmark", "metric", "value", "seed"]
    results = pd.DataFrame([*rows, ("kNN", "b", "mae", 9.0, 0)], columns=columns).assign(n=9)
    table = tables.metric_table(results, "Forecaster", ["coverage", "mae"])
    assert list(table.index) == ["b", "a", "all", "average"]
    assert list(table.columns) == ["coverage", "MAE"]
    assert table.loc["b"].tolist() == ["1.50", "2.0"]


def test_of_many_benchmarks_those_with_most_models_are_shown():
    counts = pd.Series({f"task {n}": n % 15 for n in range(15)})
    assert tables.most_evaluated(counts) == [f"task {n}" for n in range(5, 15)]
    assert tables.most_evaluated(counts[:4]) == list(counts.index[:4])


def test_empty_frames_make_empty_tables():
    empty = pd.DataFrame()
    made = [
        tables.accuracy_table(empty, empty, empty),
        tables.difference_table(empty),
        tables.benchmark_table(empty),
        tables.curve_table(empty, "k"),
        tables.interval_table(empty, "k"),
        tables.stratum_table(empty),
        tables.gain_table(empty, "without lineage"),
        tables.metric_table(empty, "Forecaster", ["mae"]),
        tables.quality_table(empty),
        tables.claim_table(empty),
    ]
    assert all(table.empty for table in made)
    assert tables.macros_of(empty) == {}


@pytest.mark.parametrize(
    ("value", "text"), [(0.125, "0.12"), (-0.001, "0.00"), (np.nan, "-"), (None, "-"), (2, "2.00")]
)
def test_numbers(value, text):
    assert tables.number(value, 2) == text


def test_escape():
    assert tables.escape("50% of a_b & {c} #1 ~ ^ \\ $") == (
        r"50\% of a\_b \& \{c\} \#1 \textasciitilde{} \textasciicircum{} \textbackslash{} \$"
    )
    assert tables.escape("-0.3 [-0.4, -0.2] and 2-4") == "$-$0.3 [$-$0.4, $-$0.2] and 2-4"


def test_latex_is_a_booktabs_tabular():
    frame = tables.difference_table(ZERO_SHOT)
    lines = tables.to_latex(frame, note="one\ntwo").splitlines()
    assert lines[:4] == ["% one", "% two", r"\begin{tabular}{lrr}", r"\toprule"]
    assert lines[5] == r"\midrule" and lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    assert all(line.count("&") == 2 and line.endswith(r"\\") for line in [lines[4], *lines[6:-2]])


def test_tables_are_written_twice_with_the_same_bytes(tmp_path, capsys):
    frame = tables.difference_table(ZERO_SHOT)
    path = tables.write_table(frame, "differences", folder=tmp_path / "tables")
    first = path.read_bytes(), path.with_suffix(".csv").read_bytes()
    tables.write_table(frame, "differences", folder=tmp_path / "tables")
    assert first == (path.read_bytes(), path.with_suffix(".csv").read_bytes())
    assert sorted(p.name for p in path.parent.iterdir()) == ["differences.csv", "differences.tex"]
    again = pd.read_csv(path.with_suffix(".csv"), index_col=0)
    assert again.loc["NEW"].tolist() == frame.loc["NEW"].tolist()
    assert tables.write_table(pd.DataFrame(), "nothing", folder=tmp_path) is None
    assert "nothing: skipped" in capsys.readouterr().out


def test_an_empty_table_leaves_no_files_of_an_earlier_run(tmp_path):
    tables.write_table(pd.DataFrame({"r": ["0.5"]}, index=["a"]), "release", folder=tmp_path)
    tables.write_table(pd.DataFrame(), "release", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_macros_quote_values_intervals_and_leads(tmp_path):
    few_shot = compared({"Forecaster": (0.7, 0.6, 0.8), "MF": (0.5, np.nan, np.nan)}, k=20)
    macros = tables.macros_of(few_shot, "openllm-v2", "few shot", by="k")
    start = "OpenllmVTwoFewShotKTwoZero"
    assert macros[start + "ForecasterPearson"] == "0.70"
    assert macros[start + "ForecasterPearsonInterval"] == "[0.60, 0.80]"
    assert macros[start + "MFPearson"] == "0.50"
    assert start + "MFPearsonInterval" not in macros
    assert start + "ForecasterPearsonLead" not in macros
    assert macros[start + "MFMae"] == "5.0" and macros[start + "MFMaeLead"] == "2.0"
    path = tables.write_macros(macros | {"Share": "50%"}, tmp_path / "numbers.tex", note="data")
    lines = path.read_text().splitlines()
    assert lines[0] == "% data" and lines[-1] == r"\newcommand{\Share}{50\%}"
    assert all(re.fullmatch(r"\\newcommand\{\\[A-Za-z]+\}\{.*\}", line) for line in lines[1:])


def test_macros_of_other_characters_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'k5' must consist of letters"):
        tables.write_macros({"k5": "1"}, tmp_path / "numbers.tex")
    assert not list(tmp_path.iterdir())


def test_frames_are_read_back_and_old_ones_do_not_stay(tmp_path):
    frame = ZERO_SHOT.assign(level="2-4")
    assert tables.write_frames(tmp_path, kept=frame, gone=frame, never=pd.DataFrame()) == [
        "kept",
        "gone",
    ]
    tables.write_frames(tmp_path, gone=pd.DataFrame())
    assert [path.name for path in tmp_path.iterdir()] == ["kept.csv"]
    pd.testing.assert_frame_equal(tables.read_frame(tmp_path, "kept"), frame)
    assert tables.read_frame(tmp_path, "gone").empty


def test_estimates_and_leads_are_those_of_one_row():
    frame = compared(
        {"MF": (0.3, 0.2, 0.4), "kNN": (0.75, 0.6, 0.9), "Forecaster": (0.7, 0.6, 0.8)}
    )
    assert tables.estimate(frame) == "0.70 [0.60, 0.80]"
    assert tables.estimate(frame, "mae", predictor="MF") == "3.0 [2.0, 4.0]"
    assert tables.lead(frame, "MF") == "0.40 [0.30, 0.50] (better)"
    assert tables.lead(frame, "kNN") == "-0.05 [-0.20, 0.10] (no clear difference)"
    # A larger error is worse.
    assert tables.lead(frame, "MF", metric="mae") == "4.0 [3.0, 5.0] (worse)"
    with pytest.raises(ValueError, match="2 rows"):
        tables.estimate(pd.concat([frame, frame]))


def test_release_table_sets_each_predictor_beside_itself():
    known = {"all relatives": (0.8, 0.7, 0.9), "as at release": (0.6, 0.5, 0.7)}
    release = pd.concat([compared({"Forecaster": r}, known=name) for name, r in known.items()])
    table = tables.release_table(release)
    assert table.loc["Forecaster"].to_dict() == {
        "r, all relatives": "0.80 [0.70, 0.90]",
        "r, as at release": "0.60 [0.50, 0.70]",
        "MAE, all relatives": "8.0 [7.0, 9.0]",
        "MAE, as at release": "6.0 [5.0, 7.0]",
    }
    assert tables.release_table(pd.DataFrame()).empty


def test_family_table_has_a_row_for_each_family_and_their_mean():
    r = {"0": (0.5, 0.4, 0.6), "3": (0.3, 0.1, 0.5), "mean": (0.4, 0.3, 0.5)}
    within = pd.concat([compared({"Forecaster": value}, family=name) for name, value in r.items()])
    table = tables.family_table(within)
    assert list(table.index) == ["family 0", "family 3", "mean"]
    assert table.loc["mean", "Forecaster"] == "0.40 [0.30, 0.50]"
    assert table["models"].tolist() == ["50"] * 3
    assert tables.family_table(pd.DataFrame()).empty
