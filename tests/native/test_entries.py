"""Cache entries: a wrong or damaged entry is compiled again, and a directory that cannot hold entries costs only time."""

import ctypes
import errno
import gc
import hashlib
import os
import pickle
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from numba import float64

from rl_lab.native import cache
from rl_lab.native.cache import _MAGIC, Cache, _read, _write, compile_c_function

KEY = hashlib.sha256(b"a key").digest()
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
posix = pytest.mark.skipif(os.name != "posix", reason="modes and owners are those of POSIX")


def double(x):
    return 2.0 * x


def triple(x):
    return 3.0 * x


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A new cache directory."""
    found = tmp_path / "cache"
    found.mkdir()
    monkeypatch.setattr(cache, "_directory", found)
    monkeypatch.setattr(cache, "_looked", True)
    monkeypatch.setattr(cache, "_warned", False)
    return found


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """A list that collects the names of compiled kernels."""
    names: list[str] = []
    monkeypatch.setattr(cache, "on_compile", names.append)
    return names


def call(function) -> float:
    made = compile_c_function(function, float64(float64))
    return made.ctypes(5.0)


def entry_of(place: Path, function) -> Path:
    (found,) = place.glob(f"{function.__name__}-*")
    return found


# --- damage ------------------------------------------------------------------------------------------------------------------


def test_an_entry_is_read_back(place):
    _write(place / "x", KEY, b"content")
    assert _read(place / "x", KEY) == b"content"
    assert _read(place / "x", hashlib.sha256(b"another").digest()) is None
    assert _read(place / "y", KEY) is None


def test_one_flipped_bit_anywhere_is_seen(place, compiled):
    call(double)
    path = entry_of(place, double)
    whole = path.read_bytes()
    key = Cache(double, cache._OPTIONS)._key(float64(float64), cache.CFunc._targetdescr.target_context)
    assert _read(path, key) is not None
    step = max(1, len(whole) // 1500)
    positions = [*range(len(_MAGIC) + 40), *range(0, len(whole), step), len(whole) - 1]
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        assert _read(path, key) is None, position
    compiled.clear()
    assert call(double) == 10.0
    assert compiled == ["double"]
    assert path.read_bytes() != bytes(damaged)
    compiled.clear()
    assert call(double) == 10.0
    assert compiled == []


@pytest.mark.parametrize("length", [0, 1, len(_MAGIC), len(_MAGIC) + 31, len(_MAGIC) + 32, -1, -100])
def test_a_truncated_entry_is_replaced(place, compiled, length):
    call(double)
    path = entry_of(place, double)
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    compiled.clear()
    assert call(double) == 10.0
    assert compiled == ["double"]
    assert len(path.read_bytes()) > 0.9 * len(whole)
    path.write_bytes(whole + b"\0")
    assert call(double) == 10.0
    assert compiled == ["double", "double"]


def test_exchanged_entries_are_not_taken_for_each_other(place, compiled):
    call(double)
    call(triple)
    one, other = entry_of(place, double), entry_of(place, triple)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    compiled.clear()
    assert (call(double), call(triple)) == (10.0, 15.0)
    assert compiled == ["double", "triple"]


def planted(name: str) -> bytes:
    class Planted:
        def __reduce__(self):
            return Path.touch, (Path(name),)

    return pickle.dumps(Planted())


@pytest.mark.parametrize(
    "head", ["none", "magic", "checksum of the content", "checksum of another key", "whole entry of another key"]
)
def test_planted_pickles_are_not_executed(place, compiled, tmp_path, head):
    call(double)
    path = entry_of(place, double)
    witness = tmp_path / "it_ran"
    content = planted(str(witness))
    heads = {
        "none": b"",
        "magic": _MAGIC,
        "checksum of the content": _MAGIC + hashlib.sha256(content).digest(),
        "checksum of another key": _MAGIC + hashlib.sha256(KEY + content).digest(),
        "whole entry of another key": _MAGIC + hashlib.sha256(b"\0" * 32 + content).digest(),
    }
    path.write_bytes(heads[head] + content)
    compiled.clear()
    assert call(double) == 10.0
    assert compiled == ["double"]
    assert not witness.exists()


def test_the_planted_pickle_would_run(tmp_path):
    """Unpickling the planted entry runs its code, so the test above can fail."""
    pickle.loads(planted(str(tmp_path / "it_ran")))
    assert (tmp_path / "it_ran").exists()


def test_a_sound_entry_that_numba_cannot_load_is_replaced(place, compiled):
    call(double)
    path = entry_of(place, double)
    key = Cache(double, cache._OPTIONS)._key(float64(float64), cache.CFunc._targetdescr.target_context)
    _write(path, key, pickle.dumps(("no", "machine", "code")))
    compiled.clear()
    with pytest.warns(RuntimeWarning, match="double cannot be loaded"):
        assert call(double) == 10.0
    assert compiled == ["double"]


def test_a_symbol_that_is_missing_loads_numbas_libraries_first(place, monkeypatch):
    """LLVM aborts the process if machine code expects a symbol that nothing provides."""
    context = cache.CFunc._targetdescr.target_context
    calls: list[int] = []
    monkeypatch.setattr(context, "refresh", lambda: calls.append(1))
    cache._provide(["PyErr_Clear"], context)
    assert not calls
    cache._provide(["PyErr_Clear", "numba_no_such_symbol"], context)
    assert calls


@posix
@pytest.mark.parametrize(
    "kind", ["directory", "link", "broken link", "fifo", "foreign", "group can write", "others can write", "unreadable"]
)
def test_what_is_no_private_file_is_not_read(place, compiled, kind, tmp_path):
    call(double)
    path = entry_of(place, double)
    if kind in ("directory", "link", "broken link", "fifo"):
        path.rename(tmp_path / "moved")
    if kind == "directory":
        (path / "inside").mkdir(parents=True)
    elif kind == "link":
        path.symlink_to(tmp_path / "moved")
    elif kind == "broken link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "foreign":
        if not ROOT:
            pytest.skip("only root can give files away")
        os.chown(path, 12345, -1)
    elif kind == "unreadable" and ROOT:
        pytest.skip("root reads everything")
    else:
        path.chmod({"group can write": 0o620, "others can write": 0o602, "unreadable": 0}[kind])
    compiled.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the entry cannot be written: a directory is in its place
        assert call(double) == 10.0
    assert compiled == ["double"]
    assert not (tmp_path / "nowhere").exists()
    assert not list(place.glob(".*"))
    if kind != "directory":
        found = path.lstat()
        assert stat.S_ISREG(found.st_mode)
        assert found.st_mode & 0o777 == 0o600
        assert found.st_uid == os.getuid()


def test_the_code_of_a_loaded_entry_stays_when_another_copy_is_gone(place):
    call(double)
    one, other = (compile_c_function(double, float64(float64)) for _ in range(2))
    function = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(other.address)
    del one
    gc.collect()
    call(triple)
    assert function(5.0) == 10.0


# --- places that cannot hold entries ---------------------------------------------------------------------------------------

CODE = """
import warnings
warnings.simplefilter("always")
from numba import float64
from rl_lab.native import cache
def one(x): return x + 1.0
def two(x): return x + 2.0
print([cache.compile_c_function(f, float64(float64)).ctypes(1.0) for f in (one, two)])
print(cache.directory())
"""


def in_a_process(before: str = "", **environment: str | None) -> tuple[str, list[str]]:
    """Run a kernel in a new process and check its result; returns the process's cache directory and its warnings."""
    whole = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    given = {name: value for name, value in whole.items() if value is not None}
    done = subprocess.run([sys.executable, "-c", before + CODE], env=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results, directory = done.stdout.splitlines()
    assert results == "[2.0, 3.0]"
    return directory, [line for line in done.stderr.splitlines() if "RuntimeWarning" in line]


def test_the_directory_is_made_and_private(tmp_path):
    place, warned = in_a_process(RL_LAB_CACHE=str(tmp_path / "new" / "cache"))
    assert place == str(tmp_path / "new" / "cache" / "machine-code")
    assert not warned
    made = [tmp_path / "new" / "cache", Path(place)]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o700] * 2
    assert [path.stat().st_mode & 0o777 for path in Path(place).iterdir()] == [0o600] * 2


