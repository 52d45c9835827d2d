"""Typeset the paper: what `make paper` calls.

    python -m paper.build

generates what the text reads (`paper.generate`), compiles in an empty folder with latexmk (TeX
Live) or else tectonic, so that equal sources give equal bytes, and writes paper/main.pdf only if
the log has nothing to object to.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lrmf.files import OutputError, write_bytes
from paper.generate import GENERATED, draw_knowledge, generate
from paper.results import ROOT, PaperError

PAPER = Path(__file__).resolve().parent
INSTALL = (
    "neither latexmk nor tectonic is installed. Debian, Ubuntu: apt-get install "
    "--no-install-recommends latexmk texlive-latex-base texlive-latex-recommended "
    "texlive-fonts-recommended"
)
OVERFULL = 5.0  # points that a line may stick out
LONGEST = {"body": 8, "appendix": 8}  # pages; references stand between the two
EPOCH = "1735689600"  # the date that a PDF must not depend on
ERROR = re.compile(r"! .*|[^:]+:\d+: .*")
WARNING = re.compile(
    r".*(Reference|Citation|Label)\b.*(undefined|multiply|have changed).*|"
    r".*Missing character.*|Overfull \\hbox \(([\d.]+)pt too wide\).*"
)
COMMANDS = {
    "latexmk": "latexmk -pdf -silent -halt-on-error -file-line-error".split(),
    "tectonic": "tectonic --keep-logs --keep-intermediates".split(),
}


class BuildError(Exception):
    """Why there is no PDF, in one message."""


def main() -> int:
    """Write paper/main.pdf; 1 and the reasons on stderr if it cannot be."""
    try:
        program = find_program()
        generate(ROOT, GENERATED)
        draw_knowledge(ROOT, ROOT / "figures")
        pdf = build(program)
        write_bytes(PAPER / "main.pdf", pdf)
    except (BuildError, PaperError, OutputError) as error:
        print(f"make paper: {error}", file=sys.stderr)
        return 1
    print(f"paper/main.pdf: {len(pdf) // 1024} kB")
    return 0


def find_program() -> str:
    """latexmk or tectonic, whichever is there; the first if both are."""
    program = next(filter(shutil.which, COMMANDS), None)
    if program is None:
        raise BuildError(INSTALL)
    return program


def build(program: str) -> bytes:
    """The PDF of main.tex, compiled from scratch."""
    with tempfile.TemporaryDirectory() as folder:
        output = {"latexmk": f"-outdir={folder}", "tectonic": f"--outdir={folder}"}[program]
        for again in ([], ["-g"]):
            done = subprocess.run(
                [*COMMANDS[program], *again, output, "main.tex"],
                cwd=PAPER,
                env=os.environ
                | {"SOURCE_DATE_EPOCH": EPOCH, "FORCE_SOURCE_DATE": "1", "max_print_line": "10000"},
                capture_output=True,
                text=True,
                errors="replace",
            )
            log = _read(folder, "main.log")
            # Under load latexmk now and then takes labels for settled that are not.
            if program != "latexmk" or "have changed. Rerun" not in log:
                break
        found = problems(log, _read(folder, "main.blg"))
        if done.returncode or found:
            said = found or (done.stdout + done.stderr).strip().splitlines()[-8:]
            raise BuildError(f"{program} met problems:\n  " + "\n  ".join(said))
        for part, n_pages in lengths(_read(folder, "main.aux")).items():
            if n_pages > LONGEST[part]:
                raise BuildError(f"the {part} has {n_pages} pages; at most {LONGEST[part]}")
        return (Path(folder) / "main.pdf").read_bytes()


def problems(log: str, bibliography: str = "") -> list[str]:
    """Errors; or, without any, undefined references, wide lines, bibliography warnings."""
    lines = list(dict.fromkeys(log.splitlines()))
    if errors := [_with_place(lines, n) for n, line in enumerate(lines) if ERROR.fullmatch(line)]:
        return errors
    found = []
    for line in lines:
        warning = WARNING.fullmatch(line)
        if warning and not (warning[3] and float(warning[3]) <= OVERFULL):
            found.append(line)
    return found + [line for line in bibliography.splitlines() if line.startswith("Warning--")]


def lengths(labels: str) -> dict[str, int]:
    """Pages of the body and of the appendix, from the labels at their ends."""
    found = re.findall(r"\\newlabel\{(\w+:(?:body|appendix))\}\{\{.*?\}\{(\d+)\}", labels)
    page = {name: int(number) for name, number in found}
    return {
        "body": page["end:body"],
        "appendix": page["end:appendix"] - page["start:appendix"] + 1,
    }


def _with_place(lines, number):
    """The error in this line of a log, and the text that it met, which TeX shows as `l.7 ...`."""
    place = next((line for line in lines[number + 1 : number + 6] if line.startswith("l.")), "")
    return f"{lines[number]} {place}".rstrip()


def _read(folder, name):
    path = Path(folder) / name
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
