"""All cases together, and the number of samples of each that are compared with PyTorch. ``python -m tests.engine.every_case`` counts."""

from tests.engine.cases import CASES as BASIC
from tests.engine.cases import DISCRETE as BASIC_DISCRETE
from tests.engine.cases_functions import FUNCTIONS, FUNCTIONS_DISCRETE
from tests.engine.cases_networks import NETWORKS

CASES = [*BASIC, *FUNCTIONS, *NETWORKS]
DISCRETE = [*BASIC_DISCRETE, *FUNCTIONS_DISCRETE]
DRAWS = 4
"""Different inputs for each case."""


def operations() -> set[str]:
    """The first word of each case's name: one per operation."""
    return {case.name.split("[")[0].split(" ")[0] for case in [*CASES, *DISCRETE]}


if __name__ == "__main__":
    print(
        f"{len(operations())} operations, {len(CASES)} cases with gradients, {len(CASES) * DRAWS} samples, {len(DISCRETE)} without"
    )
