"""What a user would train with instead: each contender is a program that trains the same adapter on the same rows.

    python -m benchmarks.contenders NAME SETTINGS.json        (started by benchmarks/training.py)

Names: bare_padded, bare_sorted, hf_trainer, trl, trl_packing; `trl_no_recompute` and `trl_packing_no_recompute` are TRL
with `gradient_checkpointing=False`, which is not its default.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.turns import ENVIRONMENT, Turns
from raytrain.data.batches import deal_padded

Row = dict[str, list[int]]  # input_ids, labels


def load_model(settings: dict[str, Any]) -> Any:
    """The base model as anybody would load it."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        settings["model"],
        dtype=getattr(torch, settings["dtype"]),
        attn_implementation="sdpa",
        local_files_only=True,
    )
    model.config.use_cache = False
    return model.to(settings["device"])


def lora_config(settings: dict[str, Any]) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings["lora_rank"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=0.0,
        target_modules="all-linear",
    )


def run_bare(settings: dict[str, Any], turns: Turns, *, sort: bool) -> None:
    """A loop by hand: pad, forward, cross-entropy over all logits, backward, clip, step."""
    from peft import get_peft_model

    torch.manual_seed(settings["seed"])
    model = get_peft_model(load_model(settings), lora_config(settings))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings["learning_rate"], weight_decay=0.0, fused=True)
    rows: list[Row] = settings["rows"]
    batch_size, micro = settings["global_batch_size"], settings["micro_batch_size"]
    num_steps = -(-len(rows) // batch_size)
    seen = 0
    for step in range(num_steps):
        batch = rows[step * batch_size : (step + 1) * batch_size]
        lengths = np.array([len(row["input_ids"]) for row in batch])
        order = np.arange(len(batch))
        parts = (
            [slots[0] for slots in deal_padded(order, lengths, 1, micro_batch_size=micro)]
            if sort
            else [order[i : i + micro] for i in range(0, len(batch), micro)]
        )
        num_targets = sum(label != -100 for row in batch for label in row["labels"][1:])
        total = 0.0
        for part in parts:
            inputs, labels = padded([batch[i] for i in part], settings["pad_id"], settings["device"])
            with torch.autocast(
                settings["device"], torch.bfloat16, enabled=settings["precision"] == "bfloat16"
            ):
                logits = model(**inputs).logits
            loss = functional.cross_entropy(
                logits[:, :-1].reshape(-1, logits.size(-1)).float(),
                labels[:, 1:].reshape(-1),
                reduction="sum",
            )
            (loss / num_targets).backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen += int(lengths.sum())
        turns.step_ended(is_last=step == num_steps - 1, loss=total / num_targets, tokens_seen=seen)
    model.save_pretrained(settings["output"])


def padded(rows: list[Row], pad_id: int, device: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)

    def stacked(key: str, fill: int) -> torch.Tensor:
        filled = [row[key] + [fill] * (longest - len(row[key])) for row in rows]
        return torch.tensor(filled, device=device)

    lengths = torch.tensor([len(row["input_ids"]) for row in rows], device=device)
    mask = (torch.arange(longest, device=device)[None] < lengths[:, None]).long()
    return {"input_ids": stacked("input_ids", pad_id), "attention_mask": mask}, stacked("labels", -100)


def common_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """What both trainers are told; everything else is their default."""
    return {
        "output_dir": settings["output"],
        "per_device_train_batch_size": settings["micro_batch_size"],
        "gradient_accumulation_steps": settings["global_batch_size"] // settings["micro_batch_size"],
        "num_train_epochs": 1,
        "learning_rate": settings["learning_rate"],
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
        "use_cpu": settings["device"] == "cpu",
        "bf16": settings["precision"] == "bfloat16",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": settings["seed"],
    }


def turn_callback(turns: Turns, tokens_of: Any) -> Any:
    from transformers import TrainerCallback

    class TakeTurns(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            is_last = state.global_step >= state.max_steps
            turns.step_ended(is_last=is_last, tokens_seen=tokens_of(state.global_step))

    return TakeTurns()


def counting(collate: Any) -> tuple[Any, list[int]]:
    """A collator that notes the real tokens of each micro-batch; padding and ignored labels are told apart."""
    counts: list[int] = []

    def counted(examples: list[dict[str, Any]]) -> Any:
        counts.append(sum(len(example["input_ids"]) for example in examples))
        return collate(examples)

    return counted, counts


def run_hf_trainer(settings: dict[str, Any], turns: Turns) -> None:
    from peft import get_peft_model
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    torch.manual_seed(settings["seed"])
    model = get_peft_model(load_model(settings), lora_config(settings))
    tokenizer = AutoTokenizer.from_pretrained(settings["model"], local_files_only=True)
    tokenizer.pad_token_id = settings["pad_id"]
    arguments = TrainingArguments(**common_arguments(settings), remove_unused_columns=False)
    collate, counts = counting(DataCollatorForSeq2Seq(tokenizer))
    trainer = Trainer(model=model, args=arguments, train_dataset=settings["rows"], data_collator=collate)
    trainer.add_callback(turn_callback(turns, tokens_at(counts, arguments.gradient_accumulation_steps)))
    trainer.train()
    model.save_pretrained(settings["output"])


def tokens_at(counts: list[int], accumulation: int) -> Any:
    """Tokens seen up to a step: loaders read ahead, so the counts are cut at the step's last micro-batch."""
    return lambda step: sum(counts[: step * accumulation])


def run_trl(settings: dict[str, Any], turns: Turns, *, packing: bool, recompute: bool | None) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    torch.manual_seed(settings["seed"])
    options = common_arguments(settings)
    rows = Dataset.from_list(settings["rows"])
    if packing:
        # As many tokens a step as the others have: whole packs of its default length, one at a time.
        mean_tokens = sum(len(row["input_ids"]) for row in settings["rows"]) / len(settings["rows"])
        packs = round(mean_tokens * settings["global_batch_size"] / 1024)
        options |= {
            "packing": True,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": max(1, packs),
        }
    if recompute is not None:
        options["gradient_checkpointing"] = recompute
    tokenizer = AutoTokenizer.from_pretrained(settings["model"], local_files_only=True)
    tokenizer.pad_token_id = settings["pad_id"]
    trainer = SFTTrainer(
        model=load_model(settings),
        args=SFTConfig(**options),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora_config(settings),
    )
    trainer.data_collator, counts = counting(trainer.data_collator)
    trainer.add_callback(turn_callback(turns, tokens_at(counts, options["gradient_accumulation_steps"])))
    trainer.train()
    trainer.model.save_pretrained(settings["output"])


CONTENDERS: dict[str, Callable[[dict[str, Any], Turns], None]] = {
    "bare_padded": partial(run_bare, sort=False),
    "bare_sorted": partial(run_bare, sort=True),
    "hf_trainer": run_hf_trainer,
    "trl": partial(run_trl, packing=False, recompute=None),
    "trl_packing": partial(run_trl, packing=True, recompute=None),
    "trl_no_recompute": partial(run_trl, packing=False, recompute=False),
    "trl_packing_no_recompute": partial(run_trl, packing=True, recompute=False),
}


def main(name: str, settings_file: str) -> None:
    settings = json.loads(Path(settings_file).read_text())
    settings["output"] = f"{settings['output']}/{name}"
    torch.set_num_threads(settings["threads"])
    socket, _, _ = os.environ[ENVIRONMENT].partition("#")
    CONTENDERS[name](settings, Turns(socket, name))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (Path(settings["output"]) / "peak_bytes").write_text(str(peak))


if __name__ == "__main__":
    main(*sys.argv[1:])
