"""Serve this bundle over HTTP: GET /health, GET /ready, POST /generate; of a classifier, POST /classify. It needs what
requirements.txt names, no more.

    python inference.py --port 8000
    python inference.py --format adapter --base FOLDER
    curl localhost:8000/generate -d '{"prompt": "Good morning", "max_new_tokens": 32}'
    curl localhost:8000/classify -d '{"text": "Good morning"}'

Each file that is loaded is first held against manifest.json, those of a base model against bundle.json. What differs is
not loaded: one line says which file, and the process ends with exit code 5. Who signed the bundle is told by its
signature, not here. All of it is in one file, which a bundle carries without raytrain.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FORMATS = ("merged", "adapter", "onnx", "torch_export")
"""The first of these that the bundle holds is served."""
REFUSED = 5
MOST_BODY_BYTES = 1 << 20


class RefusedBundle(Exception):
    """A file is not the one that was released."""


class BadRequest(Exception):
    """What a caller asked cannot be answered."""


def read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RefusedBundle(f"{file} cannot be read: {error}") from error


def sha256_of(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise RefusedBundle(f"{file} cannot be read: {error.strerror}") from error


def listed_files(bundle: Path) -> dict[str, str]:
    """SHA-256 by name. Raises RefusedBundle where manifest.json is damaged."""
    place = bundle / "manifest.json"
    try:
        return {name: str(one["sha256"]) for name, one in read_json(place)["files"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise RefusedBundle(f"{place} is no manifest: it lists no files with their sha256") from error


def verify_bundle(bundle: Path, form: str) -> None:
    """All files of one format, and bundle.json. Raises RefusedBundle that names the first which differs."""
    listed = listed_files(bundle)
    wanted = {name: digest for name, digest in listed.items() if name.startswith(f"{form}/")}
    if not wanted:
        raise RefusedBundle(f"{bundle} holds no {form}")
    for file in sorted((bundle / form).rglob("*")):
        name = file.relative_to(bundle).as_posix()
        if file.is_symlink() or (file.is_file() and name not in wanted):
            raise RefusedBundle(f"{bundle / name} is not listed in manifest.json")
    for name, digest in {**wanted, "bundle.json": listed.get("bundle.json", "")}.items():
        verify_file(bundle / name, digest, "manifest.json")


def verify_base(bundle: Path, base: Path) -> None:
    """Every file that the adapter was trained over. Raises RefusedBundle that names the first which differs."""
    wanted = read_json(bundle / "bundle.json")["base_model"]["files"]
    for name, digest in wanted.items():
        verify_file(base / name, digest, "bundle.json")
    extra = sorted(file.name for file in base.glob("*.safetensors") if file.name not in wanted)
    if extra:
        raise RefusedBundle(f"{base / extra[0]} is no part of the base model that bundle.json names")


def verify_file(file: Path, digest: str, where: str) -> None:
    if not os.path.isfile(file):  # noqa: PTH113 - unlike pathlib's it takes any name that a damaged manifest may have
        raise RefusedBundle(f"{file} is missing; {where} names it")
    found = sha256_of(file)
    if found != digest:
        raise RefusedBundle(f"{file} has SHA-256 {found[:16]}…, {where} says {digest[:16]}…")


def check_quantization(wanted: str) -> None:
    """What serve.yaml says. Raises RefusedBundle where this program would have to quantize."""
    if wanted != "none":
        raise RefusedBundle(
            f"quantization {wanted}: this program serves weights in the dtype that they were checked in, and none in "
            "4 or 8 bits"
        )


class Generator:
    """A model with its tokenizer; `logits` is each format's own."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        ends = read_json(folder / "generation_config.json").get("eos_token_id")
        self.ends = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
        self.max_positions: int | None = read_json(folder / "config.json").get("max_position_embeddings")

    def encode(self, prompt: str | list[dict[str, str]]) -> list[int]:
        """Text as it stands, with the tokenizer's special tokens once; messages through the chat template."""
        if isinstance(prompt, str):
            begins = bool(self.tokenizer.bos_token) and prompt.startswith(str(self.tokenizer.bos_token))
            return list(self.tokenizer(prompt, add_special_tokens=not begins)["input_ids"])
        text = self.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def logits(self, ids: list[int]) -> Any:
        """float32 of shape (tokens, vocabulary)."""
        raise NotImplementedError

    def generate(self, ids: list[int], max_new_tokens: int, temperature: float) -> list[int]:
        """New tokens, the end token among them; at temperature 0 always the likeliest."""
        import numpy as np

        tokens: list[int] = []
        while len(tokens) < max_new_tokens and not (tokens and tokens[-1] in self.ends):
            last = self.logits([*ids, *tokens])[-1]
            if temperature > 0:
                chances = np.exp((last - last.max()) / temperature, dtype=np.float64)
                tokens.append(int(np.random.default_rng().choice(len(last), p=chances / chances.sum())))
            else:
                tokens.append(int(last.argmax()))
        return tokens


