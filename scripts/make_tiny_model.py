"""Make the model that the package carries: clone the demonstrator, then save it in bfloat16.

    python scripts/make_tiny_model.py scripts/alfworld_tiny.toml runs/tiny models/alfworld-tiny

A run that was ended goes on where its last checkpoint stands.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentgym.policies.prompt import saved_prompt
from agentgym.trainers.clone import CloneOptions, clone
from agentgym.trainers.run_folder import RunFolder
from agentgym.trainers.tiny import save_model


def main(recipe: Path, folder: Path, out: Path) -> None:
    """Run the recipe in a run folder and save what comes of it."""
    text = recipe.read_text(encoding="utf-8")
    options = CloneOptions.model_validate(tomllib.loads(text))
    trained = clone(options, open_run(folder, text), report, lambda: False)
    prompt = saved_prompt(trained)
    assert prompt is not None, "a cloned model carries its prompt"
    model = AutoModelForCausalLM.from_pretrained(trained)
    save_model(out, model, AutoTokenizer.from_pretrained(trained), prompt)


def open_run(folder: Path, recipe: str) -> RunFolder:
    """Return the run of a folder, made if need be."""
    if (folder / "config.toml").exists():
        return RunFolder.open(folder)
    about = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }
    return RunFolder.create(folder, recipe, about)


def report(metrics: dict[str, float]) -> None:
    """Print a line every 20 steps."""
    if metrics["step"] % 20 == 0:
        print(" ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
