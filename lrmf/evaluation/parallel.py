"""Where cross-validation runs: processes of this machine, or a Dask cluster."""

import os
from contextlib import contextmanager

from joblib import parallel_config

CLUSTER = "LRMF_DASK"  # environment variable: address of a Dask scheduler


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