class CachedGenerator(Generator):
    """A transformers model, which keeps what it has read."""

    def __init__(self, folder: Path, model: Any) -> None:
        super().__init__(folder)
        self.model = model.eval()

    def logits(self, ids: list[int]) -> Any:
        import torch

        with torch.inference_mode():
            row = torch.tensor([ids], device=self.model.device)
            return self.model(input_ids=row, use_cache=False).logits[0].float().cpu().numpy()

    def generate(self, ids: list[int], max_new_tokens: int, temperature: float) -> list[int]:
        import torch
        from transformers import GenerationConfig

        sampled = {"temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature > 0 else {}
        settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=temperature > 0,
            eos_token_id=sorted(self.ends) or None,
            pad_token_id=self.tokenizer.pad_token_id,
            **sampled,
        )
        row = torch.tensor([ids], device=self.model.device)
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=row, attention_mask=torch.ones_like(row), generation_config=settings
            )
        return list(output[0, len(ids) :].tolist())


class Classifier(Generator):
    """A transformers model that puts texts into classes, and writes nothing."""

    def __init__(self, folder: Path, model: Any) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.max_positions = read_json(folder / "config.json").get("max_position_embeddings")
        self.model = model.eval()

    def logits(self, ids: list[int]) -> Any:
        """float32 of shape (1, classes)."""
        import torch

        with torch.inference_mode():
            row = torch.tensor([ids], device=self.model.device)
            return self.model(input_ids=row).logits.float().cpu().numpy()

    def generate(self, ids: list[int], max_new_tokens: int, temperature: float) -> list[int]:  # noqa: ARG002
        return []

    def classify(self, ids: list[int]) -> dict[str, float]:
        """The probability of each class."""
        import numpy as np

        found = self.logits(ids)[0].astype(np.float64)
        chances = np.exp(found - found.max())
        labels = self.model.config.id2label
        return {labels[i]: float(one) for i, one in enumerate(chances / chances.sum())}


class GraphGenerator(Generator):
    """An exported graph, which reads the whole row for each token."""

    def __init__(self, folder: Path, run: Callable[[Any, Any], Any]) -> None:
        super().__init__(folder)
        self.run = run

    def logits(self, ids: list[int]) -> Any:
        import numpy as np

        row = np.array([ids], dtype=np.int64)
        return self.run(row, np.ones_like(row))[0].astype(np.float32)


def load(bundle: Path, form: str, base: Path | None = None, device: str = "cpu") -> Generator:
    """Load one format as any program would that has never heard of who wrote it. Nothing is verified here."""
    folder = bundle / form
    if form == "onnx":
        return GraphGenerator(folder, _onnx(folder, device))
    if form == "torch_export":
        return GraphGenerator(folder, _torch_export(folder))
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    if form == "adapter" and base is None:
        raise RefusedBundle("the adapter needs its base model: give its folder with --base")
    description = read_json(bundle / "bundle.json")
    more: dict[str, Any] = {"dtype": getattr(torch, description["dtype"])}
    classifies = description["task"] == "sequence_classification"
    if classifies:
        # The bundle's own classes; the adapter brings the head with it.
        more["config"] = AutoConfig.from_pretrained(folder, local_files_only=True)
        more["ignore_mismatched_sizes"] = form == "adapter"
    loader = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    model = loader.from_pretrained(
        base if form == "adapter" else folder, use_safetensors=True, local_files_only=True, **more
    ).to(device)
    if form == "adapter":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(folder))
    return Classifier(folder, model) if classifies else CachedGenerator(folder, model)