def test_where_it_stands(tmp_path):
    empty = {"RL_LAB_CACHE": None, "XDG_CACHE_HOME": None, "HOME": str(tmp_path)}
    assert in_a_process(**empty) == (str(tmp_path / ".cache/rl_lab/machine-code"), [])
    assert in_a_process(**{**empty, "XDG_CACHE_HOME": str(tmp_path / "x")}) == (str(tmp_path / "x/rl_lab/machine-code"), [])
    assert in_a_process(**{**empty, "RL_LAB_CACHE": "~/here"}) == (str(tmp_path / "here/machine-code"), [])
    (tmp_path / "link").symlink_to(tmp_path / "here")
    assert in_a_process(**{**empty, "RL_LAB_CACHE": "~/link"}) == (str(tmp_path / "here/machine-code"), [])


NO_HOME = """
import os
os.environ.pop("HOME", None)
import pwd
def nobody(*given): raise KeyError("no such user")
pwd.getpwuid = pwd.getpwnam = nobody
"""

FULL = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))\n"


@posix
@pytest.mark.parametrize(
    "kind",
    ["file", "below a file", "others can write", "foreign", "no home", "nowhere to write", "full", "nearly full"],
)
def test_a_place_that_cannot_be_used_costs_one_warning(tmp_path, kind):
    base = tmp_path / "base"
    before = ""
    environment: dict[str, str | None] = {"RL_LAB_CACHE": str(base), "TMPDIR": str(tmp_path)}
    if kind == "file":
        base.write_text("here already")
    elif kind == "below a file":
        base.write_text("here already")
        environment["RL_LAB_CACHE"] = str(base / "below")
    elif kind == "others can write":
        base.mkdir()
        base.chmod(0o777)
    elif kind == "foreign":
        if not ROOT:
            pytest.skip("only root can give directories away")
        base.mkdir()
        os.chown(base, 12345, -1)
    elif kind == "no home":
        before = NO_HOME
        environment["RL_LAB_CACHE"] = "~/cache"
    elif kind == "nowhere to write":
        base.write_text("here already")
        before = "import tempfile\ndef none(**given): raise FileNotFoundError('no usable temporary directory')\ntempfile.mkdtemp = none\n"
    else:
        before = FULL.format(0 if kind == "full" else 2000)
    place, warned = in_a_process(before, **environment)
    assert len(warned) == 1, warned
    assert "machine code is not kept" in warned[0]
    if kind in ("full", "nearly full"):
        assert not list(Path(place).iterdir())
    elif kind == "nowhere to write":
        assert place == "None"
    else:
        assert Path(place).parent == tmp_path, "a temporary directory"
        assert not Path(place).exists(), "which is removed at the end"
    if kind in ("others can write", "foreign"):
        assert not list(base.iterdir())


