"""What a crawl costs without a network: ``python -m bench.crawl [MODELS]``.

The Hub is the simulated one of the tests, in a process of its own and without a quota, so that this
measures the crawler: seconds, and its resident memory as requests go out (Linux).
"""

import argparse
import multiprocessing
import sys
import tempfile
import threading
from pathlib import Path
from time import monotonic

import psutil

from lrmf.hub import Client, crawl

TESTS = Path(__file__).parents[1] / "tests"
N_LOOKS = 5


def serve_world(n_models, pipe):
    """Serve until the other end hangs up; says the address first."""
    sys.path.insert(0, str(TESTS))
    from hub_server import serve
    from hub_world import make_world

    with serve(make_world(n_models, seed=5).hub) as served:
        pipe.send(served.url)
        pipe.recv()


def watch(client, step, done):
    """Print the memory each time another ``step`` requests have gone out."""
    process, following = psutil.Process(), 0
    while not done.wait(0.02):
        if client.n_requests >= following:
            megabytes = process.memory_info().rss / 2**20
            print(f"{client.n_requests:8,} requests  {megabytes:7.1f} MB", flush=True)
            following += step


def main():
    """Crawl a simulated Hub and say what that took."""
    parser = argparse.ArgumentParser(description="Crawl a simulated Hub and say what that took.")
    parser.add_argument("n_models", nargs="?", type=int, default=5000, metavar="MODELS")
    parser.add_argument("--workers", type=int, default=8)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    context.Process(target=serve_world, args=(arguments.n_models, other), daemon=True).start()
    client, done = Client(pipe.recv()), threading.Event()
    step = max(1, arguments.n_models // N_LOOKS)
    threading.Thread(target=watch, args=(client, step, done), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        begin, cpu = monotonic(), psutil.Process().cpu_times()
        snapshot = crawl(Path(folder) / "out", client=client, n_workers=arguments.workers)
        seconds, now = monotonic() - begin, psutil.Process().cpu_times()
    done.set()
    cpu_seconds = now.user + now.system - cpu.user - cpu.system
    print(
        f"{snapshot.n_models:,} models, {client.n_requests:,} requests, {arguments.workers} workers"
    )
    print(f"{seconds:.1f} s, of which {cpu_seconds:.1f} CPU seconds of the crawler")
    pipe.send("done")


if __name__ == "__main__":
    main()
