"""`rl_lab.utils.data`: every sample once, in the order that a sampler says, collated as PyTorch collates."""

import gzip
import hashlib
import http.server
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, namedtuple
from pathlib import Path

import numpy as np
import pytest

import rl_lab as rl
from rl_lab.errors import FileError
from rl_lab.utils.data import (
    MNIST,
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
    mnist,
    random_split,
    read_idx,
)


class Squares(Dataset):
    def __init__(self, count):
        self.count = count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        return {"x": rl.tensor([float(index)]), "y": index * index, "name": f"n{index}", "pair": (np.float32(index), True)}

    def __len__(self):
        return self.count


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(7))


X = rl.arange(20).reshape(10, 2).float()
Y = rl.arange(10)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 5, 10, 11])
def test_batches_in_order(batch_size, drop_last):
    loader = DataLoader(TensorDataset(X, Y), batch_size, drop_last=drop_last)
    batches = list(loader)
    assert len(batches) == len(loader)
    whole = 10 // batch_size * batch_size if drop_last else 10
    if not batches:
        assert whole == 0
        return
    assert rl.cat([x for x, _ in batches]).tolist() == X[:whole].tolist()
    assert rl.cat([y for _, y in batches]).tolist() == list(range(whole))
    assert all(len(x) == batch_size for x, _ in batches[:-1])


def test_the_quick_way_of_a_tensor_data_set_is_the_slow_one():
    data = TensorDataset(X, Y, X.to(rl.uint8))
    quick, slow = DataLoader(data, 4), DataLoader(data, 4, collate_fn=lambda samples: default_collate(samples))
    for a, b in zip(quick, slow, strict=True):
        assert [(p.tolist(), p.dtype) for p in a] == [(p.tolist(), p.dtype) for p in b]


def test_shuffling_takes_each_sample_once_and_follows_the_generator():
    rounds = []
    for seed in (1, 1, 2):
        loader = DataLoader(TensorDataset(Y), 3, shuffle=True, generator=rl.Generator(seed))
        rounds.append([rl.cat([y for (y,) in loader]).tolist() for _ in range(3)])
    assert all(sorted(order) == list(range(10)) for part in rounds for order in part)
    assert rounds[0] == rounds[1] != rounds[2]
    assert rounds[0][0] != rounds[0][1]


def test_samples_are_collated_by_kind():
    (batch,) = DataLoader(Squares(4), 4)
    assert batch["x"].tolist() == [[0.0], [1.0], [2.0], [3.0]]
    assert (batch["y"].tolist(), batch["y"].dtype) == ([0, 1, 4, 9], rl.int64)
    assert batch["name"] == ["n0", "n1", "n2", "n3"]
    assert batch["pair"][0].dtype is rl.float32
    assert batch["pair"][1].dtype is rl.bool
    Point = namedtuple("Point", "a b")
    point = default_collate([Point(1.5, np.zeros(2, np.uint8)), Point(2.5, np.ones(2, np.uint8))])
    assert point.a.tolist() == [1.5, 2.5]
    assert point.b.dtype is rl.uint8
    with pytest.raises(ValueError, match="lengths"):
        default_collate([[1, 2], [1]])
    with pytest.raises(TypeError, match="collate_fn"):
        default_collate([object()])


