"""The commands of README on a run that was moved, renamed or given to another user, and under every
variable of docs/environment.md: they end with the same results, byte for byte."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.common.paths import REPOSITORY
from harness.compute.processor import OF_FP32, OF_LAST_BITS
from tests.small_runs import GPT_SMALL, train
from tests.waiting import GUARD

pytestmark = pytest.mark.long
NOWHERE, CLOSED = "/dev/null/x", "http://127.0.0.1:1"
# By whose variables they are; each group is set at once. PLACE: the folder of the run's copy.
SAME: dict[str, dict[str, str]] = {
    "none": {},  # moved and renamed
    "network": {
        "HF_HUB_OFFLINE": "on", "TRANSFORMERS_OFFLINE": "x", "HF_ENDPOINT": CLOSED,
        "HF_TOKEN": "hf_nobody", "HF_HOME": NOWHERE, "HF_HUB_CACHE": NOWHERE,
        "HUGGINGFACE_HUB_CACHE": NOWHERE, "TRANSFORMERS_CACHE": NOWHERE, "no_proxy": "x",
        "TIKTOKEN_CACHE_DIR": NOWHERE, "DATA_GYM_CACHE_DIR": NOWHERE, "http_proxy": CLOSED,
        "https_proxy": CLOSED, "TOKENIZERS_PARALLELISM": "x",
    },
    "folders": {
        "HOME": "PLACE/é", "XDG_CACHE_HOME": "relative", "XDG_STATE_HOME": "", "TMPDIR": NOWHERE,
        "ZOO_ASSETS": NOWHERE, "ZOO_LIMITS": "9", "GIT_DIR": NOWHERE, "GIT_WORK_TREE": NOWHERE,
        "PIP_TARGET": NOWHERE, "PIP_REQUIRE_VIRTUALENV": "x", "PYTHONHASHSEED": "7",
    },
    "figures": {
        "MPLBACKEND": "nope", "MATPLOTLIBRC": "PLACE/rc", "MPLCONFIGDIR": NOWHERE,
        "SOURCE_DATE_EPOCH": "x", "COLUMNS": "x", "LINES": "-1", "TERM": "none", "NO_COLOR": "",
        "FORCE_COLOR": "3", "TQDM_DISABLE": "0", "TQDM_MININTERVAL": "9", "DISPLAY": ":99",
        "WAYLAND_DISPLAY": "x", "CI": "1", "HYDRA_FULL_ERROR": "1", "OC_CAUSE": "1",
    },
    "language": {
        "LC_ALL": "C", "LC_CTYPE": "C", "LANG": "x", "LC_NUMERIC": "de_DE.UTF-8", "TZ": "x",
        "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1", "PYTHONCOERCECLOCALE": "0",
    },
    "loggers": {
        "WANDB_PROJECT": "a/b", "WANDB_ENTITY": "", "WANDB_NAME": "", "WANDB_RUN_GROUP": "x" * 999,
        "WANDB_JOB_TYPE": "x", "WANDB_NOTES": "x", "WANDB_TAGS": "x" * 99, "WANDB_DIR": NOWHERE,
        "WANDB_DATA_DIR": NOWHERE, "WANDB_MODE": "nope", "WANDB_API_KEY": "no-key",
        "WANDB_BASE_URL": "x", "WANDB_RUN_ID": "x/y", "WANDB_RESUME": "must",
        "WANDB_SWEEP_ID": "x", "WANDB_ERROR_REPORTING": "x", "TENSORBOARD_PROXY_URL": "x",
        "TRACKIO_DIR": NOWHERE, "TRACKIO_SPACE_ID": "me/mine", "TRACKIO_SERVER_URL": CLOSED,
    },
    "torch": {
        "MASTER_ADDR": "nowhere", "MASTER_PORT": "x", "TORCHELASTIC_RUN_ID": "x",
        "TORCHELASTIC_RESTART_COUNT": "x", "TORCHELASTIC_USE_AGENT_STORE": "x",
        "SLURM_PROCID": "3", "SLURM_NTASKS": "4", "OMPI_COMM_WORLD_RANK": "2",
        "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
        "CUBLAS_WORKSPACE_CONFIG": ":0:0", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
        "TORCHDYNAMO_DISABLE": "1", "TORCH_COMPILE_DISABLE": "1", "TORCH_LOGS": "",
        "TORCH_CPP_LOG_LEVEL": "INFO", "TORCH_SHOW_CPP_STACKTRACES": "1",
        "TORCH_DISTRIBUTED_DEBUG": "DETAIL", "PYTORCH_JIT": "0", "KMP_DUPLICATE_LIB_OK": "1",
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "TORCH_HOME": NOWHERE,
        "TORCHINDUCTOR_CACHE_DIR": "PLACE/é", "TRITON_CACHE_DIR": NOWHERE, **OF_FP32,
    },
}  # fmt: skip
# Under these the last bits may be others: the commands end well.
OTHER_BITS = {
    **dict.fromkeys((*OF_FP32, *OF_LAST_BITS), "1"),
    **{"ONEDNN_DEFAULT_FPMATH_MODE": "BF16", "ATEN_CPU_CAPABILITY": "default"},
    **{"MKL_VERBOSE": "1", "ONEDNN_VERBOSE": "1", "DNNL_VERBOSE": "1"},
}
# They are refused (tests/training/test_launcher.py), the user's own, or a value of another.
NOT_TRIED = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "PYTHONPATH", "STRICT"}

LINES = {
    "evaluate": "evaluate RUN --data-path TEXT --device cpu",
    "sample": "sample RUN --tokens 9 --device cpu",
    "compare": "compare RUN --markdown OUT/t.md --csv OUT/t.csv --out OUT/r.html",
    "inside": "inside RUN --out OUT/i.png",
    "compress": "compress RUN FILE --out OUT/f.zoo --device cpu",
    "decompress": "decompress RUN OUT/f.zoo --out OUT/f --device cpu",
    "verify": "verify RUN --data-path TEXT",
    "resume": "train run_dir=RUN resume=true train.steps=12 data.path=TEXT cache=OUT/cache",
}
WRITING = {"verify", "resume"}
OTHER = 54321  # a user whom the system does not know
# It may read everything, since the folders of this interpreter may be closed to it, and write
# nothing but its own.
AS = (
    *("setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
# One process for all commands, which has read its environment as every process does.
DRIVER = """
import contextlib, importlib, io, json, sys
mains, lines, result = {}, json.loads(sys.argv[1]), sys.argv[2]
for tool, *_ in lines.values():
    mains[tool] = importlib.import_module(f"harness.{tool}").main
