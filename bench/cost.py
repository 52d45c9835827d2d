"""What a command costs: ``python -m bench.cost make reproduce RUN=full``.

Its wall time, and the peak of the memory that it and all processes below it hold together: the sum
of their proportional set sizes, in which memory shared by n of them counts 1/n for each (Linux).
"""

import sys
from time import monotonic

import psutil

SECONDS = 1.0  # between two looks: reading the maps of a process stops it for milliseconds


def measure(command, *, seconds=SECONDS):
    """Status of a command, the seconds it took, and the most bytes of memory of its processes."""
    begin, peak = monotonic(), 0
    with psutil.Popen(command) as process:
        while True:
            peak = max(peak, proportional_bytes(process))
            try:
                status = process.wait(seconds)
            except psutil.TimeoutExpired:
                continue
            return status, monotonic() - begin, peak


def proportional_bytes(process):
    """Sum of the proportional set sizes of a process and of all below it that have not ended."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def main(command):
    """Run `command`, say what it cost on standard error, and end with its status."""
    if not command:
        sys.exit("usage: python -m bench.cost COMMAND [ARGUMENT ...]")
    if not psutil.LINUX:
        sys.exit("bench.cost: only Linux tells the proportional set sizes of processes")
    try:
        status, seconds, peak = measure(command)
    except OSError as reason:
        sys.exit(f"bench.cost: {command[0]} did not start: {reason}")
    minutes, rest = divmod(round(seconds), 60)
    said = f"{minutes} min {rest} s, at most {peak / 1e9:.2f} GB: {' '.join(command)}"
    print(said, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