def test_streams_and_single_samples():
    assert [b.tolist() for b in DataLoader(Stream(), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [b.tolist() for b in DataLoader(Stream(), 3, drop_last=True)] == [[0, 1, 2], [3, 4, 5]]
    assert list(DataLoader(Stream(), None)) == list(range(7))
    assert [s["y"] for s in DataLoader(Squares(3), None)] == [0, 1, 4]
    assert [b.tolist() for b in DataLoader(Stream() + Stream(), 14)] == [[*range(7), *range(7)]]
    assert isinstance(Stream() + Stream(), ChainDataset)


def test_samplers():
    assert list(SequentialSampler(range(3))) == [0, 1, 2]
    assert sorted(RandomSampler(range(5))) == [0, 1, 2, 3, 4]
    assert len(list(RandomSampler(range(5), replacement=True, num_samples=50))) == 50
    twelve = list(RandomSampler(range(5), num_samples=12))
    assert sorted(Counter(twelve).values()) == [2, 2, 2, 3, 3]
    assert sorted(SubsetRandomSampler([7, 9])) == [7, 9]
    drawn = Counter(WeightedRandomSampler([0.0, 1.0, 3.0], 4000, generator=rl.Generator(3)))
    assert drawn[0] == 0
    assert 2.5 < drawn[2] / drawn[1] < 3.5
    assert sorted(WeightedRandomSampler([1.0, 1.0], 2, replacement=False)) == [0, 1]
    batches = BatchSampler(range(7), 3, False)
    assert (list(batches), len(batches)) == ([[0, 1, 2], [3, 4, 5], [6]], 3)
    loader = DataLoader(TensorDataset(Y), batch_sampler=BatchSampler(range(9, -1, -1), 4, True))
    assert [y.tolist() for (y,) in loader] == [[9, 8, 7, 6], [5, 4, 3, 2]]
    assert [y.tolist() for (y,) in DataLoader(TensorDataset(Y), 2, sampler=[4, 2])] == [[4, 2]]


def test_data_sets_of_data_sets():
    a, b = TensorDataset(Y), TensorDataset(Y + 100)
    joined = a + b
    assert isinstance(joined, ConcatDataset)
    assert (len(joined), joined[9][0].item(), joined[10][0].item(), joined[-1][0].item()) == (20, 9, 100, 109)
    with pytest.raises(IndexError):
        joined[20]
    assert [s[0].item() for s in (Subset(a, [3, 1])[k] for k in range(2))] == [3, 1]
    assert StackDataset(a, b)[2] == ((Y[2],), (Y[2] + 100,))
    assert set(StackDataset(x=a, y=b)[1]) == {"x", "y"}
    with pytest.raises(ValueError, match="first size"):
        TensorDataset(X, Y[:3])


@pytest.mark.parametrize(
    ("lengths", "sizes"), [([7, 3], [7, 3]), ([0.5, 0.5], [5, 5]), ([0.33, 0.33, 0.34], [4, 3, 3]), ([10], [10]), ([1.0], [10])]
)
def test_random_split(lengths, sizes):
    parts = random_split(TensorDataset(Y), lengths, generator=rl.Generator(1))
    assert [len(part) for part in parts] == sizes
    assert sorted(part[k][0].item() for part in parts for k in range(len(part))) == list(range(10))
    again = random_split(TensorDataset(Y), lengths, generator=rl.Generator(1))
    assert [list(part.indices) for part in parts] == [list(part.indices) for part in again]


def test_a_split_that_does_not_add_up_is_refused():
    for lengths in ([5, 4], [0.5, 0.6], [11]):
        with pytest.raises(ValueError, match="add up"):
            random_split(TensorDataset(Y), lengths)


@pytest.mark.parametrize(
    "settings",
    [
        {"shuffle": True, "sampler": [1]},
        {"batch_sampler": [[1]], "batch_size": 2},
        {"batch_size": None, "drop_last": True},
        {"batch_size": 0},
        {"num_workers": -1},
    ],
)
def test_settings_that_exclude_each_other(settings):
    with pytest.raises(ValueError, match=r"."):
        DataLoader(TensorDataset(Y), **settings)
    with pytest.raises(ValueError, match="stream"):
        DataLoader(Stream(), shuffle=True)


def test_a_loop_of_training(learning_seed, learned):
    rl.manual_seed(learning_seed)
    generator = np.random.default_rng(learning_seed)
    inputs = generator.normal(size=(64, 3)).astype(np.float32)
    targets = inputs @ np.array([[1.0], [-2.0], [0.5]], np.float32)
    loader = DataLoader(TensorDataset(rl.tensor(inputs), rl.tensor(targets)), batch_size=16, shuffle=True)
    layer = rl.nn.Linear(3, 1)
    optimizer = rl.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(60):
        for x, y in loader:
            optimizer.zero_grad()
            loss = rl.nn.functional.mse_loss(layer(x), y)
            loss.backward()
            optimizer.step()
    learned(loss.item(), 0.0, within=1e-3)


def test_a_subset_of_tensors_is_one_gather_and_a_subclass_keeps_its_samples():
    class Doubled(TensorDataset):
        def __getitem__(self, index):
            return tuple(2 * x for x in super().__getitem__(index))

    x = rl.arange(12).reshape(6, 2)
    part = Subset(Subset(TensorDataset(x), [5, 3, 1, 0]), [0, 2, 3])
    assert [batch[0].tolist() for batch in DataLoader(part, batch_size=2)] == [[[10, 11], [2, 3]], [[0, 1]]]
    assert next(iter(DataLoader(Doubled(x), batch_size=2)))[0].tolist() == [[0, 2], [4, 6]]
    assert next(iter(DataLoader(Subset(Doubled(x), [1]))))[0].tolist() == [[4, 6]]


# --- workers ---------------------------------------------------------------------------------------------------------


class Told(Dataset):
    """Samples (index, worker, seed, three random numbers, what ``prepare`` left)."""

    mark = 0

    def __len__(self):
        return 8

    def __getitem__(self, index):
        info = get_worker_info()
        assert info.num_workers == 2
        assert info.dataset is self
        return index, info.id, info.seed, random.random(), np.random.random(), rl.rand(()).item(), self.mark  # noqa: NPY002


def prepare(number):
    get_worker_info().dataset.mark = 100 + number


class Shards(IterableDataset):
    """A stream of 3 samples in worker 0, of 8 in worker 1, and of 11 without workers."""

    def __iter__(self):
        info = get_worker_info()
        if info is None:
            return iter(range(11))
        return iter(range(3)) if info.id == 0 else iter(range(100, 108))


class TwoWords(Exception):
    def __init__(self, first, second):
        super().__init__(first, second)


class Broken(Dataset):
    """Fails in its own way at each index; index 0 is good."""

    def __len__(self):
        return 7

    def __getitem__(self, index):
        if index == 1:
            raise ValueError("bad sample")
        if index == 2:
            raise KeyError("no such key")
        if index == 3:
            raise TwoWords("a", "b")
        if index == 4:
            os._exit(3)
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 6:
            time.sleep(60)
        return index


def as_lists(value):
    """A batch as lists of numbers and names of dtypes, to compare exactly."""
    if isinstance(value, rl.Tensor):
        return value.tolist(), str(value.dtype)
    if isinstance(value, dict):
        return {key: as_lists(part) for key, part in value.items()}
    return [as_lists(part) for part in value] if isinstance(value, (list, tuple)) else value


def workers_left():
    return [process for process in multiprocessing.active_children() if process.name.startswith("DataLoader")]


@pytest.mark.parametrize(
    ("settings", "workers"), [({"batch_size": 3}, 2), ({"batch_size": 2, "drop_last": True}, 1), ({"batch_size": None}, 1)]
)
def test_workers_change_no_batch(settings, workers):
    passes = []
    for extra in ({}, {"num_workers": workers, "prefetch_factor": workers, "persistent_workers": True}):
        loader = DataLoader(Squares(11), shuffle=True, generator=rl.Generator(4), **settings, **extra)
        passes.append([[as_lists(batch) for batch in loader] for _ in range(2)])
        assert len(workers_left()) == extra.get("num_workers", 0)
        del loader
        assert not workers_left()
    assert passes[0] == passes[1]
    assert passes[0][0] != passes[0][1]


def test_workers_know_who_they_are_and_draw_what_the_generator_says():
    told = []
    for _ in range(2):
        loader = DataLoader(Told(), 2, num_workers=2, generator=rl.Generator(1), worker_init_fn=prepare)
        told.append([as_lists(batch) for batch in loader])
    assert get_worker_info() is None
    assert told[0] == told[1]
    columns = zip(*[[values for values, _ in batch] for batch in told[0]], strict=True)
    index, worker, seeds, *draws, mark = [[x for values in column for x in values] for column in columns]
    assert index == list(range(8))
    assert worker == [0, 0, 1, 1, 0, 0, 1, 1]
    base_seed = rl.randint(0, 2**63 - 1, (), generator=rl.Generator(1)).item()
    assert [seed - base_seed for seed in seeds] == worker
    assert [left - 100 for left in mark] == worker
    assert all(len(set(numbers)) == 8 for numbers in draws)


def test_each_worker_reads_its_share_of_a_stream():
    loader = DataLoader(Shards(), 2, num_workers=2, persistent_workers=True)
    for _ in range(2):
        assert [b.tolist() for b in loader] == [[0, 1], [100, 101], [2], [102, 103], [104, 105], [106, 107]]
    first = iter(loader)
    assert next(first).tolist() == [0, 1]
    assert len(list(loader)) == 6  # what the workers still made for the first pass does not come in the second one
    with pytest.raises(RuntimeError, match="newer pass"):
        next(first)


def test_an_exception_in_a_worker_is_raised_with_its_traceback():
    batches = iter(DataLoader(Broken(), sampler=[1, 2, 3, 0], num_workers=1))
    for kind, text in ((ValueError, "bad sample"), (KeyError, "no such key"), (RuntimeError, "TwoWords")):
        with pytest.raises(kind) as caught:
            next(batches)
        message = str(caught.value)
        assert message.startswith(("Caught", "'Caught")) == (kind is not None)
        assert "in DataLoader worker process 0.\nOriginal Traceback" in message
        assert "in __getitem__" in message
        assert text in message
    assert next(batches).tolist() == [0]
    assert not list(batches)


@pytest.mark.parametrize(
    ("index", "workers", "message"),
    [
        (4, 2, r"worker 1 \(pid \d+\) ended with exit code 3"),
        (5, 1, r"worker 0 \(pid \d+\) was killed by SIGKILL"),
        (6, 1, r"timed out after 5.0 seconds: worker 0 \(pid \d+\)"),
    ],
)
def test_a_worker_that_dies_or_hangs_is_named(index, workers, message):
    loader = DataLoader(Broken(), sampler=[0, index, 0, 0, 0, 0, 0], num_workers=workers, prefetch_factor=1)
    loader.timeout = 5.0 if index == 6 else 0
    batches = iter(loader)
    assert next(batches).tolist() == [0]
    with pytest.raises(RuntimeError, match=message):
        next(batches)
    assert not workers_left()


def test_what_cannot_be_sent_is_named():
    class Local(Squares):
        pass

    with pytest.raises(
        TypeError, match=r"the data set \(Local\) cannot be pickled: .*top level of a module, or use num_workers=0"
    ):
        iter(DataLoader(Local(3), num_workers=1))
    with pytest.raises(TypeError, match=r"collate_fn .* cannot be pickled"):
        iter(DataLoader(Squares(3), num_workers=1, collate_fn=lambda batch: batch))
    batches = iter(DataLoader(Squares(3), num_workers=1, collate_fn=unsendable))
    with pytest.raises(Exception, match="pickle"):
        next(batches)
    weight = rl.ones(2, requires_grad=True)
    batches = iter(DataLoader(TensorDataset(weight), num_workers=1))
    with pytest.raises(RuntimeError, match="detach"):
        next(batches)


def unsendable(batch):
    return lambda: batch


class Counted(Dataset):
    """Samples that count themselves in memory that the processes share."""

    def __init__(self):
        self.count = multiprocessing.get_context("spawn").Value("i", 0)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        with self.count.get_lock():
            self.count.value += 1
        return index


def test_a_data_set_may_hold_shared_memory_of_multiprocessing():
    data = Counted()
    assert len(list(DataLoader(data, num_workers=1, multiprocessing_context="spawn"))) == 6
    assert data.count.value == 6


SCRIPT = """
import multiprocessing, os, sys, time
import rl_lab as rl
from rl_lab.utils.data import DataLoader, TensorDataset
loader = DataLoader(TensorDataset(rl.arange(10)), num_workers=1, persistent_workers=True)
batches = iter(loader)
print(next(batches)[0].item(), *[process.pid for process in multiprocessing.active_children()], flush=True)
if "wait" in sys.argv:
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="looks for processes in the way of POSIX")
@pytest.mark.parametrize("killed", [True, False])
def test_workers_do_not_outlive_their_process(tmp_path, killed):
    """A script without a guard, too, whose data set is of the library: the workers then need not import the script."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    script = subprocess.Popen([sys.executable, path, *["wait"] * killed], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    first, *pids = script.stdout.readline().split()
    assert (first, len(pids)) == ("0", 1)
    if killed:
        script.kill()
    script.communicate()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_script_without_a_guard_is_told_so(tmp_path):
    path = tmp_path / "script.py"
    source = "class Mine(TensorDataset):\n    pass\n"
    path.write_text(SCRIPT.replace("loader =", source + "loader =").replace("DataLoader(TensorDataset", "DataLoader(Mine"))
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, cwd=Path.cwd(), timeout=60)
    assert done.returncode == 1
    assert 'If the script has no `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


def test_a_pass_that_is_dropped_ends_its_workers():
    batches = iter(DataLoader(Squares(50), num_workers=1))
    next(batches)
    assert len(workers_left()) == 1
    del batches
    assert not workers_left()


@pytest.mark.parametrize(
    "settings",
    [
        {"prefetch_factor": 2},
        {"persistent_workers": True},
        {"timeout": 1.0},
        {"multiprocessing_context": "spawn"},
        {"num_workers": 1, "timeout": -1.0},
        {"num_workers": 1, "prefetch_factor": 0},
        {"num_workers": 1, "multiprocessing_context": "fork"},
        {"num_workers": 1, "multiprocessing_context": multiprocessing.get_context("spawn").get_context("forkserver")},
    ],
)
def test_settings_of_workers_that_do_not_fit(settings):
    with pytest.raises(ValueError, match=r"."):
        DataLoader(TensorDataset(Y), **settings)


def test_a_loader_keeps_what_it_was_made_of():
    loader = DataLoader(TensorDataset(Y), 5)
    with pytest.raises(ValueError, match="batch_size of a DataLoader cannot change"):
        loader.batch_size = 2


# --- MNIST's files ---------------------------------------------------------------------------------------------------


def idx(array: np.ndarray, kind: int) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def digits(tmp_path) -> tuple[np.ndarray, np.ndarray]:
    """A folder with four training images, plain labels and compressed images."""
    images = np.arange(4 * 3 * 5, dtype=np.uint8).reshape(4, 3, 5)
    labels = np.array([7, 0, 9, 3], np.uint8)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images, 8)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels, 8))
    return images, labels


