"""Weights, packed shards and runs of deeper in Python: docs/guides/python.md."""
from deeper.classifier import Classifier, Preprocess, googlenet
from deeper.shards import ShardDataset
from deeper.training import Run, RunError, run
from deeper.weights import load_state_dict

__all__ = ["Classifier", "Preprocess", "Run", "RunError", "ShardDataset", "googlenet", "load_state_dict", "run"]
