"""What a model has learnt: zero-shot classification, retrieval and multiple choice on published test sets, in many languages."""
