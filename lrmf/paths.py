"""Where a run of the notebooks keeps its parts; the same from any working directory."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build_folder(run):
    """build/<run>: what the notebooks of a run hand to each other."""
    return _folder("build", run)


def figure_folder(run):
    """figures/<run>: figures and tables with the numbers behind them."""
    return _folder("figures", run)


def snapshot_folder(snapshot):
    """The snapshot's directory; a relative path counts from the repository.

    Examples
    --------
    >>> snapshot_folder("data/simulated").relative_to(ROOT).as_posix()
    'data/simulated'
    >>> snapshot_folder("/somewhere/else").as_posix()
    '/somewhere/else'
    """
    return ROOT / snapshot


def _folder(kind, run):
    if not run or Path(run).name != run:
        raise ValueError(f"run must be a plain name, got {run!r}")
    folder = ROOT / kind / run
    folder.mkdir(parents=True, exist_ok=True)
    return folder
