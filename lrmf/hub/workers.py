"""A bounded pool of workers that ends at once when it is told to."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator


def each(
    function: Callable, tasks: Iterable, *, n_workers: int, stopped: threading.Event
) -> Iterator[tuple[object, object]]:
    """Yield ``(task, function(task))`` as the results come, in any order.

    An exception of a worker is raised here. The threads are daemons, so that an interrupted
    program need not wait for their last requests.

    Parameters
    ----------
    function : callable, called in several threads
    tasks : iterable
    n_workers : int
    stopped : Event
        Set when no result is wanted any more.
    """
    tasks = list(tasks)
    waiting: queue.SimpleQueue = queue.SimpleQueue()
    results: queue.SimpleQueue = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)

    def work() -> None:
        while not stopped.is_set():
            try:
                task = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                results.put((task, function(task), None))
            except BaseException as error:
                results.put((task, None, error))
                return

    for _ in range(min(n_workers, len(tasks))):
        threading.Thread(target=work, daemon=True).start()
    for _ in tasks:
        task, result, error = results.get()
        if error is not None:
            raise error
        yield task, result
