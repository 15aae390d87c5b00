"""Tiny random models beside Llama, made on the spot: GPT-2, BERT, ViT and T5, each with what reads its rows."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_models import save_tiny_tokenizer

WORDS = [
    "the", "a", "cat", "dog", "bird", "fish", "sun", "moon", "stone", "river", "good", "bad", "fine",
    "awful", "great", "poor", "happy", "sad", "one", "two", "three", "four", "five", "six", "seven",
    "eight", "nine", "red", "green", "blue", "paris", "london", "rome", "tokyo", "anna", "peter",
    "maria", "john", "lives", "in", "likes", "sees", "goes", "to", "and", "is", "was",
]  # fmt: skip


def save_tiny_gpt2(folder: Path, *, seed: int = 0) -> Path:
    """A random GPT-2 with the tokenizer of the tiny Llama."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=384, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=0, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    save_tiny_tokenizer(folder)
    return folder


def save_word_tokenizer(folder: Path, *, is_t5: bool = False) -> int:
    """One token a word, and `##` pieces for the letters of others, with BERT's or T5's special tokens; its size."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "</s>", "<unk>"] if is_t5 else ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,"
    names = dict.fromkeys([*special, *letters, *(f"##{one}" for one in letters), *WORDS])
    vocabulary = {name: number for number, name in enumerate(names)}
    unknown = special[2] if is_t5 else special[1]
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    begin, end = ([], special[1]) if is_t5 else (["[CLS]"], "[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([*begin, "$A", end]),
        special_tokens=[(name, vocabulary[name]) for name in [*begin, end]],
    )
    if is_t5:
        tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    else:
        tokens = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "mask")}
        tokens["unk_token"] = unknown
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)
    return len(vocabulary)


def save_tiny_bert(folder: Path, *, seed: int = 0) -> Path:
    """A random BERT with its masked-language head, as pre-training leaves it: without a classifier or a pooler."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    folder.mkdir(parents=True, exist_ok=True)
    size = save_word_tokenizer(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def save_tiny_t5(folder: Path, *, seed: int = 0) -> Path:
    """A random T5."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    size = save_word_tokenizer(folder, is_t5=True)
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=size, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def save_tiny_vit(folder: Path, *, seed: int = 0, image_size: int = 16) -> Path:
    """A random ViT with its preprocessor, as pre-training leaves it: its head knows two nameless classes."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=image_size,
        patch_size=4,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": image_size, "width": image_size},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