def test_mnist_reads_plain_and_compressed_files(tmp_path, digits):
    images, labels = digits
    data = MNIST(tmp_path)
    assert data.data.shape == (4, 1, 3, 5)
    assert data.data.equal(rl.tensor(images[:, None] / np.float32(255)))
    assert data.targets.tolist() == labels.tolist()
    image, label = data[2]
    assert (image.shape, int(label)) == ((1, 3, 5), 9)


@pytest.mark.parametrize("kind", ["u1", "i1", ">i2", ">i4", ">f4", ">f8"])
def test_every_type_of_an_idx_file(tmp_path, kind):
    array = np.array([[-3.0, 2.0], [100.0, 0.0]]).astype(kind) if kind != "u1" else np.array([[3, 2], [255, 0]], np.uint8)
    codes = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}
    (tmp_path / "x").write_bytes(idx(array, codes[kind]))
    read = read_idx(tmp_path / "x")
    assert read.tolist() == array.tolist()
    assert read.dtype.isnative


def damage(data: bytes, where: int) -> bytes:
    return data[:where] + bytes([data[where] ^ 0xFF]) + data[where + 1 :]


def test_damaged_files_are_named(tmp_path, digits):
    """A wrong type, a header or data cut off, too many data, a wrong checksum inside gzip, and a wrong MD5 sum."""
    good = idx(digits[0], 8)
    packed = gzip.compress(good)
    wrong = {
        "not an IDX file": [b"", b"hello, world", damage(good, 2)],
        "cut off": [good[:9]],
        "header describes": [good[:-1], good + b"\0", damage(good, 7)],
        "damaged": [packed[:-9], damage(packed, len(packed) - 5), damage(packed, len(packed) // 2)],
    }
    for message, files in wrong.items():
        for data in files:
            (tmp_path / "x").write_bytes(data)
            with pytest.raises(FileError, match=message):
                read_idx(tmp_path / "x")
    (tmp_path / "x").write_bytes(packed)
    with pytest.raises(FileError, match="MD5"):
        read_idx(tmp_path / "x", md5="0" * 32)
    assert read_idx(tmp_path / "x", md5=hashlib.md5(packed).hexdigest()).shape == (4, 3, 5)


def test_folders_that_do_not_fit_are_refused(tmp_path, digits):
    with pytest.raises(FileError, match="t10k-images-idx3-ubyte"):
        MNIST(tmp_path, train=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(digits[1][:3], 8))
    with pytest.raises(FileError, match="4 images but 3 labels"):
        MNIST(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(digits[0], 8))
    with pytest.raises(FileError, match="no images and labels"):
        MNIST(tmp_path)


class Server(http.server.BaseHTTPRequestHandler):
    """Serves the dict ``files``, and breaks off in the middle of the file ``torn``."""

    files: dict[str, bytes] = {}
    torn = ""

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        if name not in self.files:
            self.send_error(404)
            return
        data = self.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if name == self.torn else data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server with four images and labels, whose sums take the place of the published ones."""
    pytest.importorskip("pooch")
    images, labels = np.arange(60, dtype=np.uint8).reshape(4, 3, 5), np.array([7, 0, 9, 3], np.uint8)
    files = {
        f"train-{name}-ubyte.gz": gzip.compress(idx(x, 8)) for name, x in (("images-idx3", images), ("labels-idx1", labels))
    }
    monkeypatch.setattr(Server, "files", files)
    monkeypatch.setattr(mnist, "MD5", {name: hashlib.md5(data).hexdigest() for name, data in files.items()})
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    monkeypatch.setattr(mnist, "SOURCE", f"http://127.0.0.1:{running.server_port}/mnist/")
    threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def test_missing_files_of_mnist_are_fetched_once(tmp_path, server, monkeypatch):
    data = MNIST(tmp_path / "new", download=True)
    assert (data.data.shape, data.targets.tolist()) == ((4, 1, 3, 5), [7, 0, 9, 3])
    monkeypatch.setattr(Server, "files", {})
    assert MNIST(tmp_path / "new", download=True).targets.tolist() == [7, 0, 9, 3]


@pytest.mark.parametrize("fault", ["404", "MD5 sum", "broke off", "no connection"])
def test_a_download_that_fails_is_one_line_and_leaves_no_file(tmp_path, server, monkeypatch, fault):
    name = "train-labels-idx1-ubyte.gz"
    if fault == "404":
        monkeypatch.setattr(Server, "files", {key: data for key, data in Server.files.items() if key != name})
    elif fault == "MD5 sum":
        monkeypatch.setitem(Server.files, name, gzip.compress(idx(np.zeros(4, np.uint8), 8)))
    elif fault == "broke off":
        monkeypatch.setattr(Server, "torn", name)
    else:
        monkeypatch.setattr(mnist, "SOURCE", "http://127.0.0.1:9/")
    with pytest.raises(FileError, match=f"cannot be fetched: .*{fault}") as caught:
        MNIST(tmp_path, download=True)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(f"Try again, or copy MNIST's files to {tmp_path}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train-images-idx3-ubyte.gz"] * (fault != "no connection")


def test_a_download_without_pooch_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"^downloading MNIST needs the package pooch: pip install pooch$"):
        MNIST(tmp_path, download=True)