def test_a_directory_that_vanishes_or_is_read_only_costs_one_warning(place, monkeypatch):
    def refuse(*given, **named):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cache.os, "replace", refuse)
    with pytest.warns(RuntimeWarning, match="Read-only") as found:
        assert (call(double), call(triple)) == (10.0, 15.0)
    assert len(found) == 1
    assert not list(place.iterdir())


@pytest.mark.skipif(not ROOT, reason="only root can mount")
def test_a_file_system_without_room(tmp_path):
    mounted = tmp_path / "small"
    mounted.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k,mode=0700", "none", str(mounted)], capture_output=True)
    if done.returncode:
        pytest.skip("cannot mount here")
    try:
        _, warned = in_a_process(RL_LAB_CACHE=str(mounted))
        assert len(warned) == 1
        assert "No space left" in warned[0]
        assert not [path for path in (mounted / "machine-code").iterdir() if path.name.startswith(".")]
        subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
        _, warned = in_a_process(RL_LAB_CACHE=str(mounted))
        assert len(warned) == 1
        assert "Read-only" in warned[0]
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_first_runs_side_by_side(tmp_path):
    """Eight processes compile the same kernels into one new directory; a ninth finds all of them."""
    environment = {**os.environ, "RL_LAB_CACHE": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-c", CODE]
    running = [
        subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(8)
    ]
    for process in running:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert out.startswith("[2.0, 3.0]")
        assert "Warning" not in err
    place = tmp_path / "cache" / "machine-code"
    assert sorted(path.name.split("-")[0] for path in place.iterdir()) == ["one", "two"]
    before = "from rl_lab.native import cache\ndef fail(name): raise AssertionError(name)\ncache.on_compile = fail\n"
    assert in_a_process(before, RL_LAB_CACHE=str(tmp_path / "cache")) == (str(place), [])


# --- size --------------------------------------------------------------------------------------------------------------------


def test_the_entries_that_were_not_used_for_longest_are_deleted(place, monkeypatch):
    monkeypatch.setattr(cache, "MOST_BYTES", 10_000)
    monkeypatch.setattr(cache, "_writes", 0)
    now = time.time()
    for age in range(20):
        path = place / f"kernel-{age:024x}"
        path.write_bytes(bytes(1000))
        os.utime(path, (now - 86_400 * (age + 2), now - 86_400 * (age + 2)))
    others = [place / "notes.txt", place / f".kernel-{0:024x}.{0:016x}"]
    for path in others:
        path.write_bytes(bytes(5000))
    _read(place / f"kernel-{19:024x}", KEY)  # used today
    _write(place / f"kernel-{99:024x}", KEY, b"new")
    left = sorted(int(path.name[-24:], 16) for path in place.glob("kernel-*"))
    assert left == [0, 1, 2, 3, 4, 5, 19, 99]
    assert all(path.exists() for path in others)
    os.utime(others[1], (now - 100_000, now - 100_000))
    cache.make_room(place)
    assert not others[1].exists(), "left by a process that was killed"
    assert others[0].exists()


def test_importing_touches_no_directory(tmp_path):
    code = "import rl_lab, rl_lab.native.cache as c\nprint(c._looked)"
    environment = {**os.environ, "RL_LAB_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
    assert not (tmp_path / "cache").exists()
