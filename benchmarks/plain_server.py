"""What a team writes first: FastAPI, PEFT, `generate`. benchmarks.serving starts it, with a user's usual care.

    python -m benchmarks.plain_server MODEL PORT THREADS DTYPE NAME=ADAPTER [...]

The model is asked by one request at a time, as PEFT's `set_adapter` is for the whole model.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def build(place: str, dtype: str, adapters: dict[str, str]) -> FastAPI:
    tokenizer = AutoTokenizer.from_pretrained(place)
    model: Any = AutoModelForCausalLM.from_pretrained(place, dtype=getattr(torch, dtype))
    for name, folder in adapters.items():
        if isinstance(model, PeftModel):
            model.load_adapter(folder, adapter_name=name)
        else:
            model = PeftModel.from_pretrained(model, folder, adapter_name=name)
    model.eval()
    lock = threading.Lock()
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/completions")
    def completions(body: dict[str, Any]) -> dict[str, Any]:
        inputs = tokenizer(body["prompt"], return_tensors="pt")
        with lock, torch.inference_mode():
            model.set_adapter(body["model"])
            written = model.generate(
                **inputs,
                max_new_tokens=body["max_tokens"],
                do_sample=False,
                pad_token_id=tokenizer.eos_token_id,
            )[0, inputs["input_ids"].shape[1] :]
        text = tokenizer.decode(written, skip_special_tokens=True)
        return {"choices": [{"text": text}], "usage": {"completion_tokens": len(written)}}

    return app


if __name__ == "__main__":
    place, port, threads, dtype, *pairs = sys.argv[1:]
    torch.set_num_threads(int(threads))
    named = dict(pair.split("=", 1) for pair in pairs)
    uvicorn.run(build(place, dtype, named), host="127.0.0.1", port=int(port), log_level="warning")
