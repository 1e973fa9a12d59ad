"""Save a cloned model as the package carries it: bfloat16, with tokenizer and prompt.

python scripts/bundle_model.py runs/tiny/checkpoints/step_001500/hf models/alfworld-tiny
"""

from __future__ import annotations

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from agentgym.errors import DataError
from agentgym.policies.prompt import saved_prompt
from agentgym.trainers.tiny import save_model


def main(trained: Path, out: Path) -> None:
    """Write ``trained``, a model folder of a run, into ``out``."""
    prompt = saved_prompt(trained)
    if prompt is None:
        raise DataError(f"{trained} carries no prompt; take the hf folder of a cloned model's run")
    model = AutoModelForCausalLM.from_pretrained(trained)
    save_model(out, model, AutoTokenizer.from_pretrained(trained), prompt)
    for path in out.iterdir():
        path.chmod(0o644)  # weights are written for their owner alone


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
