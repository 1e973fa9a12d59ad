"""The benchmark that needs a GPU: that its code runs, and measures what it says."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_of_a_gpu_runs_on_a_cpu_and_stays_near_float32(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--shape", "tiny"])
    gpu.main()
    page = capsys.readouterr().out
    gaps = [float(gap) for gap in re.findall(r"on average, (\S+) at most", page)]
    cosines = [float(one) for one in re.findall(r"cosine \| (\S+) \|", page)]
    assert len(gaps) == 6  # log-probability and entropy, of projection, model, model recomputed
    assert all(0 < gap < 0.02 for gap in gaps)
    assert len(cosines) == 4
    assert all(0.999 < one < 1.000001 for one in cosines)


def test_the_sizes_are_those_of_a_model_of_1_5_billion_parameters(gpu: ModuleType) -> None:
    from agentgym.model_shape import shape_of

    ours, known = gpu.SHAPES["1.5b"], shape_of("Qwen2.5-1.5B")
    for name in ("hidden", "intermediate", "layers", "heads", "kv_heads", "vocabulary"):
        assert getattr(ours, name) == getattr(known, name)


def test_a_cosine_is_that_of_all_parts_together(gpu: ModuleType) -> None:
    one, other = torch.tensor([3.0]), torch.tensor([4.0])
    assert gpu._cosine([one, other], [one, other]) == "1.000000"
    assert gpu._cosine([one, other], [other, -one]) == "0.000000"


def test_nothing_is_written_where_there_is_no_gpu(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments in (["--write"], ["--device", "cpu", "--shape", "tiny", "--write"]):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
        with pytest.raises(SystemExit, match="2"):
            gpu.main()
    assert "there is no GPU" in capsys.readouterr().err
