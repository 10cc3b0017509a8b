"""The threads of the machine: numba's, which the engine uses, and those of BLAS, which it does not."""

from typing import Any

import numba


def start_threads() -> None:
    """Start numba's threads on the OpenMP layer, whose parallel regions cost least.

    Machine code that holds a parallel region and comes from the cache aborts the process if they do not run yet. A process forked
    after the first parallel region cannot use them: start workers with spawn or forkserver.
    """
    from numba.np.ufunc import parallel

    if not parallel._is_initialized:
        config: Any = numba.config
        previous, config.THREADING_LAYER = config.THREADING_LAYER, "omp"
        try:
            parallel._launch_threads()
        finally:
            config.THREADING_LAYER = previous


def limit_blas_threads() -> None:
    """Limit SciPy's BLAS, which numba's ``np.dot`` calls, to one thread.

    On two threads a small product waits for a pool that any other load on the machine stalls for milliseconds. The library is
    loaded with the first kernel that holds a product, so this is called after that. NumPy's own BLAS keeps its threads.
    """
    from threadpoolctl import ThreadpoolController

    for library in ThreadpoolController().lib_controllers:
        if library.user_api == "blas" and "scipy" in library.filepath:
            library.set_num_threads(1)
