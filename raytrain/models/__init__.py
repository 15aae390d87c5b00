"""The base model and its tokenizer, adapters, text generation, and the memory that training takes."""
