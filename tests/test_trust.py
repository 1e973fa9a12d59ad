"""What the code may not do, whoever changes it: write halves, run what it read, unpickle."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("agentgym", "envs", "policies", "trainers")

WRITERS = {
    "agentgym/files.py": "the writer itself",
    "agentgym/cli.py": "opens the null device",
    "agentgym/journal.py": "appends lines; one that was cut off is left out when it is read",
    "agentgym/play.py": "appends lines that people asked for",
    "agentgym/partial.py": "appends what arrives; it gets its name when it is whole",
    "agentgym/download.py": "opens a file to lock it",
    "agentgym/export.py": "copies in fill_empty, which moves the folder when it is whole",
    "agentgym/plot.py": "draws into memory",
    "agentgym/unpack.py": "fills a work folder, which is moved when it is whole",
    "trainers/run_folder.py": "appends metrics, a checkpoint carries them; a lock",
    "trainers/recorded.py": "appends lines; one that was cut off is taken away when it is read",
    "envs/lucene.py": "fills a folder that make_once moves when it is whole",
    "envs/packed_strings.py": "as lucene.py",
    "envs/search_retrieval.py": "as lucene.py",
    "envs/webshop_stored.py": "as lucene.py",
    "policies/gguf_folder.py": "as lucene.py",
    "policies/hf.py": "fills a folder of a checkpoint, which is sealed and moved when it is whole",
    "trainers/lora.py": "as hf.py",
    "trainers/tiny.py": "as hf.py",
    "trainers/checkpoint.py": "as hf.py",
    "trainers/clone.py": "as hf.py",
    "policies/served_folder.py": "fills a folder that is written again for each server",
    "policies/serve.py": "appends to the log of a server",
}
"""Why a file may write in another way than by ``write_atomic``."""

_WRITING = {"write_text", "write_bytes", "save_pretrained", "save_file", "copytree", "copyfile"}
_WRITING |= {"copyfileobj", "truncate", "to_parquet", "savefig", "dump"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Yield each call with its dotted name, as far as it is written out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def argument(call: ast.Call, name: str) -> object:
    found = next((one.value for one in call.keywords if one.arg == name), None)
    return found.value if isinstance(found, ast.Constant) else None


def opens_to_write(name: str, call: ast.Call) -> bool:
    if name.rpartition(".")[2] not in ("open", "fdopen"):
        return False
    place = 1 if name in ("open", "os.fdopen") else 0  # the file comes first, or before the dot
    given = [one.value for one in call.args[place:][:1] if isinstance(one, ast.Constant)]
    mode = (given or [argument(call, "mode")])[0]
    return isinstance(mode, str) and bool(set(mode) & set("wax+"))


def writes(name: str, call: ast.Call) -> bool:
    last = name.rpartition(".")[2]
    saves = name in ("np.save", "np.savez", "torch.save")
    return last in _WRITING or saves or opens_to_write(name, call)


def test_everything_is_written_whole_or_not_at_all() -> None:
    found = {path for path, tree in modules() if any(writes(*call) for call in calls(tree))}
    assert found == WRITERS.keys(), "write by agentgym.files, or say why not"


def test_the_scan_sees_what_it_is_for() -> None:
    bad = (
        'Path("x").write_text("y")', 'open("x", "w")', 'path.open("ab")', "json.dump(a, b)",
        'path.open(mode="r+")', 'open(p, encoding="utf-8", mode="w")', "model.save_pretrained(f)",
    )  # fmt: skip
    for code in bad:
        assert any(writes(*call) for call in calls(ast.parse(code))), code
    for code in ('open("x")', 'path.open("rb")', "walk.open(item)", "json.dumps(a)"):
        assert not any(writes(*call) for call in calls(ast.parse(code))), code


CLOCKS = re.compile(
    r"time\.(time|time_ns|localtime|gmtime|ctime|strftime)|(datetime\.)?datetime\.(now|utcnow|today)"
    r"|(datetime\.)?date\.today"
)
WALL_CLOCKS: dict[str, str] = {}
"""Why a file reads a clock that people set: nothing does, so that none that jumps is noticed."""


def reads_wall_clock(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and CLOCKS.fullmatch(ast.unparse(node)):
            return True
        imported = node.names if isinstance(node, ast.ImportFrom) and node.module == "time" else []
        if any(CLOCKS.fullmatch(f"time.{one.name}") for one in imported):
            return True
    return False


def test_no_wall_clock_is_read() -> None:
    found = {path for path, tree in modules() if reads_wall_clock(tree)}
    assert found == WALL_CLOCKS.keys(), "take time.monotonic or time.perf_counter, or say why not"


def test_the_scan_sees_what_reads_a_wall_clock() -> None:
    bad = ("time.time()", "Dog(clock=time.time)", "from time import time", "datetime.now(UTC)",
           "datetime.datetime.now()", "date.today()", "time.strftime('%Y')")  # fmt: skip
    assert all(reads_wall_clock(ast.parse(code)) for code in bad)
    good = ("time.monotonic()", "from time import perf_counter", "path.stat().st_mtime_ns")
    assert not any(reads_wall_clock(ast.parse(code)) for code in good)


UNSAFE = ("eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "yaml.load",
          "marshal.loads", "shelve.open", "compile", "dill.loads", "cloudpickle.loads",
          "dist.all_gather_object", "dist.broadcast_object_list", "dist.gather_object",
          "dist.scatter_object_list", "dist.recv_object_list")  # fmt: skip
ALLOWED = {
    ("agentgym/hosted_envs.py", "pickle.loads"): "what a process of our own sent",
    ("trainers/ranks.py", "dist.all_gather_object"): "what processes of the same run sent",
    ("trainers/ranks.py", "dist.broadcast_object_list"): "what the first process of the run sent",
    ("envs/check.py", "pickle.loads"): "what it pickled itself a line before",
}


def unsafe(name: str, call: ast.Call) -> bool:
    if name == "torch.load":
        return argument(call, "weights_only") is not True
    if name in ("np.load", "numpy.load"):
        return argument(call, "allow_pickle") is True
    return (
        name in UNSAFE
        or argument(call, "shell") is True
        or (argument(call, "trust_remote_code") is True)
    )


def test_nothing_that_was_read_is_run() -> None:
    found = {
        (path, name) for path, tree in modules() for name, call in calls(tree) if unsafe(name, call)
    }
    assert found - ALLOWED.keys() == set()


@pytest.mark.parametrize(
    "code",
    ["eval(x)", "torch.load(p)", "torch.load(p, weights_only=False)", "pickle.loads(b)",
     "subprocess.run(c, shell=True)", "np.load(p, allow_pickle=True)", "os.system(c)",
     "dist.all_gather_object(a, b)",
     "A.from_pretrained(x, trust_remote_code=True)"],
)  # fmt: skip
def test_the_scan_sees_what_would_run(code: str) -> None:
    assert any(unsafe(*call) for call in calls(ast.parse(code)))
