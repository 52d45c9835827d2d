"""Where cross-validation runs: processes of this machine, or a Dask cluster."""

import os
import warnings
from contextlib import contextmanager
from itertools import chain, islice

from joblib import Parallel, parallel_config

CLUSTER = "LRMF_DASK"  # environment variable: address of a Dask scheduler


def run(tasks, n_jobs: int) -> list:
    """Results of joblib's delayed calls; a single one runs here, with all threads of kernels.

    Parameters
    ----------
    tasks : iterable, of which no more are held at once than run
    n_jobs : as of `workers`
    """
    tasks = iter(tasks)
    first = list(islice(tasks, 2))
    with workers(n_jobs if len(first) > 1 else 1), warnings.catch_warnings():
        # A process whose memory has grown by 300 MB is replaced after its task; nothing is lost.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
        return Parallel()(chain(first, tasks))


@contextmanager
def workers(n_jobs: int):
    """Joblib's `Parallel` runs on `n_jobs` processes, or on the cluster that LRMF_DASK names.

    The results are the same: a task carries its own seed. Workers need this package installed.

    Raises
    ------
    ValueError
        If LRMF_DASK is set and the package `distributed` is missing or nobody answers there.
    """
    address = os.environ.get(CLUSTER)
    if not address:
        with parallel_config(n_jobs=n_jobs):
            yield
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError(f"{CLUSTER}={address} needs: pip install distributed") from error
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{CLUSTER}={address}: no Dask scheduler answers there ({error}); start one with "
            "`dask scheduler`, or unset the variable"
        ) from error
    with client, parallel_config(backend="dask", n_jobs=-1):
        yield
