"""What lies beside the weights: a model card, a licence, and what runs the bundle, each from what this model needs."""
