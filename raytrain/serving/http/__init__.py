"""OpenAI's API over any Backend: who may ask, what is asked, and how answers are told."""
