"""The same seed gives the same bits: on any number of threads and any processor, and in native environments as in Gymnasium's.

README states the scope. Run as a program, this file trains every agent on the number of threads in its argument and prints a digest of
each one's state.
"""

import json
import os
import subprocess
import sys

import pytest

import rl_lab as rl
from rl_lab.serialization import checksum, split
from tests.runs import AGENTS, ENV

LARGE = "mlp:256,256"
REPLAY = {"network": LARGE, "learning_starts": 250, "batch_size": 256, "train_frequency": 8}
SETTINGS = {
    "dqn": {**REPLAY, "prioritized": True, "n_steps": 3},
    "qrdqn": {**REPLAY, "quantiles": 20},
    "sac": REPLAY,
    "td3": REPLAY,
    "tqc": {**REPLAY, "use_sde": True},
    "crossq": {**REPLAY, "critic_network": LARGE, "norm_warmup": 3},
    "a2c": {"network": LARGE, "num_steps": 64, "normalize_observations": True},
    "ppo": {"network": LARGE, "num_steps": 128, "batch_size": 256, "epochs": 2, "normalize_observations": True},
    "drqn": {
        "network": LARGE,
        "memory": 64,
        "batch_size": 64,
        "sequence_length": 4,
        "burn_in": 2,
        "learning_starts": 250,
        "train_frequency": 8,
    },
    "pqn": {"network": LARGE, "num_steps": 128, "batch_size": 256, "normalize_observations": True},
    "recurrent_ppo": {"network": "mlp:64", "memory": 64, "num_steps": 32, "batch_envs": 2, "epochs": 2},
    "reinforce": {"network": LARGE, "normalize_observations": True},
    "neat": {"population": 20, "lamarck": 2, "gradient_rollouts": 1, "champion_episodes": 5, "recurrent": True},
    "bc": {"dataset": "random:300", "network": LARGE},
    "iql": {"dataset": "random:300", "network": LARGE},
    "ars": {},
    "es": {"pairs": 8},
    "cmaes": {},
}
"""Products large enough for several cores."""


def digest(name: str, backend: str = "auto", **changes) -> str:
    """The digest of an agent's state after a short training, the environments' state apart."""
    env = ENV[name]
    agent = AGENTS[name](env, seed=3, num_envs=4, preset=False, backend=backend, **{**SETTINGS[name], **changes})
    agent.learn(300)
    state = agent.state_dict()
    state.pop("collector", None)
    arrays = {}
    structure = json.dumps(split(state, "", arrays))
    return checksum(arrays, structure)


@pytest.mark.parametrize("name", AGENTS)
def test_native_environments_and_those_of_gymnasium(name):
    small = {"network": "mlp:16"} if "network" in SETTINGS[name] else {}
    assert digest(name, "native", **small) == digest(name, "gymnasium", **small)


def digests(threads: int = 1, **variables: str) -> dict[str, str]:
    """The digest of every agent, from a process with this number of threads and these environment variables."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads), **variables}
    words = [sys.executable, "-m", "tests.experiment.test_determinism", str(threads)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_threads(full):
    one = digests()
    assert set(one) == set(AGENTS)
    assert digests(4) == one
    if full:
        assert digests(2) == one


def test_processors(full):
    """With the instructions of other processors. The short form only changes NumPy's library of matrix products, which must not matter."""
    one = digests()
    one.pop("cmaes", None)  # its library computes with NumPy's
    assert digests(OPENBLAS_CORETYPE="Sandybridge").items() >= one.items()
    if full:  # each processor's machine code is compiled anew
        features = "AVX512F,AVX512CD,AVX512_SKX,AVX512_CLX,AVX512_CNL,AVX512_ICL"
        for processor in ("haswell", "skylake-avx512", "znver4"):
            assert digests(NUMBA_CPU_NAME=processor, NPY_DISABLE_CPU_FEATURES=features).items() >= one.items(), processor


if __name__ == "__main__":
    rl.set_num_threads(int(sys.argv[1]))
    print(json.dumps({name: digest(name) for name in AGENTS}))