def best_device(form: str) -> str:
    """A GPU where the format can use the one that is there; a traced graph stays where it was traced."""
    if form == "onnx":
        providers = importlib.import_module("onnxruntime").get_available_providers()
        return "cuda" if "CUDAExecutionProvider" in providers else "cpu"
    if form == "torch_export":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _onnx(folder: Path, device: str) -> Callable[[Any, Any], Any]:
    onnxruntime = importlib.import_module("onnxruntime")
    providers = (["CUDAExecutionProvider"] if device == "cuda" else []) + ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=providers)
    return lambda ids, mask: session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]


def _torch_export(folder: Path) -> Callable[[Any, Any], Any]:
    import torch

    module = torch.export.load(folder / "model.pt2").module()

    def run(ids: Any, mask: Any) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(ids), torch.from_numpy(mask)).float().numpy()

    return run


class Service:
    """One model, which answers one caller after another."""

    def __init__(self, bundle: Path, form: str | None, base: Path | None, device: str) -> None:
        self.bundle, self.base, self.device = bundle, base, device
        self.form = form
        self.generator: Generator | None = None
        self.lock = threading.Lock()

    def start(self) -> None:
        """Verify, then load. Raises RefusedBundle."""
        listed = listed_files(self.bundle)
        verify_file(self.bundle / "bundle.json", listed.get("bundle.json", ""), "manifest.json")
        there = read_json(self.bundle / "bundle.json")["formats"]
        self.form = self.form or next((one for one in FORMATS if one in there), None)
        if self.form not in there:
            raise RefusedBundle(f"{self.bundle} holds no {self.form}; it holds {', '.join(there)}")
        verify_bundle(self.bundle, str(self.form))
        if self.form == "adapter" and self.base is not None:
            verify_base(self.bundle, self.base)
        if self.device == "auto":
            self.device = best_device(str(self.form))
        self.generator = load(self.bundle, str(self.form), self.base, self.device)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and content for one request."""
        if (method, path) == ("GET", "/health"):
            return 200, {"status": "ok"}
        if (method, path) == ("GET", "/ready"):
            return (200 if self.generator else 503), {
                "ready": self.generator is not None,
                "format": self.form,
            }
        if (method, path) not in (("POST", "/generate"), ("POST", "/classify")):
            return 404, {"error": "there is GET /health, GET /ready, POST /generate and POST /classify"}
        if self.generator is None:
            return 503, {"error": "the model is being loaded"}
        does = "/classify" if isinstance(self.generator, Classifier) else "/generate"
        if path != does:
            return 404, {"error": f"this model answers POST {does}"}
        try:
            with self.lock:
                if isinstance(self.generator, Classifier):
                    return 200, _classified(self.generator, body)
                return 200, self._generate(self.generator, body)
        except BadRequest as error:
            return 400, {"error": str(error)}

    def _generate(self, generator: Generator, body: bytes) -> dict[str, Any]:
        prompt, most, temperature = _asked(body, bool(generator.tokenizer.chat_template))
        try:
            ids = generator.encode(prompt)
        except Exception as error:  # a chat template raises what its author likes
            raise BadRequest(f"the prompt cannot be read: {error}") from error
        limit = generator.max_positions
        if not ids or (limit is not None and len(ids) + most > limit):
            raise BadRequest(f"{len(ids)} tokens and {most} new ones; at least 1 and at most {limit} in all")
        tokens = generator.generate(ids, most, temperature)
        ended = bool(tokens) and tokens[-1] in generator.ends
        return {
            "text": generator.tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True),
            "num_prompt_tokens": len(ids),
            "num_new_tokens": len(tokens),
            "stop_reason": "stop" if ended else "length",
        }


def _classified(classifier: Classifier, body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
        text = asked["text"] if asked.keys() == {"text"} else None
    except (ValueError, AttributeError, KeyError) as error:
        raise BadRequest(f"send one JSON object: {error}") from error
    if not isinstance(text, str):
        raise BadRequest("give text, and nothing else")
    ids, limit = classifier.encode(text), classifier.max_positions
    if not ids or (limit is not None and len(ids) > limit):
        raise BadRequest(f"{len(ids)} tokens; at least 1 and at most {limit}")
    chances = classifier.classify(ids)
    return {
        "label": max(chances, key=lambda one: chances[one]),
        "probabilities": chances,
        "num_tokens": len(ids),
    }


def _asked(body: bytes, has_template: bool) -> tuple[str | list[dict[str, str]], int, float]:
    try:
        asked = json.loads(body)
        unknown = sorted(asked.keys() - {"prompt", "messages", "max_new_tokens", "temperature"})
    except (ValueError, AttributeError) as error:
        raise BadRequest(f"send one JSON object: {error}") from error
    if unknown or ("prompt" in asked) == ("messages" in asked):
        raise BadRequest(f"give prompt or messages, max_new_tokens and temperature; not {unknown or 'both'}")
    prompt, most = asked.get("prompt", asked.get("messages")), asked.get("max_new_tokens", 128)
    temperature = asked.get("temperature", 0)
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise BadRequest("max_new_tokens is a whole number from 1")
    if (
        isinstance(temperature, bool)
        or not isinstance(temperature, int | float)
        or not 0 <= temperature < 100
    ):
        raise BadRequest("temperature is a number from 0, and below 100")
    if isinstance(prompt, str):
        return prompt, most, temperature
    turns = isinstance(prompt, list) and prompt and all(isinstance(one, dict) for one in prompt)
    if not turns or any(not isinstance(one.get(key), str) for one in prompt for key in ("role", "content")):
        raise BadRequest("prompt is a text; messages is a list of objects with role and content")
    if not has_template:
        raise BadRequest("the model has no chat template: give a prompt")
    return prompt, most, temperature


def handler_of(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 60

        def do_GET(self) -> None:
            self._send(*service.answer("GET", self.path, b""))

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > MOST_BODY_BYTES:
                self._send(413, {"error": f"state a Content-Length of at most {MOST_BODY_BYTES} bytes"})
                return
            self._send(*service.answer("POST", self.path, self.rfile.read(int(length))))

        def _send(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace")
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def build_app(arguments: dict[str, str]) -> Any:
    """The application that serve.yaml names; it needs Ray Serve, which nothing else here does."""
    from ray import serve

    class Served:
        def __init__(self) -> None:
            base = Path(arguments["base"]) if arguments.get("base") else None
            bundle = Path(arguments.get("bundle") or Path(__file__).parent)
            check_quantization(arguments.get("quantization", "none"))
            self.service = Service(bundle, arguments.get("format"), base, arguments.get("device", "auto"))
            self.service.start()

        async def __call__(self, request: Any) -> Any:
            from starlette.responses import JSONResponse

            body = await request.body()
            answer = self.service.answer
            status, content = await asyncio.to_thread(answer, request.method, request.url.path, body)
            return JSONResponse(content, status)

    return serve.deployment(Served, name="Generator").bind()


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve this bundle over HTTP.")
    parser.add_argument("--format", choices=FORMATS, help="by default the first of these that is there")
    parser.add_argument("--base", type=Path, help="folder of the base model; for the adapter")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    service = Service(Path(__file__).resolve().parent, given.format, given.base, given.device)
    try:
        server = ThreadingHTTPServer((given.host, given.port), handler_of(service))
    except OSError as error:
        sys.stderr.write(f"cannot listen on {given.host}:{given.port}: {error.strerror}\n")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stderr.write(f"listening on http://{given.host}:{server.server_port}\n")
    try:
        service.start()
    except RefusedBundle as error:
        sys.stderr.write(f"refused: {error}\n")
        return REFUSED
    sys.stderr.write(f"ready: {service.form} on {service.device}\n")
    signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
