"""TRL's side of peers.py; it runs in an environment that has TRL and no agentgym.

The batch is laid out as TRL's trainer lays out what it generated: prompts padded on the left and
completions on the right, both to the longest of the step; what environments said has a tool mask
of 0. Its own training step then runs on slices of the batch.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from processes import Spent
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, LlamaForCausalLM
from trl import GRPOConfig, GRPOTrainer


class Given(GRPOTrainer):
    """A trainer whose batches are given instead of generated."""

    def _prepare_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return inputs


def trainer_of(folder: Path, settings: dict[str, Any], micro: int, scratch: str) -> Given:
    """Build the trainer with the settings that mean the same on both sides."""
    optim = settings["optim"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = GRPOConfig(
        output_dir=scratch,
        per_device_train_batch_size=settings["rows"],
        gradient_accumulation_steps=micro,
        num_generations=8,
        loss_type="dapo",
        beta=0.0,
        epsilon=settings["clip"][0],
        epsilon_high=settings["clip"][1],
        temperature=1.0,
        learning_rate=optim["lr"],
        adam_beta1=optim["betas"][0],
        adam_beta2=optim["betas"][1],
        weight_decay=optim["weight_decay"],
        max_grad_norm=optim["clip"],
        lr_scheduler_type="constant",
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    trainer = Given(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": ["a"] * 8}),
        processing_class=tokenizer,
    )
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = micro
    return trainer


def laid_out(batch: dict[str, Tensor], pad: int) -> dict[str, Tensor]:
    """Return the batch as prompts and completions."""
    mask_BT, length_B = batch["mask_BT"], batch["length_B"].tolist()
    first_B = mask_BT.argmax(-1).tolist()

    def parts(name: str, completion: bool, fill: float) -> Tensor:
        rows = [
            row[first:length] if completion else row[:first]
            for row, first, length in zip(batch[name], first_B, length_B, strict=True)
        ]
        side = "right" if completion else "left"
        return pad_sequence(rows, batch_first=True, padding_value=fill, padding_side=side)

    batch = {**batch, "ones": torch.ones_like(batch["ids_BT"])}
    tool_mask = parts("mask_BT", True, 0.0)
    return {
        "prompt_ids": parts("ids_BT", False, pad),
        "prompt_mask": parts("ones", False, 0),
        "completion_ids": parts("ids_BT", True, pad),
        "completion_mask": parts("ones", True, 0),
        "tool_mask": tool_mask.long(),
        "advantages": torch.stack([row[row != 0][:1].sum() for row in batch["advantage_BT"]]),
        "old_per_token_logps": parts("old_logprob_BT", True, 0.0),
    }


def update(trainer: Given, batch: dict[str, Tensor], rows: int, gradient: bool) -> dict[str, Any]:
    """Make one optimiser step; return its loss, and its gradient before clipping if asked."""
    said = (batch["completion_mask"] * batch["tool_mask"]).sum()
    trainer.model.train()
    loss = 0.0
    for start in range(0, len(batch["advantages"]), rows):
        part = {name: tensor[start : start + rows] for name, tensor in batch.items()}
        part["num_items_in_batch"] = said
        loss += trainer.training_step(trainer.model, part, None).item()
    kept = {}
    if gradient:
        kept = {n: p.grad.clone() for n, p in trainer.model.named_parameters()}
    trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
    trainer.optimizer.step()
    trainer.model.zero_grad()
    return {"loss": loss, "gradient": kept}


def main() -> None:
    """Update the given batch, and print what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, required=True)
    parser.add_argument("--gradient", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.case
    settings = json.loads((folder / "settings.json").read_text())
    batch = torch.load(folder / "batch.pt", weights_only=True)
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):
        os.environ["WANDB_DISABLED"] = "true"
        micro = len(batch["length_B"]) // settings["rows"]
        trainer = trainer_of(folder, settings, micro, scratch)
        laid = laid_out(batch, trainer.processing_class.pad_token_id)
        spent = Spent()
        for repetition in range(1 if options.gradient else options.repetitions):
            with spent:
                done = update(trainer, laid, settings["rows"], options.gradient)
            if repetition == 0:
                first = done
    if options.gradient:
        torch.save(first["gradient"], folder / "theirs.pt")
    print(json.dumps({**spent.least(), "loss": first["loss"]}))


if __name__ == "__main__":
    main()
