"""How fast a crawl is and what memory it takes: `python tests/hub_speed.py [N_MODELS]`.

The Hub is simulated and local, in a process of its own and without a quota, so this measures the
crawler: seconds, and resident memory while requests go out. A measurement, not a test.
"""

import argparse
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

from hub_server import serve
from hub_world import make_world

from lrmf.hub import Client, crawl

N_SAMPLES = 10


def serve_world(n_models: int, pipe) -> None:
    """Serve until the other end hangs up; says the address first."""
    with serve(make_world(n_models).hub) as served:
        pipe.send(served.url)
        pipe.recv()


def resident_megabytes() -> float:
    """NearDuplicates of this process now (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def watch(client: Client, step: int, done: threading.Event) -> None:
    """Print the memory each time another ``step`` requests have gone out."""
    following = 0
    while not done.wait(0.02):
        if client.n_requests >= following:
            print(f"{client.n_requests:8,} requests  {resident_megabytes():7.1f} MB", flush=True)
            following += step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("n_models", nargs="?", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=8)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    context.Process(target=serve_world, args=(arguments.n_models, other), daemon=True).start()
    client, done = Client(pipe.recv()), threading.Event()
    step = max(1, arguments.n_models // N_SAMPLES)
    threading.Thread(target=watch, args=(client, step, done), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        snapshot = crawl(Path(folder) / "out", client=client, n_workers=arguments.workers)
        seconds = time.monotonic() - begun
    done.set()
    counts = f"{snapshot.n_models:,} models, {client.n_requests:,} requests"
    print(f"{counts}, {arguments.workers} workers: {seconds:.1f} s")
    pipe.send("done")


if __name__ == "__main__":
    main()