ended = {}
for name, (tool, *arguments) in lines.items():
    sys.argv, streams, code = [tool, *arguments], [], 0
    for _ in range(2):
        streams.append(io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True))
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            mains[tool]()
    except SystemExit as end:
        code = end.code or 0
    except BaseException as error:
        code = f"TRACEBACK {type(error).__name__}: {error}"
    ended[name] = [code, *(stream.buffer.getvalue().decode() for stream in streams)]
open(result, "w").write(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def world() -> Iterator[Path]:
    """A folder that anybody may enter, with a run and its text."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name).resolve()
        home.chmod(0o755)
        assert train(home / "made", *GPT_SMALL, "data.split=[0.98,0.01,0.01]") == 0
        yield home


def tried(
    world: Path, name: str, variables: dict[str, str], user: int = 0, owned: bool = False
) -> dict[str, Any]:
    """What came of each command on a copy of the run in a folder of this name: exit code, both
    streams, and what was written. owned: the copy is given to that user."""
    place = world / name
    out, result = place / "out", place / "result.json"
    out.mkdir(parents=True)
    shutil.copytree(world / "made" / "run", place / "a run é")
    shutil.copy(world / "corpus.txt", place / "the text.txt")
    (place / "file").write_text("9 green bottles, hanging on the wall …\n")
    (place / "rc").write_text("text.usetex: True\nfigure.dpi: 9\n")
    if user:
        owned_ones = [place, *place.rglob("*")] if owned else [place, out, place / "file"]
        for path in owned_ones:
            os.chown(path, user, user)
    words = {
        "RUN": f"{place}/a run é", "TEXT": f"{place}/the text.txt", "OUT": str(out),
        "FILE": f"{place}/file",
    }  # fmt: skip

    def spelt(word: str) -> str:
        key, equals, value = word.rpartition("=")
        top, slash, rest = value.partition("/")
        spelled = f"{words.get(top, top)}{slash}{rest}"
        return f'{key}="{spelled}"' if equals and top in words else f"{key}{equals}{spelled}"

    lines = {each: list(map(spelt, line.split())) for each, line in LINES.items()}
    environment = {
        key: text
        for key, text in os.environ.items()
        if not key.startswith(("LC_", "LANG", "WANDB_", "HF_")) and key not in ("COLUMNS", "LINES")
    }
    environment |= {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": f"{out}/xdg"}
    environment |= {"XDG_STATE_HOME": f"{out}/state", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {key: text.replace("PLACE", str(place)) for key, text in variables.items()}
    done = subprocess.run(
        [*(AS if user else ()), sys.executable, "-c", DRIVER, json.dumps(lines), str(result)],
        cwd=out, env=environment, capture_output=True, timeout=20 * GUARD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    found: dict[str, Any] = json.loads(result.read_text())
    for each, (code, shown, said) in found.items():
        print(name, each, code, shown[-200:] if code else "", said[-400:], sep=" | ")
    files = {
        path.name: path.read_bytes().replace(str(place).encode(), b"PLACE")
        for path in sorted(out.iterdir())
        if path.is_file()
    }
    rows = [json.loads(row) for row in (place / "a run é" / "metrics.jsonl").open()]
    for row in rows:
        row.pop("seconds", None)
    shown = {
        each: [code, out_.replace(str(place), "PLACE")] for each, (code, out_, _) in found.items()
    }
    return {
        "ended": shown,
        "files": files,
        "rows": rows,
        "said": {k: v[2] for k, v in found.items()},
    }


@pytest.fixture(scope="module")
def expected(world: Path) -> dict[str, Any]:
    found = tried(world, "as it was", {})
    assert {each: code for each, (code, _) in found["ended"].items()} == dict.fromkeys(LINES, 0)
    assert found["files"]["f"] == (world / "as it was" / "file").read_bytes()
    return found


def require_same(found: dict[str, Any], expected: dict[str, Any], but_for: set[str]) -> None:
    for part in ("ended", "files"):
        for name, value in expected[part].items():
            if name not in but_for:
                assert without_times(found[part][name]) == without_times(value), name
    if "resume" not in but_for:
        assert found["rows"] == expected["rows"]


def without_times(value: Any) -> Any:
    """What a command says of its own duration is not the same twice."""
    if isinstance(value, list):
        return [without_times(each) for each in value]
    return (
        re.sub(r"\d+(\.\d+)? ?(s|ms|seconds?)\b", "TIME", value)
        if isinstance(value, str)
        else value
    )


def test_every_variable_of_the_page_is_tried() -> None:
    page = (REPOSITORY / "docs" / "environment.md").read_text()
    named = set(re.findall(r"`([A-Z][A-Z0-9_]+|[a-z]+_proxy)`", page))
    assert (
        named - NOT_TRIED - {key for group in (*SAME.values(), OTHER_BITS) for key in group}
        == set()
    )


@pytest.mark.parametrize("group", SAME)
def test_variables_change_nothing(group: str, world: Path, expected: dict[str, Any]) -> None:
    require_same(tried(world, f"under {group}", SAME[group]), expected, set())


def test_variables_that_change_bits_break_nothing(world: Path, expected: dict[str, Any]) -> None:
    found = tried(world, "bits", OTHER_BITS)
    assert {each: code for each, (code, _) in found["ended"].items()} == dict.fromkeys(LINES, 0)
    assert "ONEDNN_DEFAULT_FPMATH_MODE=BF16: fp32 may be rounded" in "".join(found["said"].values())


@pytest.mark.parametrize("owned", [True, False])
def test_another_user(owned: bool, world: Path, expected: dict[str, Any]) -> None:
    """Who was given the run; or may only read it: what must be written to it ends in one line."""
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can be somebody else")
    found = tried(world, f"other {owned}", {"HOME": NOWHERE}, OTHER, owned)
    require_same(found, expected, set() if owned else WRITING)
    for name in () if owned else WRITING:
        assert found["ended"][name][0] in (1, 2)
        assert found["said"][name].splitlines()[-1].startswith("error: ")
        assert "Traceback" not in found["said"][name]
