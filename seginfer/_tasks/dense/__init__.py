"""Dense masks: semantic, binary and multilabel."""
